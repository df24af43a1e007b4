/*!
 * \file fsim_threads.cc
 * \brief Rounds of work. A thread that finds none spins for a moment, then sleeps.
 */
#include "fsim_threads.h"

#include <algorithm>

namespace ahcq {
namespace fsim {
namespace {

constexpr int kSpins = 1000;  // some ten microseconds, what a small instruction takes
constexpr uint64_t kPieces = 0xffffffffu;

void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

Threads::Threads(uint32_t count) : count_(count != 0 ? count : std::max(1u, std::thread::hardware_concurrency())) {}

Threads::~Threads() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Threads::For(uint32_t size, uint32_t grain, const Body& body) {
  const uint32_t share = (size + count_ - 1) / count_;
  const uint32_t piece = std::max(grain, (share + grain - 1) / grain * grain);
  if (piece >= size) return body(0, size);
  while (workers_.size() + 1 < count_) workers_.emplace_back(&Threads::Work, this);  // with the first work to share
  const uint32_t pieces = (size + piece - 1) / piece;
  body_ = &body;
  size_ = size;
  piece_ = piece;
  unfinished_ = pieces;
  offer_ = ((offer_ >> 32) + 1) << 32 | pieces;
  if (sleepers_ != 0) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
    }  // whoever is about to sleep has looked, or will
    wake_.notify_all();
  }
  TakePieces();
  for (int spin = 0; unfinished_ != 0; ++spin) spin < kSpins ? Relax() : std::this_thread::yield();
}

bool Threads::TakePieces() {
  bool any = false;
  for (uint64_t offer = offer_; (offer & kPieces) != 0;) {
    if (!offer_.compare_exchange_weak(offer, offer - 1)) continue;
    any = true;
    const uint32_t first = static_cast<uint32_t>((offer & kPieces) - 1) * piece_;
    (*body_.load())(first, std::min<uint32_t>(size_, first + piece_));
    --unfinished_;
    offer = offer_;
  }
  return any;
}

void Threads::Work() {
  while (!stop_) {
    bool found = false;
    for (int spin = 0; !found && spin < kSpins; ++spin) {
      found = TakePieces();
      if (!found) Relax();
    }
    if (found) continue;
    std::unique_lock<std::mutex> lock(mutex_);
    ++sleepers_;
    wake_.wait(lock, [this] { return stop_ || (offer_ & kPieces) != 0; });
    --sleepers_;
  }
}

}  // namespace fsim
}  // namespace ahcq
