/*!
 * \file fsim_kernels_generic.cc
 * \brief Kernels of level generic; CMakeLists.txt has the options.
 */
#define AHCQ_FSIM_NAME "generic"
#include "fsim_kernels_impl.h"

namespace ahcq {
namespace fsim {

extern const Kernels kKernelsGeneric;
const Kernels kKernelsGeneric = kKernels;

}  // namespace fsim
}  // namespace ahcq
