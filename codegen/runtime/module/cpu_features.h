/*!
 * \file cpu_features.h
 * \brief What this processor, under this operating system, can execute.
 */
#ifndef TVM_AHCQ_RUNTIME_CPU_FEATURES_H_
#define TVM_AHCQ_RUNTIME_CPU_FEATURES_H_

#include <string>
#include <vector>

namespace tvm_ahcq {
namespace runtime {

/*!
 * \brief Instruction-set extensions that are present and whose registers the operating system saves.
 * \return Names in LLVM's spelling without its "+": a subset of avx2 fma avx512f avx512bw avx512vl avx512dq
 *         avx512vnni amx-tile amx-int8 amx-bf16 (x86-64), neon dotprod (aarch64); empty elsewhere.
 */
std::vector<std::string> CpuFeatures();

/*!
 * \brief Ask Linux for the permission to use the AMX tile registers in this process.
 *
 * Without it the first tile instruction ends in an illegal-instruction signal. Asking again is harmless.
 *
 * \return true if the tile registers may be used from now on; false if processor or kernel lack them.
 */
bool RequestAmx();

}  // namespace runtime
}  // namespace tvm_ahcq

#endif  // TVM_AHCQ_RUNTIME_CPU_FEATURES_H_
