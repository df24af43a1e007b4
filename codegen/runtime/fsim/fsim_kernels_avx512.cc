/*!
 * \file fsim_kernels_avx512.cc
 * \brief Kernels of level avx512vnni; CMakeLists.txt has the options.
 */
#define AHCQ_FSIM_NAME "avx512vnni"
#include "fsim_kernels_impl.h"

namespace ahcq {
namespace fsim {

extern const Kernels kKernelsAvx512;
const Kernels kKernelsAvx512 = kKernels;

}  // namespace fsim
}  // namespace ahcq
