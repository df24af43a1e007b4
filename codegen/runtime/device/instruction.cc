/*!
 * \file instruction.cc
 * \brief The decoder's checks, from the tables that are generated from isa.yaml.
 */
#include "instruction.h"

namespace ahcq {
namespace {

using isa::Memory;

constexpr uint64_t kImpossible = ~uint64_t{0} >> 1;  // longer than any memory

/*! \brief Scratchpad words in that many chunks of 8 bytes. */
uint64_t WordsOf(const isa::Config& config, uint32_t memory, uint64_t chunks) {
  switch (static_cast<Memory>(memory)) {
    case Memory::kDecode:
    case Memory::kEncode:
      return chunks;
    default: {
      const uint64_t bits = config.dim * (memory == static_cast<uint32_t>(Memory::kVec) ? 32 : isa::kCodeBits);
      return chunks * 64 % bits ? kImpossible : chunks * 64 / bits;
    }
  }
}

bool FieldsAreLegal(const Instruction& instruction, const isa::Entry& entry) {
  const uint32_t own = entry.unit < 0 ? 15 : 1u << entry.unit;
  if (instruction.AnyFrom(entry.bits) || ((instruction.pop() | instruction.push()) & own)) return false;
  for (const isa::Field& field : entry.nonzero) {
    if (field.width != 0 && instruction[field] == 0) return false;
  }
  if (entry.memories != 0 && !(entry.memories >> instruction[isa::load::kMemory] & 1)) return false;
  return entry.opcode != isa::Opcode::kScale || instruction[isa::scale::kAddMode] != 3;
}

isa::Error CheckDram(const Instruction& instruction, const isa::Range& range, const isa::Config& config, uint64_t end,
                     Window window) {
  const uint32_t granule = instruction.opcode() == isa::Opcode::kLoad ? 4 : isa::kChunkBytes * config.bus_chunks;
  const uint32_t start = instruction[range.base];
  const bool aligned = start % granule == 0 && instruction[range.stride[0]] % granule == 0;
  return aligned && start >= window.first && end <= window.end ? isa::Error::kNone : isa::Error::kAddressRange;
}

isa::Error CheckRange(const Instruction& instruction, const isa::Range& range, const isa::Config& config,
                      Window window) {
  if (range.condition.width != 0 && instruction[range.condition] != range.wanted) return isa::Error::kNone;
  const uint32_t memory = range.memory < 0 ? instruction[isa::load::kMemory] : static_cast<uint32_t>(range.memory);
  const bool dram = memory == static_cast<uint32_t>(Memory::kDram);
  uint64_t end = instruction[range.base];
  for (int term = 0; term < 2; ++term) {
    if (range.count[term].width != 0) {
      end += static_cast<uint64_t>(instruction[range.count[term]] - 1) * instruction[range.stride[term]];
    }
  }
  switch (range.tail_kind) {
    case isa::Tail::kField:
      end += instruction[range.tail];
      break;
    case isa::Tail::kChunks:
      end += dram ? uint64_t{isa::kChunkBytes} * instruction[range.tail]
                  : WordsOf(config, memory, instruction[range.tail]);
      break;
    case isa::Tail::kDim:
      end += config.dim;
      break;
    case isa::Tail::kOne:
      end += 1;
      break;
  }
  if (dram) return CheckDram(instruction, range, config, end, window);
  return end <= DepthOf(config, memory) ? isa::Error::kNone : isa::Error::kScratchpadRange;
}

}  // namespace

bool Instruction::AnyFrom(int first) const {
  for (int bit = first; bit < 256; bit = bit / 64 * 64 + 64) {
    if (words_[bit / 64] >> (bit % 64)) return true;
  }
  return false;
}

const isa::Entry* FindEntry(isa::Opcode opcode) {
  for (const isa::Entry& entry : isa::kEntries) {
    if (entry.opcode == opcode) return &entry;
  }
  return nullptr;
}

uint32_t DepthOf(const isa::Config& config, uint32_t memory) {
  switch (static_cast<Memory>(memory)) {
    case Memory::kAct:
      return config.act_depth;
    case Memory::kWgt:
      return config.wgt_depth;
    case Memory::kVec:
      return config.vec_depth;
    case Memory::kOut:
      return config.out_depth;
    case Memory::kAcc:
      return config.acc_depth;
    case Memory::kLgt:
      return config.lgt_depth;
    case Memory::kStat:
      return config.stat_depth;
    default:
      return 32;  // tables, in chunks of two entries
  }
}

isa::Error Check(const Instruction& instruction, const isa::Config& config, Window window) {
  const isa::Entry* entry = FindEntry(instruction.opcode());
  if (entry == nullptr) return isa::Error::kIllegalOpcode;
  if (!FieldsAreLegal(instruction, *entry)) return isa::Error::kIllegalField;
  for (int i = 0; i < entry->ranges; ++i) {
    const isa::Error error = CheckRange(instruction, entry->range[i], config, window);
    if (error != isa::Error::kNone) return error;
  }
  return isa::Error::kNone;
}

const isa::Config* FindConfig(const char* name) {
  for (const isa::Config& config : isa::kConfigs) {
    if (std::strcmp(config.name, name) == 0) return &config;
  }
  return nullptr;
}

const isa::Config* FindConfig(uint32_t hash) {
  for (const isa::Config& config : isa::kConfigs) {
    if (config.hash == hash) return &config;
  }
  return nullptr;
}

void Relocate(uint8_t* program, size_t length, uint32_t delta) {
  static_assert(isa::load::kAddress.bit == isa::store::kAddress.bit, "one place for both");
  constexpr int kWord = isa::load::kAddress.bit / 64, kBit = isa::load::kAddress.bit % 64;
  static_assert(kBit + isa::load::kAddress.width <= 64, "within one word");
  constexpr uint64_t kMask = 0xffffffffull << kBit;
  for (size_t i = 0; i < length; ++i) {
    uint8_t* at = program + i * Instruction::kBytes;
    const isa::Opcode opcode = Instruction(at).opcode();
    if (opcode != isa::Opcode::kLoad && opcode != isa::Opcode::kStore) continue;
    uint64_t word;
    std::memcpy(&word, at + 8 * kWord, 8);
    const uint64_t address = static_cast<uint32_t>((word & kMask) >> kBit) + delta;
    word = (word & ~kMask) | (address & 0xffffffffull) << kBit;
    std::memcpy(at + 8 * kWord, &word, 8);
  }
}

}  // namespace ahcq
