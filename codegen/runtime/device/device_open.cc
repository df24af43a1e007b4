/*!
 * \file device_open.cc
 * \brief Devices by name; back ends that are built on demand come from their own library.
 */
#include <dlfcn.h>

#include <algorithm>

#include "device_options.h"

namespace ahcq {
namespace {

template <typename Function>
Function Symbol(void* library, const std::string& path, const char* name) {
  void* found = dlsym(library, name);
  if (found == nullptr) throw DeviceError(path + " is no library of an accelerator: it has no " + name);
  return reinterpret_cast<Function>(found);
}

/*! \brief A device out of a library. The library stays loaded: threads of a simulation may outlive the device. */
std::unique_ptr<Device> OpenLibrary(const std::string& options) {
  const size_t end = std::min(options.find(','), options.size());
  const std::string path = options.substr(0, end);
  if (path.empty()) {
    throw DeviceError("rtl needs the library of the simulated RTL: rtl:<path>; hardware/simulator.py builds it");
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw DeviceError(std::string("the simulated RTL cannot be loaded: ") + dlerror());
  const uint32_t abi = Symbol<DeviceAbi>(library, path, "ahcq_device_abi")();
  if (abi != kDeviceAbi) {
    throw DeviceError(path + " has version " + std::to_string(abi) + " of the device interface, this library version " +
                      std::to_string(kDeviceAbi) + "; build it again");
  }
  char error[256] = "";
  const std::string rest = end < options.size() ? options.substr(end + 1) : "";
  std::unique_ptr<Device> device(
      Symbol<DeviceOpener>(library, path, "ahcq_open_device")(rest.c_str(), error, sizeof error));
  if (device == nullptr) throw DeviceError(error);
  return device;
}

}  // namespace

std::unique_ptr<Device> OpenDevice(const std::string& name) {
  const size_t colon = std::min(name.find(':'), name.size());
  const std::string backend = name.substr(0, colon), options = colon < name.size() ? name.substr(colon + 1) : "";
  if (backend == "fsim") return OpenFsim(options);
  if (backend == "rtl") return OpenLibrary(options);
  if (backend == "board") return OpenBoard(options);
  if (backend == "rpc") return OpenRemote(options);
  throw DeviceError("no accelerator is called '" + backend + "'; there are fsim, rtl, board and rpc");
}

}  // namespace ahcq
