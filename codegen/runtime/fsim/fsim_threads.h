/*!
 * \file fsim_threads.h
 * \brief Threads that share the rows of one instruction.
 *
 * A round of work is cut into pieces that whoever is free takes; the caller takes pieces too and waits only for those
 * that others hold, so that a thread that the system keeps waiting holds nobody up.
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
  using Body = std::function<void(uint32_t, uint32_t)>;

  /*! \param count threads in all, the calling one included; 0: as many as there are processors. */
  explicit Threads(uint32_t count);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  /*! \brief Calls body(first, end) for pieces that cover 0 .. size - 1, each a multiple of `grain` but for the last. */
  void For(uint32_t size, uint32_t grain, const Body& body);

 private:
  void Work();
  /*! \brief Does pieces while there are any; false if there was none. */
  bool TakePieces();

  const uint32_t count_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<bool> stop_{false};
  std::atomic<uint32_t> sleepers_{0};
  // Round in the upper half, pieces not yet taken in the lower: one word, so that a late thread cannot take a piece of
  // a round that it has not seen. What follows changes only while no piece of the round before is held.
  std::atomic<uint64_t> offer_{0};
  std::atomic<uint32_t> unfinished_{0};
  std::atomic<const Body*> body_{nullptr};
  std::atomic<uint32_t> size_{0}, piece_{0};
};

}  // namespace fsim
}  // namespace ahcq

#endif  // AHCQ_FSIM_THREADS_H_
