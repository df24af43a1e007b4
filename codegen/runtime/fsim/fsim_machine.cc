/*!
 * \file fsim_machine.cc
 * \brief Lets the units go on by turns, an instruction at a time, as tokens allow.
 */
#include "fsim_machine.h"

namespace ahcq {
namespace fsim {
namespace {

constexpr uint32_t kTokensMax = (1 << isa::kTokenBits) - 1;

bool Faulty(uint64_t first, uint64_t end, size_t size, Window faults) {
  return end > size || (first < faults.end && end > faults.first);
}

}  // namespace

Program Decode(const std::vector<uint8_t>& memory, const isa::Config& config, uint64_t start, uint32_t length,
               Window window, Window faults) {
  Program program;
  program.end = isa::Error::kProgramEnd;
  for (uint32_t i = 0; i < length; ++i, start += Instruction::kBytes) {
    if (Faulty(start, start + Instruction::kBytes, memory.size(), faults)) {
      program.end = isa::Error::kBusFetch;
      break;
    }
    const Instruction instruction(memory.data() + start);
    const isa::Error error = Check(instruction, config, window);
    if (error != isa::Error::kNone || instruction.opcode() == isa::Opcode::kFinish) {
      program.end = error;
      break;
    }
    program.instructions.push_back(instruction);
  }
  return program;
}

Outcome Machine::Run(const Program& program, Window faults, const std::atomic<bool>& stop) {
  for (Unit& unit : units_) unit = Unit();
  for (auto& row : tokens_) {
    for (uint32_t& token : row) token = 0;
  }
  faults_ = faults;
  outcome_ = Outcome();
  for (const Instruction& instruction : program.instructions) {
    Unit& unit = units_[FindEntry(instruction.opcode())->unit];
    while (unit.queue.size() == isa::kQueueDepth) {
      if (Step(stop)) continue;
      if (outcome_.error == isa::Error::kNone) outcome_.error = isa::Error::kDeadlock;
      return outcome_;
    }
    unit.queue.push_back(&instruction);
    ++outcome_.index;
  }
  while (Step(stop)) {
  }
  if (outcome_.error != isa::Error::kNone) return outcome_;
  outcome_.error = program.end;
  for (const Unit& unit : units_) {
    if (unit.busy || !unit.queue.empty()) outcome_.error = isa::Error::kDeadlock;
  }
  return outcome_;
}

bool Machine::Step(const std::atomic<bool>& stop) {
  bool moved = false;
  for (int number = 0; number < kUnits; ++number) {
    if (stop || outcome_.error != isa::Error::kNone) return false;
    moved = Advance(number) || moved;
  }
  return moved && outcome_.error == isa::Error::kNone;
}

bool Machine::Advance(int number) {
  Unit& unit = units_[number];
  if (unit.busy) return Give(number);
  if (unit.queue.empty()) return false;
  const Instruction& instruction = *unit.queue.front();
  for (int giver = 0; giver < kUnits; ++giver) {
    if ((instruction.pop() >> giver & 1) && tokens_[giver][number] == 0) return false;
  }
  const isa::Error error = BusError(instruction);
  if (error != isa::Error::kNone) {
    outcome_.error = error;
    outcome_.index = 0;
    return false;
  }
  for (int giver = 0; giver < kUnits; ++giver) {
    if (instruction.pop() >> giver & 1) --tokens_[giver][number];
  }
  unit.queue.pop_front();
  operations_.Execute(instruction);
  Count(instruction);
  unit.busy = true;
  unit.unsent = instruction.push();
  Give(number);
  return true;
}

bool Machine::Give(int number) {
  Unit& unit = units_[number];
  for (int taker = 0; taker < kUnits; ++taker) {
    if ((unit.unsent >> taker & 1) && tokens_[number][taker] == kTokensMax) return false;
  }
  for (int taker = 0; taker < kUnits; ++taker) {
    if (unit.unsent >> taker & 1) ++tokens_[number][taker];
  }
  ++outcome_.count[number];
  unit.busy = false;
  return true;
}

isa::Error Machine::BusError(const Instruction& f) const {
  const bool load = f.opcode() == isa::Opcode::kLoad;
  if (!load && f.opcode() != isa::Opcode::kStore) return isa::Error::kNone;
  const uint64_t address = f[isa::load::kAddress], stride = f[isa::load::kStride];
  const uint64_t size = uint64_t{isa::kChunkBytes} * f[isa::load::kLength];
  for (uint64_t row = 0; row < f[isa::load::kRows]; ++row) {
    const uint64_t first = address + row * stride;
    if (Faulty(first, first + size, memory_.size(), faults_)) {
      return load ? isa::Error::kBusRead : isa::Error::kBusWrite;
    }
  }
  return isa::Error::kNone;
}

void Machine::Count(const Instruction& f) {
  const uint32_t chunks = f[isa::load::kRows] * f[isa::load::kLength];
  if (f.opcode() == isa::Opcode::kLoad) outcome_.load_chunks += chunks;
  if (f.opcode() == isa::Opcode::kStore) outcome_.store_chunks += chunks;
  if (f.opcode() == isa::Opcode::kGemm) {
    outcome_.array_busy += f[isa::gemm::kRows] * f[isa::gemm::kSteps] * f[isa::gemm::kBlocks];
  }
}

}  // namespace fsim
}  // namespace ahcq
