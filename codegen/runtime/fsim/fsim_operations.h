/*!
 * \file fsim_operations.h
 * \brief What each instruction does to the scratchpads and to external memory (SPEC 4).
 */
#ifndef AHCQ_FSIM_OPERATIONS_H_
#define AHCQ_FSIM_OPERATIONS_H_

#include <cstdint>
#include <vector>

#include "../device/instruction.h"
#include "fsim_state.h"
#include "fsim_threads.h"

namespace ahcq {
namespace fsim {

class Operations {
 public:
  Operations(State* state, std::vector<uint8_t>* memory, Threads* threads, const Kernels& kernels)
      : state_(*state), memory_(*memory), threads_(*threads), kernels_(kernels), dim_(state->config.dim) {}

  /*! \brief Executes a checked instruction whose external addresses exist. */
  void Execute(const Instruction& instruction);

 private:
  void Load(const Instruction& f);
  void LoadTable(const Instruction& f, uint64_t entry, const uint8_t* data, uint32_t chunks);
  void Store(const Instruction& f);
  void Gemm(const Instruction& f);
  void GemmBlock(const Instruction& f, uint32_t block, uint32_t step, uint32_t steps, uint32_t first, uint32_t end);
  void Scale(const Instruction& f);
  void Logit(const Instruction& f);
  void Prob(const Instruction& f);

  State& state_;
  std::vector<uint8_t>& memory_;
  Threads& threads_;
  const Kernels& kernels_;
  const uint32_t dim_;
  std::vector<int16_t> operands_;  // (steps, rows, Dim) of the steps at work
};

}  // namespace fsim
}  // namespace ahcq

#endif  // AHCQ_FSIM_OPERATIONS_H_
