/*!
 * \file fsim_state.h
 * \brief Scratchpads and tables of the functional simulator. All are 0 at power-up and kept from program to program.
 */
#ifndef AHCQ_FSIM_STATE_H_
#define AHCQ_FSIM_STATE_H_

#include <cstdint>
#include <vector>

#include "../../isa/generated/ahcq_isa.h"
#include "fsim_kernels.h"

namespace ahcq {
namespace fsim {

struct State {
  explicit State(const isa::Config& sizes)
      : config(sizes),
        act(sizes.act_depth * sizes.dim),
        wgt(sizes.wgt_depth * sizes.dim),
        out(sizes.out_depth * sizes.dim),
        vec(sizes.vec_depth * sizes.dim),
        acc(sizes.acc_depth * sizes.dim),
        lgt(sizes.lgt_depth * sizes.dim),
        row_max(sizes.stat_depth) {}

  isa::Config config;
  std::vector<uint8_t> act, wgt, out;  // one code a byte, word after word of Dim
  std::vector<int32_t> vec, acc, lgt;
  std::vector<int32_t> row_max;
  int16_t decode[64] = {};
  Encoder encoder = {{}, {}, true, 31};
};

}  // namespace fsim
}  // namespace ahcq

#endif  // AHCQ_FSIM_STATE_H_
