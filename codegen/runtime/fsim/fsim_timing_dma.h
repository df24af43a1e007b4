/*!
 * \file fsim_timing_dma.h
 * \brief Timing of external memory, LOAD and STORE: ahcq_bursts.sv, ahcq_load.sv, ahcq_store.sv, axi_memory.cc.
 */
#ifndef AHCQ_FSIM_TIMING_DMA_H_
#define AHCQ_FSIM_TIMING_DMA_H_

#include <cstdint>

#include "../device/instruction.h"

namespace ahcq {
namespace fsim {

/*! \brief First in, first out, of a fixed size; the caller keeps to it. */
template <typename T, uint32_t kSize>
class Ring {
 public:
  bool empty() const { return level_ == 0; }
  uint32_t size() const { return level_; }
  T& front() { return items_[head_]; }
  void push(T item) { items_[(head_ + level_++) % kSize] = item; }
  void pop() {
    head_ = (head_ + 1) % kSize;
    --level_;
  }

 private:
  T items_[kSize] = {};
  uint32_t head_ = 0, level_ = 0;
};

/*! \brief The rows of a DMA as bursts of at most 16 beats of so many chunks that stay within 4 KiB. */
struct Bursts {
  bool active = false, ready = false;
  bool starting = false;  // the first cycle: fields are looked at
  uint32_t beats = 0;     // of the burst that is offered

  void Start(const Instruction& f, uint32_t bus_chunks);
  /*! \brief One cycle; `stop`: offer nothing new; `taken`: the offer of this cycle was accepted. */
  void Clock(bool stop, bool taken);

 private:
  void NextRow();
  uint64_t row_ = 0, at_ = 0;
  uint32_t stride_ = 0, rows_ = 0, length_ = 0, left_ = 0, beat_bytes_ = 8;
};

/*! \brief The read side of the memory: bursts of LOAD and of the fetcher. */
struct ReadPort {
  struct Burst {
    uint64_t due;
    uint32_t beats;
  };
  static constexpr int kLoad = 0, kFetch = 1;
  Ring<Burst, 256> bursts[2];
  int current = -1;    // whose burst is being answered
  bool valid = false;  // a beat is offered
  uint64_t free = 0;   // first cycle with bandwidth for a beat

  void Drive(uint64_t now, uint32_t beat_cycles);
  /*! \brief The offered beat was taken; true if it was the last of its burst. */
  bool Take();
};

/*! \brief Progress of a LOAD. */
struct LoadUnit {
  bool active = false, done = false;
  uint32_t push = 0, memory = 0;
  Bursts bursts;

  void Start(const Instruction& f, uint32_t dim, uint32_t bus_chunks);
  /*! \brief Offers of this cycle: whether the beat at the port can be taken, and whether a chunk is complete. */
  struct Beat {
    bool ready, fill, step, last, written;  // last of the beat; written: one that waited
  };
  bool Busy() const { return active || held_ != 0 || done; }
  Beat Look(bool valid, bool writable) const;
  void Clock(const Beat& beat, bool valid, bool given);
  uint32_t flying = 0;

 private:
  bool LastSub() const { return sub_ + 1 == subs_ || (table_ && chunk_ + 1 == length_); }
  // a step is a chunk of a table, a word of a narrow array, or a beat
  uint32_t rows_ = 0, length_ = 0, chunk_ = 0, sub_ = 0, subs_ = 1, offset_ = 0, shift_ = 0, beat_bytes_ = 8;
  bool table_ = false, primed_ = false;
  static constexpr uint32_t kWrites = 2;
  uint32_t held_ = 0;  // chunks, or parts of one, that wait for the scratchpad
};

/*! \brief Progress of a STORE, and the write side of the memory. */
struct StoreUnit {
  bool active = false, done = false;
  uint32_t push = 0;

  void Start(const Instruction& f, uint32_t dim, uint32_t lanes, uint32_t bus_chunks);
  bool ReadsVec() const { return Wants() && vec_; }
  /*! \brief One cycle. */
  void Clock(uint64_t now, bool vec_free, uint32_t latency, uint32_t beat_cycles, bool given);

 private:
  bool Wants() const { return reads_ != 0 && !arriving_ && !next_; }
  void ClockReader(bool vec_free, bool fifo_ready);
  bool arriving_ = false, next_ = false, vec_ = false, sending_ = false;
  uint64_t reads_ = 0;                                  // left
  uint32_t held_ = 0, parts_ = 1, sub_ = 0, subs_ = 1;  // held: beats that are left of what was read
  uint32_t fifo_ = 0, beats_ = 0, flying_ = 0, wanted_ = 0;
  uint64_t free_ = 0;
  Bursts bursts_;
  Ring<uint64_t, 256> answers_;  // when each is due
};

}  // namespace fsim
}  // namespace ahcq

#endif  // AHCQ_FSIM_TIMING_DMA_H_
