/*!
 * \file fsim_operations.cc
 * \brief Instructions as loops over words; rows are shared among the threads where there is enough to do.
 */
#include "fsim_operations.h"

#include <algorithm>
#include <cstring>

namespace ahcq {
namespace fsim {
namespace {

using isa::Memory;

constexpr uint32_t kStepsAtOnce = 64;  // bounds the buffer of operands and a packed column block
constexpr uint64_t kProductsToShare = 1 << 17;
constexpr uint64_t kNumbersToShare = 1 << 12;
constexpr uint32_t kRowGrain = 8;

int32_t Signed(uint32_t value, int bits) { return static_cast<int32_t>(value << (32 - bits)) >> (32 - bits); }

Memory MemoryOf(const Instruction& f) { return static_cast<Memory>(f[isa::load::kMemory]); }

}  // namespace

void Operations::Execute(const Instruction& instruction) {
  switch (instruction.opcode()) {
    case isa::Opcode::kLoad:
      return Load(instruction);
    case isa::Opcode::kStore:
      return Store(instruction);
    case isa::Opcode::kGemm:
      return Gemm(instruction);
    case isa::Opcode::kScale:
      return Scale(instruction);
    case isa::Opcode::kLogit:
      return Logit(instruction);
    case isa::Opcode::kProb:
      return Prob(instruction);
    case isa::Opcode::kFinish:
      return;
  }
}

void Operations::Load(const Instruction& f) {
  const uint32_t chunks = f[isa::load::kLength], bytes = isa::kChunkBytes * chunks;
  for (uint32_t row = 0; row < f[isa::load::kRows]; ++row) {
    const uint8_t* data = memory_.data() + f[isa::load::kAddress] + uint64_t{row} * f[isa::load::kStride];
    const uint64_t at = f[isa::load::kSp] + uint64_t{row} * f[isa::load::kSpStride];
    switch (MemoryOf(f)) {
      case Memory::kVec:
        std::memcpy(state_.vec.data() + at * dim_, data, bytes);
        break;
      case Memory::kAct:
        kernels_.unpack(data, bytes, state_.act.data() + at * dim_);
        break;
      case Memory::kWgt:
        kernels_.unpack(data, bytes, state_.wgt.data() + at * dim_);
        break;
      default:
        LoadTable(f, 2 * at, data, chunks);
    }
  }
}

void Operations::LoadTable(const Instruction& f, uint64_t entry, const uint8_t* data, uint32_t chunks) {
  Encoder& encoder = state_.encoder;
  for (uint32_t i = 0; i < 2 * chunks; ++i, ++entry) {
    int32_t value;
    std::memcpy(&value, data + 4 * i, 4);
    if (MemoryOf(f) == Memory::kDecode) {
      state_.decode[entry] = static_cast<int16_t>(Signed(static_cast<uint32_t>(value), isa::kOperandBits));
    } else if (entry < 32) {
      encoder.thresholds[entry] = value;
    } else {
      encoder.codes[entry - 32] = static_cast<uint8_t>(value & 15);
    }
  }
  const int32_t* thresholds = encoder.thresholds;
  encoder.ascending = std::is_sorted(thresholds, thresholds + isa::kThresholds);
  for (encoder.used = isa::kThresholds; encoder.used > 0 && thresholds[encoder.used - 1] == INT32_MAX;) {
    --encoder.used;
  }
}

void Operations::Store(const Instruction& f) {
  const uint32_t bytes = isa::kChunkBytes * f[isa::store::kLength];
  for (uint32_t row = 0; row < f[isa::store::kRows]; ++row) {
    uint8_t* data = memory_.data() + f[isa::store::kAddress] + uint64_t{row} * f[isa::store::kStride];
    const uint64_t at = f[isa::store::kSp] + uint64_t{row} * f[isa::store::kSpStride];
    if (MemoryOf(f) == Memory::kVec) {
      std::memcpy(data, state_.vec.data() + at * dim_, bytes);
    } else {
      kernels_.repack(state_.out.data() + at * dim_, bytes, data);
    }
  }
}

void Operations::Gemm(const Instruction& f) {
  const uint32_t rows = f[isa::gemm::kRows], all = f[isa::gemm::kSteps], blocks = f[isa::gemm::kBlocks];
  const int16_t* table = state_.decode + 16 * f[isa::gemm::kDecode];
  const uint64_t products = uint64_t{rows} * all * blocks * dim_ * dim_;
  const uint32_t grain = products >= kProductsToShare ? kRowGrain : rows;
  for (uint32_t step = 0; step < all; step += kStepsAtOnce) {
    const uint32_t steps = std::min(kStepsAtOnce, all - step);
    operands_.resize(std::max<size_t>(operands_.size(), size_t{rows} * steps * dim_));
    threads_.For(rows, grain, [&](uint32_t first, uint32_t end) {
      for (uint32_t s = 0; s < steps; ++s) {
        const uint64_t word = f[isa::gemm::kAct] + uint64_t{step + s} * f[isa::gemm::kActStride] + first;
        int16_t* operands = &operands_[(size_t{s} * rows + first) * dim_];
        kernels_.decode(&state_.act[word * dim_], table, operands, uint64_t{end - first} * dim_);
      }
      for (uint32_t block = 0; block < blocks; ++block) GemmBlock(f, block, step, steps, first, end);
    });
  }
}

void Operations::GemmBlock(const Instruction& f, uint32_t block, uint32_t step, uint32_t steps, uint32_t first,
                           uint32_t end) {
  static thread_local std::vector<int32_t> packed;
  const uint32_t pairs = dim_ / 2;
  packed.resize(size_t{kStepsAtOnce} * pairs * dim_);
  uint8_t zeros[64];
  const uint32_t zero = f[isa::gemm::kZero];
  if (f[isa::gemm::kZeroVector]) {
    std::memcpy(zeros, &state_.wgt[uint64_t{zero + block} * dim_], dim_);
  } else {
    std::memset(zeros, static_cast<int>(zero & 15), dim_);
  }
  for (uint32_t s = 0; s < steps; ++s) {
    const uint64_t word =
        f[isa::gemm::kWgt] + uint64_t{block} * f[isa::gemm::kWgtBlock] + uint64_t{step + s} * f[isa::gemm::kWgtStride];
    kernels_.pack(&state_.wgt[word * dim_], zeros, f[isa::gemm::kTranspose] != 0, dim_,
                  &packed[size_t{s} * pairs * dim_]);
  }
  const uint64_t acc = f[isa::gemm::kAcc] + uint64_t{block} * f[isa::gemm::kAccBlock] + first;
  kernels_.multiply(&operands_[size_t{first} * dim_], uint64_t{f[isa::gemm::kRows]} * dim_, packed.data(), steps,
                    end - first, dim_, &state_.acc[acc * dim_], step > 0 || f[isa::gemm::kAccumulate]);
}

void Operations::Scale(const Instruction& f) {
  const uint32_t rows = f[isa::scale::kRows], mode = f[isa::scale::kAddMode];
  const uint32_t grain = uint64_t{rows} * dim_ >= kNumbersToShare ? kRowGrain : rows;
  std::vector<uint8_t>& codes = MemoryOf(f) == Memory::kAct ? state_.act : state_.out;
  for (uint32_t block = 0; block < f[isa::scale::kBlocks]; ++block) {
    const uint64_t acc = f[isa::scale::kAcc] + uint64_t{block} * f[isa::scale::kAccBlock];
    const uint64_t add = f[isa::scale::kAdd] + uint64_t{block} * f[isa::scale::kAddBlock];
    const uint64_t dst = f[isa::scale::kDst] + uint64_t{block} * f[isa::scale::kDstBlock];
    threads_.For(rows, grain, [&](uint32_t first, uint32_t end) {
      ScaleBlock work = {};
      work.acc = &state_.acc[(acc + first) * dim_];
      work.scales = &state_.vec[uint64_t{f[isa::scale::kMult] + block} * dim_];
      if (mode == 1) work.bias = &state_.vec[uint64_t{f[isa::scale::kAdd] + block} * dim_];
      if (mode == 2) work.addend = &state_.vec[(add + first) * dim_];
      if (MemoryOf(f) == Memory::kVec) {
        work.numbers = &state_.vec[(dst + first) * dim_];
      } else {
        work.codes = &codes[(dst + first) * dim_];
      }
      work.pre = f[isa::scale::kPre];
      kernels_.scale(work, end - first, dim_, state_.encoder);
    });
  }
}

void Operations::Logit(const Instruction& f) {
  const uint32_t rows = f[isa::logit::kRows], blocks = f[isa::logit::kBlocks], stat = f[isa::logit::kStat];
  const bool rel = f[isa::logit::kRel] != 0;
  const uint32_t grain = uint64_t{rows} * blocks * dim_ >= kNumbersToShare ? 1 : rows;
  threads_.For(rows, grain, [&](uint32_t first, uint32_t end) {
    for (uint32_t row = first; row < end; ++row) {
      LogitRow work = {};
      work.acc = &state_.acc[uint64_t{f[isa::logit::kAcc] + row} * dim_];
      work.acc_block = uint64_t{f[isa::logit::kAccBlock]} * dim_;
      if (rel) {
        work.rel_w = &state_.vec[(f[isa::logit::kRelW] + uint64_t{row} * f[isa::logit::kRelWRow]) * dim_];
        const uint64_t word = f[isa::logit::kRelH] + uint64_t{row} * f[isa::logit::kRelHRow];
        work.rel_h = state_.vec[word * dim_ + f[isa::logit::kRelHLane] % dim_];
      }
      work.out = &state_.lgt[(f[isa::logit::kLgt] + uint64_t{row} * f[isa::logit::kLgtRow]) * dim_];
      work.blocks = blocks;
      work.valid = std::min(f[isa::logit::kValid], dim_);
      work.mult = Signed(f[isa::logit::kMult], isa::kMantissaBits);
      work.pre = f[isa::logit::kPre];
      work.shift = f[isa::logit::kShift];
      const int32_t greatest = kernels_.logit(work, dim_);
      int32_t& row_max = state_.row_max[stat + row];
      row_max = f[isa::logit::kFirst] ? greatest : std::max(row_max, greatest);
    }
  });
}

void Operations::Prob(const Instruction& f) {
  const uint32_t rows = f[isa::prob::kRows], blocks = f[isa::prob::kBlocks], stat = f[isa::prob::kStat];
  threads_.For(rows, uint64_t{rows} * blocks * dim_ >= kNumbersToShare ? 1 : rows, [&](uint32_t first, uint32_t end) {
    std::vector<uint8_t> codes(size_t{blocks} * dim_);
    for (uint32_t row = first; row < end; ++row) {
      const uint64_t word = f[isa::prob::kLgt] + uint64_t{row} * f[isa::prob::kLgtRow];
      kernels_.prob(&state_.lgt[word * dim_], blocks * dim_, state_.row_max[stat + row], state_.encoder, codes.data());
      for (uint32_t block = 0; block < blocks; ++block) {
        const uint64_t dst = f[isa::prob::kDst] + uint64_t{block} * f[isa::prob::kDstBlock] + row;
        std::memcpy(&state_.act[dst * dim_], &codes[size_t{block} * dim_], dim_);
      }
    }
  });
}

}  // namespace fsim
}  // namespace ahcq
