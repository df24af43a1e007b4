/*!
 * \file fsim_threads.h
 * \brief Threads that share the rows of one instruction. A thread without work spins for a moment, then sleeps.
 */
#ifndef AHCQ_FSIM_THREADS_H_
#define AHCQ_FSIM_THREADS_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace ahcq {
namespace fsim {

class Threads {
 public:
  /*! \param count threads in all, the calling one included; 0: as many as there are processors. */
  explicit Threads(uint32_t count);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  uint32_t count() const { return static_cast<uint32_t>(workers_.size()) + 1; }
  /*! \brief Calls body(first, end) for `count()` or fewer stretches that cover 0 .. size - 1, multiples of `grain`. */
  void For(uint32_t size, uint32_t grain, const std::function<void(uint32_t, uint32_t)>& body);

 private:
  void Work(uint32_t number);
  void Stretch(uint32_t number);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> round_{0};
  std::atomic<uint32_t> left_{0};
  std::atomic<bool> stop_{false};
  const std::function<void(uint32_t, uint32_t)>* body_ = nullptr;
  uint32_t size_ = 0, stretch_ = 0;
};

}  // namespace fsim
}  // namespace ahcq

#endif  // AHCQ_FSIM_THREADS_H_
