/*!
 * \file device_object.cc
 * \brief The device interface for tvm_ffi: objects of type `ahcq.Device`, opened by `ahcq.open_device`.
 */
#include <tvm/ffi/tvm_ffi.h>

#include <memory>
#include <string>
#include <utility>

#include "device.h"
#include "instruction.h"

namespace ahcq {
namespace {

namespace ffi = tvm::ffi;

/*! \brief Runs `body`; what a device refuses, or has no memory for, arrives in Python as its DeviceError. */
template <typename Body>
auto Guard(Body body) -> decltype(body()) {
  try {
    return body();
  } catch (const std::exception& error) {
    TVM_FFI_THROW(DeviceError) << error.what();
  }
  TVM_FFI_UNREACHABLE();
}

class DeviceObj : public ffi::Object {
 public:
  explicit DeviceObj(std::unique_ptr<Device> device) : device_(std::move(device)) {}

  Device& Open() {
    if (device_ == nullptr) throw DeviceError("the device is closed");
    return *device_;
  }
  void Close() { device_.reset(); }

  static constexpr bool _type_mutable = true;
  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("ahcq.Device", DeviceObj, ffi::Object);

 private:
  std::unique_ptr<Device> device_;
};

class DeviceRef : public ffi::ObjectRef {
 public:
  explicit DeviceRef(std::unique_ptr<Device> device) { data_ = ffi::make_object<DeviceObj>(std::move(device)); }
  TVM_FFI_DEFINE_OBJECT_REF_METHODS_NULLABLE(DeviceRef, ffi::ObjectRef, DeviceObj);
};

DeviceRef OpenByName(const std::string& name) {
  return Guard([&] { return DeviceRef(OpenDevice(name)); });
}

ffi::Bytes CopyOut(DeviceObj* self, int64_t address, int64_t bytes) {
  return Guard([&] {
    std::string data(static_cast<size_t>(bytes), '\0');
    self->Open().CopyOut(static_cast<uint64_t>(address), data.data(), data.size());
    return ffi::Bytes(std::move(data));
  });
}

ffi::Bytes Relocated(const ffi::Bytes& program, int64_t delta) {
  std::string moved(program.data(), program.size());
  Relocate(reinterpret_cast<uint8_t*>(moved.data()), moved.size() / Instruction::kBytes, static_cast<uint32_t>(delta));
  return ffi::Bytes(std::move(moved));
}

void DefineDevice() {
  namespace refl = tvm::ffi::reflection;
  refl::ObjectDef<DeviceObj>()
      .def("name", [](DeviceObj* self) { return Guard([&] { return ffi::String(self->Open().Name()); }); })
      .def("memory_bytes",
           [](DeviceObj* self) { return Guard([&] { return static_cast<int64_t>(self->Open().MemoryBytes()); }); })
      .def("memory_base",
           [](DeviceObj* self) { return Guard([&] { return static_cast<int64_t>(self->Open().MemoryBase()); }); })
      .def("allocate",
           [](DeviceObj* self, int64_t bytes) {
             return Guard([&] { return static_cast<int64_t>(self->Open().Allocate(static_cast<size_t>(bytes))); });
           })
      .def("release",
           [](DeviceObj* self, int64_t at) { Guard([&] { self->Open().Release(static_cast<uint64_t>(at)); }); })
      .def("copy_in",
           [](DeviceObj* self, int64_t at, const ffi::Bytes& data) {
             Guard([&] { self->Open().CopyIn(static_cast<uint64_t>(at), data.data(), data.size()); });
           })
      .def("copy_out", CopyOut)
      .def("write_register",
           [](DeviceObj* self, int64_t offset, int64_t value) {
             Guard([&] { self->Open().WriteRegister(static_cast<uint32_t>(offset), static_cast<uint32_t>(value)); });
           })
      .def("read_register",
           [](DeviceObj* self, int64_t offset) {
             return Guard([&] { return int64_t{self->Open().ReadRegister(static_cast<uint32_t>(offset))}; });
           })
      .def("submit",
           [](DeviceObj* self, int64_t program, int64_t length) {
             Guard([&] { self->Open().Submit(static_cast<uint64_t>(program), static_cast<uint32_t>(length)); });
           })
      .def("wait", [](DeviceObj* self, double seconds) { return Guard([&] { return self->Open().Wait(seconds); }); })
      .def("soft_reset",
           [](DeviceObj* self, double seconds) { return Guard([&] { return self->Open().SoftReset(seconds); }); })
      .def("set_faults",
           [](DeviceObj* self, int64_t first, int64_t end) {
             Guard([&] { self->Open().SetFaults(static_cast<uint64_t>(first), static_cast<uint64_t>(end)); });
           })
      .def("require_config",
           [](DeviceObj* self, int64_t hash) {
             Guard([&] { self->Open().RequireConfig(static_cast<uint32_t>(hash)); });
           })
      .def("close", [](DeviceObj* self) { self->Close(); });
}

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  DefineDevice();
  refl::GlobalDef()
      .def("ahcq.open_device", OpenByName, "Opens an accelerator by name; see device.h.")
      .def("ahcq.relocate", Relocated, "A program whose external addresses are moved by a number of bytes.");
}

}  // namespace
}  // namespace ahcq
