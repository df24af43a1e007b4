/*!
 * \file fsim_timing_dma.cc
 * \brief Clock edges of the units that talk to external memory.
 */
#include "fsim_timing_dma.h"

#include <algorithm>

namespace ahcq {
namespace fsim {
namespace {

constexpr uint32_t kBurstBeats = 16, kPageBytes = 4096, kFifo = 16, kMaxFlying = 128, kMaxWrites = 4;

bool IsCode(uint32_t memory) {
  return memory == static_cast<uint32_t>(isa::Memory::kAct) || memory == static_cast<uint32_t>(isa::Memory::kWgt);
}

bool IsTable(uint32_t memory) {
  return memory == static_cast<uint32_t>(isa::Memory::kDecode) || memory == static_cast<uint32_t>(isa::Memory::kEncode);
}

}  // namespace

void Bursts::Start(const Instruction& f, uint32_t bus_chunks) {
  beat_bytes_ = isa::kChunkBytes * bus_chunks;
  row_ = f[isa::load::kAddress];
  stride_ = f[isa::load::kStride];
  rows_ = f[isa::load::kRows];
  length_ = (f[isa::load::kLength] + bus_chunks - 1) / bus_chunks;
  active = starting = true;
  ready = false;
  NextRow();
}

void Bursts::NextRow() {
  at_ = row_;
  left_ = length_ + (row_ % beat_bytes_ != 0);
}

void Bursts::Clock(bool stop, bool taken) {
  if (!active) return;
  if (starting) {
    starting = false;
    return;
  }
  if (!ready) {
    beats =
        std::min({left_, kBurstBeats, (kPageBytes - static_cast<uint32_t>(at_ % kPageBytes) - 1) / beat_bytes_ + 1});
    ready = !stop;
  } else if (taken) {
    ready = false;
    if (left_ != beats) {
      left_ -= beats;
      at_ = (at_ / beat_bytes_ + beats) * beat_bytes_;
    } else if (--rows_ == 0) {
      active = false;
    } else {
      row_ += stride_;
      NextRow();
    }
  }
}

void ReadPort::Drive(uint64_t now, uint32_t beat_cycles) {
  if (valid) return;
  for (int id = 0; id < 2 && current < 0; ++id) {
    if (!bursts[id].empty() && bursts[id].front().due <= now) current = id;
  }
  if (current < 0 || free > now) return;
  free = now + beat_cycles;
  valid = true;
}

bool ReadPort::Take() {
  valid = false;
  if (--bursts[current].front().beats != 0) return false;
  bursts[current].pop();
  current = -1;
  return true;
}

void LoadUnit::Start(const Instruction& f, uint32_t dim, uint32_t bus_chunks) {
  active = true;
  push = f.push();
  memory = f[isa::load::kMemory];
  rows_ = f[isa::load::kRows];
  table_ = bus_chunks > 1 && IsTable(memory);
  length_ = table_ ? f[isa::load::kLength] : f[isa::load::kLength] / bus_chunks;
  chunk_ = sub_ = 0;
  subs_ = table_ ? bus_chunks : IsCode(memory) && dim < 16 ? 16 / dim : 1;
  beat_bytes_ = isa::kChunkBytes * bus_chunks;
  offset_ = f[isa::load::kAddress] % beat_bytes_;
  shift_ = f[isa::load::kStride] % beat_bytes_;
  primed_ = false;
  bursts.Start(f, bus_chunks);
}

LoadUnit::Beat LoadUnit::Look(bool valid, bool writable) const {
  const bool fill = offset_ != 0 && !primed_;
  const bool last = LastSub();
  const bool free = held_ != kWrites;
  return {active ? fill || (free && last) : true, fill, active && valid && !fill && free, last, held_ != 0 && writable};
}

void LoadUnit::Clock(const Beat& beat, bool valid, bool given) {
  const bool chunk = beat.step && (table_ || beat.last);
  if (given) done = false;
  if (beat.written && --held_ == 0 && !active) done = true;
  if (valid && beat.ready && beat.fill) primed_ = true;
  held_ += beat.step;
  if (beat.step) sub_ = beat.last ? 0 : sub_ + 1;
  if (!chunk || ++chunk_ != length_) return;
  chunk_ = 0;
  primed_ = false;
  offset_ = (offset_ + shift_) % beat_bytes_;
  if (--rows_ == 0) {
    active = false;
  }
}

void StoreUnit::Start(const Instruction& f, uint32_t dim, uint32_t lanes, uint32_t bus_chunks) {
  active = true;
  push = f.push();
  vec_ = f[isa::store::kMemory] == static_cast<uint32_t>(isa::Memory::kVec);
  parts_ = (vec_ ? lanes / 2 : std::max(1u, dim / 16)) / bus_chunks;
  subs_ = vec_ || dim >= 16 ? 1 : 16 / dim;
  reads_ = uint64_t{f[isa::store::kRows]} * (f[isa::store::kLength] / bus_chunks / parts_ * subs_);
  sub_ = 0;
  bursts_.Start(f, bus_chunks);
}

void StoreUnit::ClockReader(bool vec_free, bool fifo_ready) {
  const bool read = Wants() && (!vec_ || vec_free), send = held_ != 0 && fifo_ready;
  const bool moved = next_ && (held_ == 0 || (send && held_ == 1));
  fifo_ += send;
  held_ = moved ? parts_ : held_ - send;
  next_ = next_ && !moved;
  if (arriving_) {
    next_ = ++sub_ == subs_;
    sub_ = next_ ? 0 : sub_;
  }
  arriving_ = read;
  reads_ -= read;
}

void StoreUnit::Clock(uint64_t now, bool vec_free, uint32_t latency, uint32_t beat_cycles, bool given) {
  // what the bus sees in this cycle
  const bool offered = bursts_.ready && wanted_ < kMaxWrites, fifo_ready = fifo_ != kFifo;
  const bool sent = sending_ && fifo_ != 0 && wanted_ != 0 && free_ <= now;
  const bool answered = !answers_.empty() && answers_.front() <= now;
  const bool idle = active && !bursts_.active && !sending_ && flying_ == 0;
  const uint32_t beats = bursts_.beats;
  bursts_.Clock(sending_ || flying_ >= kMaxFlying, offered);
  ClockReader(vec_free, fifo_ready);
  if (given) done = false;
  if (idle) {
    active = false;
    done = true;
  }
  if (sent) {
    --fifo_;
    free_ = now + beat_cycles;
    if (--beats_ == 0) {
      sending_ = false;
      --wanted_;
      answers_.push(now + latency);
    }
  }
  if (answered) {
    answers_.pop();
    --flying_;
  }
  if (offered) {
    sending_ = true;
    beats_ = beats;
    ++wanted_;
    ++flying_;
  }
}

}  // namespace fsim
}  // namespace ahcq
