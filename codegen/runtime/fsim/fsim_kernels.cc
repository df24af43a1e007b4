/*!
 * \file fsim_kernels.cc
 * \brief Chooses the kernels that this processor can execute.
 */
#include "fsim_kernels.h"

#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

#include "../module/cpu_features.h"

namespace ahcq {
namespace fsim {

extern const Kernels kKernelsGeneric;
#if defined(AHCQ_FSIM_X86)
extern const Kernels kKernelsAvx2, kKernelsAvx512;
#endif

namespace {

#if defined(AHCQ_FSIM_X86)
bool HasAll(std::initializer_list<const char*> wanted) {
  const std::vector<std::string> present = tvm_ahcq::runtime::CpuFeatures();
  for (const char* name : wanted) {
    bool found = false;
    for (const std::string& feature : present) found = found || feature == name;
    if (!found) return false;
  }
  return true;
}
#endif

/*! \brief Sets that run here, best first. */
std::vector<const Kernels*> Usable() {
  std::vector<const Kernels*> sets;
#if defined(AHCQ_FSIM_X86)
  if (HasAll({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni"})) sets.push_back(&kKernelsAvx512);
  if (HasAll({"avx2"})) sets.push_back(&kKernelsAvx2);
#endif
  sets.push_back(&kKernelsGeneric);
  return sets;
}

}  // namespace

const Kernels& BestKernels() {
  static const Kernels& best = *Usable().front();
  return best;
}

const Kernels* FindKernels(const char* name) {
  for (const Kernels* set : Usable()) {
    if (std::strcmp(set->name, name) == 0) return set;
  }
  return nullptr;
}

}  // namespace fsim
}  // namespace ahcq
