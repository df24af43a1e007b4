/*!
 * \file fsim_threads.cc
 * \brief Rounds of work: the caller announces one, takes its share, and waits for the others.
 */
#include "fsim_threads.h"

#include <algorithm>

namespace ahcq {
namespace fsim {
namespace {

constexpr int kSpins = 2000;  // some ten microseconds, what a small instruction takes

void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

Threads::Threads(uint32_t count) {
  if (count == 0) count = std::max(1u, std::thread::hardware_concurrency());
  for (uint32_t i = 1; i < count; ++i) workers_.emplace_back(&Threads::Work, this, i);
}

Threads::~Threads() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Threads::For(uint32_t size, uint32_t grain, const std::function<void(uint32_t, uint32_t)>& body) {
  const uint32_t share = (size + count() - 1) / count();
  const uint32_t stretch = std::max(grain, (share + grain - 1) / grain * grain);
  if (workers_.empty() || stretch >= size) return body(0, size);
  body_ = &body;
  size_ = size;
  stretch_ = stretch;
  left_ = static_cast<uint32_t>(workers_.size());
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ++round_;
  }
  wake_.notify_all();
  Stretch(0);
  for (int spin = 0; left_ != 0; ++spin) spin < kSpins ? Relax() : std::this_thread::yield();
}

void Threads::Stretch(uint32_t number) {
  const uint32_t first = number * stretch_;
  if (first < size_) (*body_)(first, std::min(size_, first + stretch_));
}

void Threads::Work(uint32_t number) {
  for (uint64_t seen = 0;;) {
    for (int spin = 0; round_ == seen && !stop_ && spin < kSpins; ++spin) Relax();
    if (round_ == seen) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return round_ != seen || stop_; });
    }
    if (stop_) return;
    seen = round_;
    Stretch(number);
    --left_;
  }
}

}  // namespace fsim
}  // namespace ahcq
