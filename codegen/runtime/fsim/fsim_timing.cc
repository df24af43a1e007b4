/*!
 * \file fsim_timing.cc
 * \brief The clock of the estimate: fetch, check, queues, tokens, and what the units see of each other in a cycle.
 */
#include "fsim_timing.h"

#include "fsim_timing_compute.h"
#include "fsim_timing_dma.h"

namespace ahcq {
namespace fsim {
namespace {

constexpr int kLoad = 0, kGemm = 1, kVector = 2, kStore = 3;
constexpr uint32_t kAhead = 8, kTokensMax = (1 << isa::kTokenBits) - 1, kInstructionChunks = 4;
constexpr uint32_t kFieldsCycles = 1, kCheckCycles = 6;  // a range takes six stages, one begins in each cycle
constexpr uint64_t kStopInterval = 4096;

/*! \brief ahcq_fetch.sv and ahcq_check.sv: instructions on their way to the queues. */
struct FrontEnd {
  uint32_t left, owed = 0;  // instructions not yet asked for; asked for and not yet dispatched
  uint32_t beats = 0;       // of the instruction that is arriving
  uint32_t arrived = 0;     // instructions that wait for the check
  size_t next = 0;          // instruction that is checked
  uint32_t wait = 0;        // cycles until it is dispatched
  bool checking = false, drain = false;
  bool room = false;                  // in the queue of the instruction that is checked, a cycle ago
  bool asking = false, more = false;  // an address is offered; instructions are left to ask for
};

class Clock {
 public:
  Clock(const Program& program, const isa::Config& config, const Timing& timing)
      : instructions_(program.instructions),
        dim_(config.dim),
        lanes_(config.lanes),
        bus_chunks_(config.bus_chunks),
        fetch_beats_(kInstructionChunks / config.bus_chunks),
        latency_(timing.latency),
        beat_cycles_(timing.bytes_per_cycle ? isa::kChunkBytes * config.bus_chunks / timing.bytes_per_cycle : 1),
        patience_(16384 + 2 * uint64_t{timing.latency}),
        gemm_(config),
        vector_(config) {
    front_.left = static_cast<uint32_t>(instructions_.size()) + 1;  // FINISH, or the instruction with the fault
  }

  Estimate Run(const std::atomic<bool>& stop) {
    while (!Cycle() && now_ - progress_ < patience_) {
      if (now_ % kStopInterval == 0 && stop) break;
    }
    estimate_.cycles = static_cast<uint32_t>(now_);
    return estimate_;
  }

 private:
  bool Cycle();
  void LookAtUnits();
  bool ClockFrontEnd();
  void ClockRequests(bool asks);
  void ClockTokens();
  bool Drained() const;

  const std::vector<Instruction>& instructions_;
  const uint32_t dim_, lanes_, bus_chunks_, fetch_beats_, latency_, beat_cycles_;
  const uint64_t patience_;
  uint64_t now_ = 0, progress_ = 0;
  FrontEnd front_;
  Ring<const Instruction*, 8> queue_[kUnits];
  uint32_t tokens_[kUnits][kUnits] = {};  // [giver][taker]
  uint32_t present_[kUnits] = {};         // of each taker: givers with a token for it
  uint32_t full_[kUnits] = {};            // of each giver: takers with no room for another
  ReadPort read_;
  bool request_ = false;  // an address is at the bus
  int request_id_ = 0;
  uint32_t request_beats_ = 0;
  LoadUnit load_;
  GemmUnit gemm_;
  VectorUnit vector_;
  StoreUnit store_;
  const Instruction* start_[kUnits] = {};  // what begins in this cycle
  bool starting_[kUnits] = {};             // decided in the last cycle
  bool given_[kUnits] = {};
  uint32_t mask_[kUnits] = {};
  bool any_ = false;  // anything begins or gives
  Estimate estimate_ = {};
};

void Clock::LookAtUnits() {
  const bool ready[kUnits] = {!load_.Busy(), gemm_.StartReady(), vector_.StartReady(), !store_.active && !store_.done};
  const bool busy[kUnits] = {!ready[kLoad], gemm_.Busy(), vector_.Busy(), !ready[kStore]};
  const bool gives[kUnits] = {load_.done, gemm_.GiveValid(now_), vector_.GiveValid(), store_.done};
  if (gives[kLoad]) mask_[kLoad] = load_.push;
  if (gives[kGemm]) mask_[kGemm] = gemm_.Mask();
  if (gives[kVector]) mask_[kVector] = vector_.push;
  if (gives[kStore]) mask_[kStore] = store_.push;
  any_ = false;
  for (int unit = 0; unit < kUnits; ++unit) {
    estimate_.busy[unit] += busy[unit];
    start_[unit] = starting_[unit] ? queue_[unit].front() : nullptr;
    starting_[unit] = false;
    if (start_[unit] == nullptr && ready[unit] && !queue_[unit].empty()) {
      starting_[unit] = (queue_[unit].front()->pop() & ~present_[unit]) == 0;
      ++estimate_.stall[unit];
    }
    given_[unit] = gives[unit] && (mask_[unit] & full_[unit]) == 0;
    any_ = any_ || given_[unit] || start_[unit] != nullptr;
  }
}

void Clock::ClockTokens() {
  if (!any_) return;
  progress_ = now_;
  for (int unit = 0; unit < kUnits; ++unit) {
    for (int other = 0; other < kUnits; ++other) {
      tokens_[unit][other] += given_[unit] ? mask_[unit] >> other & 1 : 0;
      tokens_[other][unit] -= start_[unit] != nullptr ? start_[unit]->pop() >> other & 1 : 0;
    }
    if (start_[unit] != nullptr) queue_[unit].pop();
  }
  for (int giver = 0; giver < kUnits; ++giver) {
    for (int taker = 0; taker < kUnits; ++taker) {
      const uint32_t count = tokens_[giver][taker], bit = 1u << giver, other = 1u << taker;
      present_[taker] = count != 0 ? present_[taker] | bit : present_[taker] & ~bit;
      full_[giver] = count == kTokensMax ? full_[giver] | other : full_[giver] & ~other;
    }
  }
}

bool Clock::Drained() const {
  for (const auto& queue : queue_) {
    if (!queue.empty()) return false;
  }
  return !load_.Busy() && !gemm_.Busy() && !vector_.Busy() && !store_.active && !store_.done;
}

bool Clock::ClockFrontEnd() {
  if (front_.drain) return Drained();
  if (!front_.checking) {
    if (front_.arrived == 0) return false;
    front_.checking = true;
    front_.wait = kFieldsCycles;
    if (front_.next < instructions_.size()) {
      front_.wait += kCheckCycles + static_cast<uint32_t>(FindEntry(instructions_[front_.next].opcode())->ranges);
    }
    return false;
  }
  const bool room = front_.room;
  if (front_.next < instructions_.size()) {
    front_.room = queue_[FindEntry(instructions_[front_.next].opcode())->unit].size() != isa::kQueueDepth;
  }
  if (front_.wait > 0) {
    progress_ = now_;
    front_.drain = --front_.wait == 0 && front_.next == instructions_.size();
    return false;
  }
  const Instruction& instruction = instructions_[front_.next];
  auto& queue = queue_[FindEntry(instruction.opcode())->unit];
  if (!room) return false;
  progress_ = now_;
  queue.push(&instruction);
  ++front_.next;
  --front_.arrived;
  --front_.owed;
  front_.checking = false;
  return false;
}

void Clock::ClockRequests(bool asks) {
  if (request_) read_.bursts[request_id_].push({now_ + latency_, request_beats_});
  request_ = asks || load_.bursts.ready;
  request_id_ = asks ? ReadPort::kFetch : ReadPort::kLoad;
  request_beats_ = asks ? fetch_beats_ : load_.bursts.beats;
  front_.more = front_.left != static_cast<uint32_t>(asks);
  if (asks) {
    --front_.left;
    ++front_.owed;
  }
}

bool Clock::Cycle() {
  gemm_.Move(now_);
  read_.Drive(now_, beat_cycles_);
  LookAtUnits();
  const bool issues = vector_.Issues(!vector_.WantsAcc() || !gemm_.InUse(vector_.AccWord()));
  const bool vec_free = !vector_.ReadsVec();
  const bool writable = !(load_.memory == static_cast<uint32_t>(isa::Memory::kAct) && vector_.WritesAct()) &&
                        !(load_.memory == static_cast<uint32_t>(isa::Memory::kVec) && vector_.WritesVec());
  const bool loads = read_.valid && read_.current == ReadPort::kLoad;
  const bool fetches = read_.valid && read_.current == ReadPort::kFetch;
  const LoadUnit::Beat beat = load_.Look(loads, writable);
  const bool asks = front_.asking, taken = load_.bursts.ready && !asks;
  front_.asking = !asks && front_.more && front_.owed != kAhead;
  if (loads || fetches || issues) progress_ = now_;

  // the edge
  const bool done = ClockFrontEnd();
  ClockRequests(asks);
  if (load_.bursts.active) load_.bursts.Clock(load_.flying >= 128, taken);
  load_.flying += taken;
  if (load_.Busy()) load_.Clock(beat, loads, given_[kLoad]);
  if (loads && beat.ready && read_.Take()) --load_.flying;
  if (fetches) {
    read_.Take();
    if (++front_.beats == fetch_beats_) {
      front_.beats = 0;
      ++front_.arrived;
    }
  }
  gemm_.Clock(now_, start_[kGemm], given_[kGemm]);
  vector_.Clock(start_[kVector], issues, given_[kVector]);
  if (store_.active || store_.done) store_.Clock(now_, vec_free, latency_, beat_cycles_, given_[kStore]);
  if (start_[kLoad] != nullptr) load_.Start(*start_[kLoad], dim_, bus_chunks_);
  if (start_[kStore] != nullptr) store_.Start(*start_[kStore], dim_, lanes_, bus_chunks_);
  ClockTokens();
  ++now_;
  return done;
}

}  // namespace

Estimate EstimateCycles(const Program& program, const isa::Config& config, const Timing& timing,
                        const std::atomic<bool>& stop) {
  return Clock(program, config, timing).Run(stop);
}

}  // namespace fsim
}  // namespace ahcq
