/*!
 * \file fsim_timing.h
 * \brief How many cycles a program takes: the control of the RTL, cycle by cycle, without its data.
 *
 * What is modelled, after the sources in hardware/rtl: fetching and checking of instructions, queues and tokens, the
 * bursts of LOAD and STORE, a memory with one latency and so many bytes a cycle in each direction, weights that arrive
 * while rows are fed, the two halves of the accumulators, the slots of the vector unit, and the ports of `act` and
 * `vec` that units share. Not modelled: random stalls, what follows a fault, and that instructions after FINISH or a
 * fault are still fetched.
 */
#ifndef AHCQ_FSIM_TIMING_H_
#define AHCQ_FSIM_TIMING_H_

#include <atomic>
#include <cstdint>

#include "fsim_machine.h"

namespace ahcq {
namespace fsim {

/*! \brief The memory that the estimate assumes. */
struct Timing {
  uint32_t latency = 40;         // cycles from an address to its first beat, and from a last beat to its answer
  uint32_t bytes_per_cycle = 0;  // in each direction, a divisor of the bytes of a beat; 0: all of them
};

/*! \brief Counters of SPEC 7 that depend on time. */
struct Estimate {
  uint32_t cycles;
  uint32_t busy[kUnits], stall[kUnits];
};

/*! \brief Counters of a program, from its start to FINISH or its first fault; `stop` ends the estimate early. */
Estimate EstimateCycles(const Program& program, const isa::Config& config, const Timing& timing,
                        const std::atomic<bool>& stop);

}  // namespace fsim
}  // namespace ahcq

#endif  // AHCQ_FSIM_TIMING_H_
