/*!
 * \file remote_server.cc
 * \brief The server's side of a remote device: opens devices of this machine and does with them what a client asks for.
 *
 * Registered as a global function, so that any server of TVM's RPC that has loaded this library offers it.
 */
#include <tvm/ffi/tvm_ffi.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../device/device.h"
#include "remote_protocol.h"

namespace ahcq {
namespace remote {
namespace {

namespace ffi = tvm::ffi;

/*! \brief Open devices by number. */
class Table {
 public:
  int64_t Add(std::shared_ptr<Device> device) {
    const std::lock_guard<std::mutex> guard(mutex_);
    devices_[++last_] = std::move(device);
    return last_;
  }
  std::shared_ptr<Device> At(int64_t number) {
    const std::lock_guard<std::mutex> guard(mutex_);
    const auto found = devices_.find(number);
    if (found == devices_.end()) throw DeviceError("the server has no open device of that number");
    return found->second;
  }
  void Remove(int64_t number) {
    const std::lock_guard<std::mutex> guard(mutex_);
    devices_.erase(number);
  }

 private:
  std::mutex mutex_;
  std::map<int64_t, std::shared_ptr<Device>> devices_;
  int64_t last_ = 0;
};

/*! \brief Never destroyed: a server ends by leaving, whatever its devices do. */
Table& Devices() {
  static Table* table = new Table();
  return *table;
}

template <typename Value>
std::string Raw(const Value& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string Open(const std::string& asked) {
  std::string name = asked;
  if (const auto resolve = ffi::Function::GetGlobal(kResolve)) {
    name = std::string((*resolve)(asked).cast<ffi::String>());
  } else if (name.rfind("rpc", 0) == 0) {
    throw DeviceError("a server does not pass devices of other servers on");
  }
  std::shared_ptr<Device> device = OpenDevice(name);
  Opened opened{0, device->MemoryBytes(), device->MemoryBase()};
  const std::string shown = device->Name();
  opened.device = Devices().Add(std::move(device));
  return Raw(opened) + shown;
}

std::string Read(Device& device, const ffi::Bytes& data) {
  std::vector<uint32_t> offsets(data.size() / sizeof(uint32_t));
  std::memcpy(offsets.data(), data.data(), offsets.size() * sizeof(uint32_t));
  const std::vector<uint32_t> values = device.ReadRegisters(offsets);
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(uint32_t));
}

std::string CopyOut(Device& device, int64_t address, int64_t bytes) {
  if (bytes < 0 || static_cast<size_t>(bytes) > kMostBytes) throw DeviceError("a transfer is too large");
  std::string data(static_cast<size_t>(bytes), '\0');
  device.CopyOut(static_cast<uint64_t>(address), data.data(), data.size());
  return data;
}

std::string Do(int64_t number, Operation operation, int64_t first, int64_t second, const ffi::Bytes& data) {
  if (operation == Operation::kHello) return Raw(kVersion);
  if (operation == Operation::kOpen) return Open(std::string(data.data(), data.size()));
  const std::shared_ptr<Device> device = Devices().At(number);
  switch (operation) {
    case Operation::kClose:
      Devices().Remove(number);
      return "";
    case Operation::kCopyIn:
      device->CopyIn(static_cast<uint64_t>(first), data.data(), data.size());
      return "";
    case Operation::kCopyOut:
      return CopyOut(*device, first, second);
    case Operation::kWriteRegister:
      device->WriteRegister(static_cast<uint32_t>(first), static_cast<uint32_t>(second));
      return "";
    case Operation::kReadRegisters:
      return Read(*device, data);
    case Operation::kSubmit:
      device->Submit(static_cast<uint64_t>(first), static_cast<uint32_t>(second));
      return "";
    case Operation::kWait:
      return Raw(device->Wait(static_cast<double>(std::min(std::max<int64_t>(first, 0), kWaitMilliseconds)) / 1000));
    case Operation::kPass:
      device->Pass();
      return "";
    case Operation::kSetFaults:
      device->SetFaults(static_cast<uint64_t>(first), static_cast<uint64_t>(second));
      return "";
    default:
      throw DeviceError("the server does not know operation " + std::to_string(static_cast<int64_t>(operation)));
  }
}

ffi::Bytes Call(int64_t number, int64_t operation, int64_t first, int64_t second, const ffi::Bytes& data) {
  constexpr char kDone = 0, kFailed = 1;
  try {
    return ffi::Bytes(std::string(1, kDone) + Do(number, static_cast<Operation>(operation), first, second, data));
  } catch (const ffi::Error& error) {
    return ffi::Bytes(std::string(1, kFailed) + error.message());
  } catch (const std::exception& error) {
    return ffi::Bytes(std::string(1, kFailed) + error.what());
  }
}

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::GlobalDef().def(kFunction, Call, "Devices of this machine, for clients behind RPC; see remote_protocol.h.");
}

}  // namespace
}  // namespace remote
}  // namespace ahcq
