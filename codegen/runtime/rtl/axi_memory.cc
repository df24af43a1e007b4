/*!
 * \file axi_memory.cc
 * \brief A cycle of the memory: drive, then clock. An offer, once made, stays until it is taken.
 */
#include "axi_memory.h"

#include <cstring>

namespace ahcq {
namespace {

constexpr uint8_t kOkay = 0, kSlaveError = 2;

}  // namespace

bool AxiMemory::Faulty(uint64_t address) const {
  return address + beat_ > bytes_.size() || (address < fault_end_ && address + beat_ > fault_first_);
}

void AxiMemory::DriveRead() {
  if (out_.r_valid) return;
  if (current_ < 0) {
    // different ids may overtake each other; the order within one is kept
    int first = Stall() ? 1 : 0;
    for (int id : {first, 1 - first}) {
      if (current_ < 0 && !reads_[id].empty() && reads_[id].front().due <= now_) current_ = id;
    }
  }
  if (current_ < 0 || read_free_ > now_ || Stall()) return;
  const Burst& burst = reads_[current_].front();
  read_free_ = now_ + beat_cycles_;
  out_.r_valid = true;
  out_.r_id = static_cast<uint8_t>(current_);
  out_.r_last = burst.beats == 1;
  out_.r_resp = Faulty(burst.address) ? kSlaveError : kOkay;
  out_.r_data = {};
  if (out_.r_resp == kOkay) std::memcpy(out_.r_data.data(), bytes_.data() + burst.address, beat_);
}

const AxiToDevice& AxiMemory::Drive() {
  DriveRead();
  out_.ar_ready = !Stall();
  out_.aw_ready = writes_.size() < 4 && !Stall();
  out_.w_ready = !writes_.empty() && write_free_ <= now_ && !Stall();
  if (!out_.b_valid && !answers_.empty() && answers_.front().first <= now_ && !Stall()) {
    out_.b_valid = true;
    out_.b_resp = answers_.front().second;
  }
  return out_;
}

void AxiMemory::Clock(const AxiFromDevice& from) {
  if (from.ar_valid && out_.ar_ready) {
    reads_[from.ar_id & 1].push_back({from.ar_address, from.ar_len + 1u, now_ + timing_.latency});
  }
  if (out_.r_valid && from.r_ready) {
    out_.r_valid = false;
    Burst& burst = reads_[current_].front();
    burst.address += beat_;
    if (--burst.beats == 0) {
      reads_[current_].pop_front();
      current_ = -1;
    }
  }
  if (from.aw_valid && out_.aw_ready) writes_.push_back({from.aw_address, from.aw_len + 1u, 0});
  if (from.w_valid && out_.w_ready) {
    Burst& burst = writes_.front();
    write_free_ = now_ + beat_cycles_;
    if (Faulty(burst.address)) {
      write_resp_ = kSlaveError;
    } else {
      for (size_t i = 0; i < beat_; ++i) {
        if (from.w_strobe >> i & 1) bytes_[burst.address + i] = from.w_data[i];
      }
    }
    burst.address += beat_;
    if (--burst.beats == 0) {
      answers_.push_back({now_ + timing_.latency, write_resp_});
      write_resp_ = kOkay;
      writes_.pop_front();
    }
  }
  if (out_.b_valid && from.b_ready) {
    out_.b_valid = false;
    answers_.pop_front();
  }
  ++now_;
}

}  // namespace ahcq
