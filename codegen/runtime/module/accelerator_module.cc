/*!
 * \file accelerator_module.cc
 * \brief The module of kind `ahcq` inside an exported library: runs offloaded functions on a device chosen at load.
 *
 * Besides the offloaded functions it has
 * - `ahcq.configure(device, on_error, seconds)`: a name as `OpenDevice` takes it; "raise", or "host" to go on with the
 *   functional simulator on this machine, which computes the same bits; longest time of one program;
 * - `ahcq.open()`: opens the device now, and puts programs and constants into its memory; else the first call does;
 * - `ahcq.describe()`: configuration, its hash, bytes of device memory, the device's name ("" before it is opened);
 * - `ahcq.counters()`: name, calls and counters of the last call of every function, all runs of its program added up,
 *   and repeats, how often that call had the rows that the program knows of (1 where sizes are static);
 *   `ahcq.counter_names()`;
 * - `ahcq.program(name)`: the instructions of a function, for a disassembler.
 */
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/tvm_ffi.h>

#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "../device/device.h"
#include "../device/instruction.h"
#include "../device/shared_device.h"
#include "accelerator_program.h"

namespace ahcq {
namespace {

namespace ffi = tvm::ffi;

struct Counter {
  const char* name;
  uint32_t offset;
};
constexpr Counter kCounters[] = {
    {"cycles", isa::reg::kCycles},          {"array_busy", isa::reg::kArrayBusy},
    {"load_busy", isa::reg::kLoadBusy},     {"gemm_busy", isa::reg::kGemmBusy},
    {"vector_busy", isa::reg::kVectorBusy}, {"store_busy", isa::reg::kStoreBusy},
    {"load_chunks", isa::reg::kLoadChunks}, {"store_chunks", isa::reg::kStoreChunks},
};

/*! \brief How often a call has a program's rows, by the size of its first input; `Elements` checks all tensors. */
size_t Repeats(const AcceleratorFunction& function, const DLTensor* first) {
  if (!function.batched) return 1;
  size_t elements = 1;
  for (int i = 0; i < first->ndim; ++i) elements *= static_cast<size_t>(first->shape[i]);
  return elements / function.inputs[0].Elements();
}

/*! \brief A tensor's first element, once it is what a function takes. */
template <typename Element>
Element* Elements(const DLTensor* tensor, uint8_t code, size_t count, const std::string& name) {
  bool dense = true;
  int64_t stride = 1;
  for (int i = tensor->ndim - 1; i >= 0; --i) {
    dense = dense && (tensor->strides == nullptr || tensor->shape[i] == 1 || tensor->strides[i] == stride);
    stride *= tensor->shape[i];
  }
  const bool type = tensor->dtype.code == code && tensor->dtype.bits == 8 * sizeof(Element) && tensor->dtype.lanes == 1;
  if (!dense || !type || stride != static_cast<int64_t>(count) || tensor->device.device_type != kDLCPU) {
    TVM_FFI_THROW(ValueError) << name << " takes dense tensors on the host of the type and size it was compiled for, "
                              << count << " elements; got " << stride;
  }
  return reinterpret_cast<Element*>(static_cast<char*>(tensor->data) + tensor->byte_offset);
}

class AcceleratorModule : public ffi::ModuleObj {
 public:
  explicit AcceleratorModule(std::string bytes) : bytes_(std::move(bytes)) {
    programs_ = AcceleratorPrograms::Parse(bytes_.data(), bytes_.size());
    device_name_ = "fsim";
    for (const AcceleratorFunction& function : programs_.functions) calls_[function.name] = {};
  }

  const char* kind() const final { return "ahcq"; }
  int GetPropertyMask() const final { return ffi::Module::kBinarySerializable | ffi::Module::kRunnable; }
  ffi::Bytes SaveToBytes() const final { return ffi::Bytes(bytes_); }

  ffi::Optional<ffi::Function> GetFunction(const ffi::String& name) final {
    const std::string text = name;
    ffi::ObjectPtr<ffi::Object> self = ffi::GetObjectPtr<ffi::Object>(this);
    if (text == "ahcq.configure") {
      return ffi::Function::FromTyped([self, this](const ffi::String& device, const ffi::String& on_error,
                                                   double seconds) { Configure(device, on_error, seconds); });
    }
    if (text == "ahcq.open") return ffi::Function::FromTyped([self, this] { OpenNow(); });
    if (text == "ahcq.describe") return ffi::Function::FromTyped([self, this] { return Describe(); });
    if (text == "ahcq.counters") return ffi::Function::FromTyped([self, this] { return Counters(); });
    if (text == "ahcq.counter_names") return ffi::Function::FromTyped([] { return CounterNames(); });
    if (text == "ahcq.program") {
      return ffi::Function::FromTyped([self, this](const ffi::String& function) { return Program(function); });
    }
    for (const AcceleratorFunction& function : programs_.functions) {
      if (function.name != text) continue;
      return ffi::Function::FromPacked([self, this, &function](const ffi::AnyView* args, int32_t count, ffi::Any*) {
        Call(function, args, static_cast<size_t>(count));
      });
    }
    return std::nullopt;
  }

 private:
  /*! \brief What a call takes and gives. */
  struct Tensors {
    size_t repeats = 1;
    std::vector<const uint8_t*> inputs;
    float* result = nullptr;
  };

  struct Calls {
    int64_t count = 0, repeats = 0;
    std::vector<int64_t> counters = std::vector<int64_t>(std::size(kCounters));
  };

  void Configure(const std::string& device, const std::string& on_error, double seconds) {
    const std::lock_guard<std::mutex> guard(mutex_);
    if (on_error != "raise" && on_error != "host") {
      TVM_FFI_THROW(ValueError) << "on_error is '" << on_error << "'; expected 'raise' or 'host'";
    }
    device_name_ = device;
    fall_back_ = on_error == "host";
    seconds_ = seconds;
    device_.reset();
  }

  void OpenNow() {
    const std::lock_guard<std::mutex> guard(mutex_);
    try {
      Ready();
    } catch (const DeviceError& error) {
      if (!fall_back_) TVM_FFI_THROW(DeviceError) << error.what();
      FallBack(error.what());
      Ready();
    }
  }

  ffi::Array<ffi::Any> Describe() {
    const std::lock_guard<std::mutex> guard(mutex_);
    return {ffi::String(programs_.config), int64_t{programs_.config_hash},
            static_cast<int64_t>(programs_.MemoryBytes()), ffi::String(DeviceName())};
  }

  std::string DeviceName() const {
    const auto lock = device_.Lock();
    return device_ == nullptr ? "" : device_->Name();
  }

  static ffi::Array<ffi::String> CounterNames() {
    ffi::Array<ffi::String> names;
    for (const Counter& counter : kCounters) names.push_back(counter.name);
    return names;
  }

  ffi::Array<ffi::Any> Counters() {
    const std::lock_guard<std::mutex> guard(mutex_);
    ffi::Array<ffi::Any> all;
    for (const AcceleratorFunction& function : programs_.functions) {
      const Calls& calls = calls_[function.name];
      ffi::Array<ffi::Any> entry = {ffi::String(function.name), calls.count};
      for (int64_t value : calls.counters) entry.push_back(value);
      entry.push_back(calls.repeats);
      all.push_back(entry);
    }
    return all;
  }

  ffi::Bytes Program(const std::string& name) const {
    for (const AcceleratorFunction& function : programs_.functions) {
      if (function.name != name) continue;
      return ffi::Bytes(programs_.constants.data() + function.program, size_t{function.length} * Instruction::kBytes);
    }
    TVM_FFI_THROW(ValueError) << "nothing offloaded is called '" << name << "'";
    TVM_FFI_UNREACHABLE();
  }

  void Call(const AcceleratorFunction& function, const ffi::AnyView* args, size_t count) {
    std::vector<DLTensor*> given;  // TVM also passes what its compiler needs to know symbolic sizes by: shapes
    for (size_t i = 0; i < count; ++i) {
      if (!args[i].as<ffi::Shape>().has_value()) given.push_back(args[i].cast<DLTensor*>());
    }
    if (given.size() != function.inputs.size() + 1) {
      TVM_FFI_THROW(TypeError) << function.name << " takes " << function.inputs.size() << " inputs and a result; got "
                               << given.size() << " tensors";
    }
    const std::lock_guard<std::mutex> guard(mutex_);
    Tensors tensors;
    tensors.repeats = Repeats(function, given[0]);
    for (size_t i = 0; i < function.inputs.size(); ++i) {
      const size_t elements = tensors.repeats * function.inputs[i].Elements();
      tensors.inputs.push_back(Elements<uint8_t>(given[i], kDLUInt, elements, function.name));
    }
    const size_t elements = tensors.repeats * function.output.Elements();
    tensors.result = Elements<float>(given.back(), kDLFloat, elements, function.name);
    try {
      const auto lock = Ready();
      Run(function, tensors);
    } catch (const DeviceError& error) {
      if (!fall_back_) {
        device_.Fail();  // whatever state it is in; opened anew by the next call
        TVM_FFI_THROW(DeviceError) << function.name << ": " << error.what();
      }
      FallBack(error.what());
      Retry(function, tensors);
    }
  }

  /*! \brief From here on, the functional simulator stands in for the device. */
  void FallBack(const char* reason) {
    std::fprintf(stderr, "tvm-ahcq: %s: %s; going on with the functional simulator on the host\n", device_name_.c_str(),
                 reason);
    device_.Fail();
    device_name_ = "fsim";
    fall_back_ = false;
  }

  void Retry(const AcceleratorFunction& function, const Tensors& tensors) {
    try {
      const auto lock = Ready();
      Run(function, tensors);
    } catch (const DeviceError& error) {
      TVM_FFI_THROW(DeviceError) << function.name << ": " << error.what();
    }
  }

  /*! \brief All runs of a program; their counters add up. */
  void Run(const AcceleratorFunction& function, const Tensors& tensors) {
    std::vector<int64_t> counters(std::size(kCounters));
    const OutputLayout& output = function.output;
    std::vector<int32_t> sums(output.DeviceBytes() / 4);
    for (size_t run = 0; run < function.Runs(tensors.repeats); ++run) {
      for (size_t i = 0; i < tensors.inputs.size(); ++i) {
        const std::vector<uint8_t> packed = Pack(function, i, tensors, run);
        device_->CopyIn(base_ + function.inputs[i].address, packed.data(), packed.size());
      }
      device_->Run(base_ + programs_.scratch_bytes + function.program, function.length, seconds_);
      device_->CopyOut(base_ + output.address, sums.data(), output.DeviceBytes());
      output.Unpack(sums.data(), run, tensors.repeats * output.total, tensors.result);
      for (size_t i = 0; i < std::size(kCounters); ++i) counters[i] += device_->ReadRegister(kCounters[i].offset);
    }
    Calls& calls = calls_[function.name];
    ++calls.count;
    calls.repeats = static_cast<int64_t>(tensors.repeats);
    calls.counters = std::move(counters);
  }

  static std::vector<uint8_t> Pack(const AcceleratorFunction& function, size_t input, const Tensors& tensors,
                                   size_t run) {
    try {
      const InputLayout& given = function.inputs[input];
      return given.Pack(tensors.inputs[input], run, tensors.repeats * given.total);
    } catch (const ProgramImageError& error) {
      TVM_FFI_THROW(ValueError) << function.name << ": " << error.what();
    }
    TVM_FFI_UNREACHABLE();
  }

  /*! \brief The device, opened if it is not, for this module alone while the lock is held. */
  std::unique_lock<std::mutex> Ready() {
    auto lock = device_.Lock();
    if (device_ != nullptr) return lock;
    if (lock.owns_lock()) lock.unlock();
    device_.Open(FullName());
    lock = device_.Lock();
    if (device_ == nullptr) throw DeviceError(device_name_ + ": the device has just failed for another user");
    try {
      Load();
    } catch (...) {  // another user's programs may run on it none the less
      lock.unlock();
      device_.reset();
      throw;
    }
    return lock;
  }

  /*! \brief Puts programs and constants into the device's memory. */
  void Load() {
    device_->RequireConfig(programs_.config_hash);
    device_->MakeIdle();
    base_ = device_->Allocate(programs_.MemoryBytes());
    std::string constants = programs_.constants;
    if (base_ != 0) {
      for (const AcceleratorFunction& function : programs_.functions) {
        Relocate(reinterpret_cast<uint8_t*>(&constants[function.program]), function.length,
                 static_cast<uint32_t>(base_));
      }
    }
    device_->CopyIn(base_ + programs_.scratch_bytes, constants.data(), constants.size());
  }

  /*!
   * \brief The device's name, a simulated one with the configuration and memory that the programs need.
   *
   * `rtl` without options stays as it is where it is near: it needs the library, which Python builds.
   */
  std::string FullName() const {
    const size_t slash = device_name_.rfind("rpc:", 0) == 0 ? device_name_.find('/') : std::string::npos;
    const std::string place = slash == std::string::npos ? "" : device_name_.substr(0, slash + 1);
    std::string name = device_name_.substr(place.size());
    const std::string backend = name.substr(0, name.find(':'));
    if (backend != "fsim" && backend != "rtl") return device_name_;
    if (name == "fsim" || (name == "rtl" && !place.empty())) name += ":" + programs_.config;
    if (name.find("memory=") == std::string::npos) {
      constexpr uint64_t kPage = 4096;
      name += ",memory=" + std::to_string((programs_.MemoryBytes() + kPage - 1) / kPage * kPage);
    }
    return place + name;
  }

  std::string bytes_;
  AcceleratorPrograms programs_;
  std::mutex mutex_;
  std::string device_name_;
  bool fall_back_ = false;
  double seconds_ = 600;
  SharedDevice device_;
  uint64_t base_ = 0;
  std::map<std::string, Calls> calls_;
};

ffi::Module Load(const ffi::Bytes& bytes) {
  try {
    return ffi::Module(ffi::make_object<AcceleratorModule>(std::string(bytes.data(), bytes.size())));
  } catch (const ProgramImageError& error) {
    TVM_FFI_THROW(DeviceError) << "programs for the accelerator cannot be used: " << error.what()
                               << "; compile the model again";
  }
  TVM_FFI_UNREACHABLE();
}

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::GlobalDef()
      .def("ahcq.accelerator_module", Load, "Module of what codegen/lower/program_image.py wrote.")
      .def("ffi.Module.load_from_bytes.ahcq", Load, "The same, for libraries that embed it.");
}

}  // namespace
}  // namespace ahcq
