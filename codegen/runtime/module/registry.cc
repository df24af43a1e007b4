/*!
 * \file registry.cc
 * \brief Makes the runtime library's functions known to tvm_ffi, by name, when the library is loaded.
 */
#include <tvm/ffi/tvm_ffi.h>

#include <string>

#include "cpu_features.h"

namespace tvm_ahcq {
namespace runtime {
namespace {

tvm::ffi::Array<tvm::ffi::String> CpuFeatureNames() {
  tvm::ffi::Array<tvm::ffi::String> names;
  for (const std::string& name : CpuFeatures()) names.push_back(name);
  return names;
}

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::GlobalDef()
      .def("ahcq.runtime.cpu_features", CpuFeatureNames, "Usable instruction-set extensions, by LLVM name.")
      .def("ahcq.runtime.request_amx", RequestAmx, "Ask the kernel for AMX tile registers; true if granted.");
}

}  // namespace
}  // namespace runtime
}  // namespace tvm_ahcq
