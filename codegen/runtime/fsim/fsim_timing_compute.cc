/*!
 * \file fsim_timing_compute.cc
 * \brief Clock edges of the array's sequencer and of the vector unit's.
 */
#include "fsim_timing_compute.h"

namespace ahcq {
namespace fsim {

void GemmUnit::Move(uint64_t now) {
  // a row is in the columns of the accumulators from Dim + 3 to 2 Dim + 2 cycles after it was fed
  const uint8_t enters = history_[(now - dim_ - 3) % kHistory], leaves = history_[(now - 2 * dim_ - 3) % kHistory];
  if (enters != 0) ++in_use_[enters - 1];
  if (leaves != 0) --in_use_[leaves - 1];
}

void GemmUnit::ClockLoader(bool full) {
  switch (state_) {
    case State::kIdle:
      return;
    case State::kZero:
      step_ = word_ = 0;
      state_ = State::kTile;
      return;
    case State::kTile:
      if (word_ == 0 && full) return;
      if (word_ == 0) filling_ = true;
      if (++word_ != dim_) return;
      word_ = 0;
      if (++step_ != steps_) return;
      state_ = ++block_ == blocks_ ? State::kIdle : State::kZero;
  }
}

void GemmUnit::ClockFeeder(uint64_t now) {
  uint8_t& history = history_[now % kHistory];
  history = 0;
  if (!feed_valid_) {
    feed_ = next_;
    feed_valid_ = next_valid_;
    next_valid_ = false;
    return;
  }
  if (row_ == 0 && !(shadow_full_ && complete_.size() != kGives)) return;
  if (row_ == 0) shadow_full_ = false;
  history = static_cast<uint8_t>(1 + (feed_.acc + feed_block_ * feed_.acc_block + row_) / half_ % 2);
  if (++row_ != feed_.rows) return;
  row_ = 0;
  if (++feed_step_ != feed_.steps) return;
  feed_step_ = 0;
  if (++feed_block_ != feed_.blocks) return;
  feed_block_ = 0;
  complete_.push({now + 2 * dim_ + 6, feed_.push});
  feed_valid_ = false;
}

void GemmUnit::Clock(uint64_t now, const Instruction* started, bool given) {
  const bool full = shadow_full_, filled = filling_;  // both sequencers look at these before the edge
  filling_ = false;
  ClockFeeder(now);
  ClockLoader(full);
  if (filled) shadow_full_ = true;
  if (given) complete_.pop();
  if (started == nullptr) return;
  const Instruction& f = *started;
  steps_ = f[isa::gemm::kSteps];
  blocks_ = f[isa::gemm::kBlocks];
  block_ = 0;
  state_ = State::kZero;
  next_ = {f[isa::gemm::kRows], steps_, blocks_, f[isa::gemm::kAcc], f[isa::gemm::kAccBlock], f.push()};
  next_valid_ = true;
}

void VectorUnit::Start(const Instruction& f) {
  op_ = f.opcode();
  push = f.push();
  const bool scale = op_ == isa::Opcode::kScale, logit = op_ == isa::Opcode::kLogit;
  uses_acc_ = scale || logit;
  rows_ = scale ? f[isa::scale::kRows] : f[isa::logit::kRows];
  blocks_ = scale ? f[isa::scale::kBlocks] : f[isa::logit::kBlocks];
  acc_ = acc_first_ = scale ? f[isa::scale::kAcc] : f[isa::logit::kAcc];
  acc_block_ = scale ? f[isa::scale::kAccBlock] : f[isa::logit::kAccBlock];
  rel_ = logit && f[isa::logit::kRel];
  bias_ = scale && f[isa::scale::kAddMode] == 1;
  row_addend_ = rel_ || (scale && f[isa::scale::kAddMode] == 2);
  const uint32_t memory = f[isa::scale::kMemory];
  to_vec_ = scale && memory == static_cast<uint32_t>(isa::Memory::kVec);
  to_act_ = op_ == isa::Opcode::kProb || (scale && memory == static_cast<uint32_t>(isa::Memory::kAct));
  row_ = block_ = sub_ = 0;
  state_ = scale ? State::kMult : rel_ ? State::kRelH : State::kData;
}

bool VectorUnit::Issues(bool acc_ready) const {
  switch (state_) {
    case State::kMult:
    case State::kBias:
    case State::kRelH:
      return true;
    case State::kData:
      return !uses_acc_ || acc_ready;
    default:
      return false;
  }
}

void VectorUnit::Advance() {
  if (op_ == isa::Opcode::kScale) {
    if (++row_ != rows_) return;
    row_ = 0;
    state_ = State::kMult;
    if (++sub_ != subs_) return;
    sub_ = 0;
    acc_ += acc_block_;
    if (++block_ == blocks_) state_ = State::kDrain;
    return;
  }
  if (++sub_ != subs_) return;
  sub_ = 0;
  acc_ += acc_block_;
  if (++block_ != blocks_) return;
  block_ = 0;
  acc_ = acc_first_;
  if (++row_ == rows_) {
    state_ = State::kDrain;
  } else if (rel_) {
    state_ = State::kRelH;
  }
}

void VectorUnit::Clock(const Instruction* started, bool issues, bool given) {
  const bool lanes_busy = (valid_ >> 1) != 0;
  const bool data = issues && state_ == State::kData;
  reads_vec_ = issues && (state_ != State::kData || row_addend_);
  valid_ = ((valid_ << 1) | static_cast<uint32_t>(issues) << 1) & ((1u << (stages_ + 1)) - 1);
  numbers_ = (numbers_ << 1) | static_cast<uint32_t>(data && to_vec_) << 1;
  codes_ = (codes_ << 1) | static_cast<uint32_t>(data && to_act_) << 1;
  switch (state_) {
    case State::kIdle:
      if (started != nullptr) Start(*started);
      return;
    case State::kMult:
      state_ = bias_ ? State::kBias : State::kData;
      return;
    case State::kBias:
    case State::kRelH:
      state_ = State::kData;
      return;
    case State::kData:
      if (data) Advance();
      return;
    case State::kDrain:
      if (!lanes_busy) state_ = State::kGive;
      return;
    case State::kGive:
      if (given) state_ = State::kIdle;
  }
}

}  // namespace fsim
}  // namespace ahcq
