/*!
 * \file fsim_kernels_avx2.cc
 * \brief Kernels of level avx2; CMakeLists.txt has the options.
 */
#define AHCQ_FSIM_NAME "avx2"
#include "fsim_kernels_impl.h"

namespace ahcq {
namespace fsim {

extern const Kernels kKernelsAvx2;
const Kernels kKernelsAvx2 = kKernels;

}  // namespace fsim
}  // namespace ahcq
