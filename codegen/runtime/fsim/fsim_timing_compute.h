/*!
 * \file fsim_timing_compute.h
 * \brief Timing of GEMM and VECTOR: ahcq_gemm.sv, ahcq_acc.sv, ahcq_vector_seq.sv, ahcq_lanes.sv.
 */
#ifndef AHCQ_FSIM_TIMING_COMPUTE_H_
#define AHCQ_FSIM_TIMING_COMPUTE_H_

#include <cstdint>

#include "../device/instruction.h"
#include "fsim_timing_dma.h"

namespace ahcq {
namespace fsim {

/*! \brief Progress of GEMMs: one has its weights read while another's rows are fed. */
struct GemmUnit {
  explicit GemmUnit(const isa::Config& config) : dim_(config.dim), half_(config.acc_depth / 2) {}

  bool StartReady() const { return state_ == State::kIdle && !next_valid_; }
  bool GiveValid(uint64_t now) { return !complete_.empty() && complete_.front().at <= now; }
  uint32_t Mask() { return complete_.front().push; }
  bool Busy() const { return state_ != State::kIdle || next_valid_ || feed_valid_ || !complete_.empty(); }
  /*! \brief Whether rows on their way through the accumulators belong to the half of this word. */
  bool InUse(uint32_t word) const { return in_use_[word / half_ % 2] != 0; }
  /*! \brief What moves before units look at each other: rows enter and leave the accumulators. */
  void Move(uint64_t now);
  /*! \brief The clock edge; `started`: an instruction that begins in this cycle, or null. */
  void Clock(uint64_t now, const Instruction* started, bool given);

 private:
  enum class State { kIdle, kZero, kTile };
  static constexpr uint32_t kGives = 4, kHistory = 256;
  struct Feed {
    uint32_t rows, steps, blocks, acc, acc_block, push;
  };
  struct Complete {
    uint64_t at;
    uint32_t push;
  };
  void ClockLoader(bool full);
  void ClockFeeder(uint64_t now);

  const uint32_t dim_, half_;
  State state_ = State::kIdle;
  uint32_t steps_ = 0, blocks_ = 0, step_ = 0, block_ = 0, word_ = 0;
  bool filling_ = false, shadow_full_ = false;  // the first word of a tile is read; the tile can be used
  bool feed_valid_ = false, next_valid_ = false;
  Feed feed_ = {}, next_ = {};
  uint32_t row_ = 0, feed_step_ = 0, feed_block_ = 0;
  Ring<Complete, 8> complete_;
  uint8_t history_[kHistory] = {};  // of each cycle: half that a row was fed for, plus 1
  uint32_t in_use_[2] = {};
};

/*! \brief Progress of an instruction of the vector unit, slot by slot. */
struct VectorUnit {
  explicit VectorUnit(const isa::Config& config) : subs_(config.dim / config.lanes) {
    // the greatest of a row goes through a tree with a register a level
    uint32_t greatest = kNumberStage;
    for (uint32_t lanes = 1; lanes < config.lanes; lanes *= 2) ++greatest;
    stages_ = greatest > kCodeStage ? greatest : kCodeStage;
  }

  bool StartReady() const { return state_ == State::kIdle; }
  bool GiveValid() const { return state_ == State::kGive; }
  bool Busy() const { return state_ != State::kIdle; }
  uint32_t push = 0;
  /*! \brief What a slot of this cycle would read from the accumulators; false if nothing. */
  bool WantsAcc() const { return state_ == State::kData && uses_acc_; }
  uint32_t AccWord() const { return acc_ + row_; }
  /*! \brief Whether a slot is issued in this cycle, and whether that of the last cycle reads `vec`. */
  bool Issues(bool acc_ready) const;
  bool ReadsVec() const { return reads_vec_; }
  /*! \brief Results that reach `vec` or `act` in this cycle. */
  bool WritesVec() const { return numbers_ >> kNumberStage & 1; }
  bool WritesAct() const { return codes_ >> kCodeStage & 1; }
  void Clock(const Instruction* started, bool issues, bool given);

 private:
  enum class State { kIdle, kMult, kBias, kRelH, kData, kDrain, kGive };
  static constexpr uint32_t kNumberStage = 15, kCodeStage = kNumberStage + 6;
  void Start(const Instruction& f);
  void Advance();

  const uint32_t subs_;
  uint32_t stages_;  // the last one
  State state_ = State::kIdle;
  isa::Opcode op_ = isa::Opcode::kFinish;
  bool reads_vec_ = false;
  bool uses_acc_ = false, row_addend_ = false, bias_ = false, rel_ = false, to_vec_ = false, to_act_ = false;
  uint32_t rows_ = 0, blocks_ = 0, row_ = 0, block_ = 0, sub_ = 0, acc_ = 0, acc_first_ = 0, acc_block_ = 0;
  uint32_t numbers_ = 0, codes_ = 0, valid_ = 0;  // slots by stage: bit i, issued i cycles ago
};

}  // namespace fsim
}  // namespace ahcq

#endif  // AHCQ_FSIM_TIMING_COMPUTE_H_
