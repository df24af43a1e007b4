/*!
 * \file fsim_machine.h
 * \brief Execution of a program: queues, tokens, errors and the counters that are exact (SPEC 1 and 6).
 *
 * The same machine as hardware/model/machine.py, with fast operations.
 */
#ifndef AHCQ_FSIM_MACHINE_H_
#define AHCQ_FSIM_MACHINE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <vector>

#include "../device/instruction.h"
#include "fsim_operations.h"

namespace ahcq {
namespace fsim {

constexpr int kUnits = 4;

/*! \brief What a program was decoded to: its instructions before FINISH or the first fault, and how it ends there. */
struct Program {
  std::vector<Instruction> instructions;
  isa::Error end = isa::Error::kNone;
};

/*! \brief Reads and checks `length` instructions; bytes [fault_first, fault_end) answer with a bus error. */
Program Decode(const std::vector<uint8_t>& memory, const isa::Config& config, uint64_t start, uint32_t length,
               Window window, Window faults);

/*! \brief How a program ended, and the counters that every implementation agrees on. */
struct Outcome {
  isa::Error error = isa::Error::kNone;
  uint32_t index = 0;
  uint32_t array_busy = 0, load_chunks = 0, store_chunks = 0;
  uint32_t count[kUnits] = {};
};

class Machine {
 public:
  Machine(const isa::Config& config, std::vector<uint8_t>* memory, uint32_t threads, const Kernels& kernels)
      : memory_(*memory), state_(config), threads_(threads), operations_(&state_, memory, &threads_, kernels) {}

  /*! \brief Runs until the end, a fault, or `stop`. */
  Outcome Run(const Program& program, Window faults, const std::atomic<bool>& stop);

 private:
  struct Unit {
    std::deque<const Instruction*> queue;
    bool busy = false;
    uint32_t unsent = 0;  // tokens that its finished instruction still has to give
  };

  bool Step(const std::atomic<bool>& stop);
  bool Advance(int number);
  bool Give(int number);
  isa::Error BusError(const Instruction& instruction) const;
  void Count(const Instruction& instruction);

  std::vector<uint8_t>& memory_;
  State state_;
  Threads threads_;
  Operations operations_;
  Unit units_[kUnits];
  uint32_t tokens_[kUnits][kUnits] = {};  // [giver][taker]
  Window faults_ = {0, 0};
  Outcome outcome_;
};

}  // namespace fsim
}  // namespace ahcq

#endif  // AHCQ_FSIM_MACHINE_H_
