/*!
 * \file main.cc
 * \brief Runs the image encoder of an unpacked bundle on processor and accelerator, without Python.
 *
 * Everything goes through tvm_ffi: functions are found by name, tensors and modules are its objects. README.md says how
 * to build and run it.
 */
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/tvm_ffi.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace ffi = tvm::ffi;

namespace {

struct Options {
  std::string folder;
  std::string device = "fsim";
  std::string on_error = "raise";
  std::string image;  // file of raw float32; the golden image if empty
  std::string output;
};

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const std::array<std::pair<const char*, std::string*>, 4> named = {{{"--device", &options.device},
                                                                        {"--on-device-error", &options.on_error},
                                                                        {"--image", &options.image},
                                                                        {"--output", &options.output}}};
    std::string* value = options.folder.empty() ? &options.folder : nullptr;
    bool takes_next = false;
    for (const auto& [name, place] : named) {
      if (argument == name) {
        value = place;
        takes_next = true;
      }
    }
    if (value == nullptr || (takes_next && i + 1 == argc) || (!takes_next && argument[0] == '-')) {
      throw std::runtime_error("'" + argument + "' is not understood");
    }
    *value = takes_next ? argv[++i] : argument;
  }
  if (options.folder.empty()) throw std::runtime_error("no folder was given");
  return options;
}

ffi::Function Global(const char* name) {
  const auto found = ffi::Function::GetGlobal(name);
  if (!found) throw std::runtime_error(std::string("no loaded library has the function ") + name);
  return *found;
}

ffi::Function Member(const ffi::Module& module, const char* name) {
  const ffi::Optional<ffi::Function> found = module->GetFunction(name);
  if (!found.has_value()) throw std::runtime_error(std::string("the library has no function ") + name);
  return found.value();
}

ffi::Map<ffi::String, ffi::Tensor> LoadTensors(const std::string& path) {
  return Global("runtime.LoadParamsFromFile")(path).cast<ffi::Map<ffi::String, ffi::Tensor>>();
}

size_t Bytes(const ffi::Tensor& tensor) {
  size_t count = tensor.dtype().bits / 8;
  for (int64_t size : tensor.shape()) count *= static_cast<size_t>(size);
  return count;
}

/*! \brief The golden image; with other pixels if a file of them was given. */
ffi::Tensor LoadImage(const Options& options) {
  ffi::Tensor image = LoadTensors(options.folder + "/golden.params")["image"];
  if (options.image.empty()) return image;
  std::ifstream file(options.image, std::ios::binary);
  file.read(static_cast<char*>(image.data_ptr()), static_cast<std::streamsize>(Bytes(image)));
  if (!file || file.peek() != std::ifstream::traits_type::eof()) {
    throw std::runtime_error(options.image + " cannot be read, or has not the " + std::to_string(Bytes(image)) +
                             " bytes of an image");
  }
  return image;
}

/*! \brief CRC-32 as zlib computes it: `zlib.crc32(embedding.tobytes())` in Python gives the same. */
uint32_t Checksum(const ffi::Tensor& tensor) {
  const uint8_t* data = static_cast<const uint8_t*>(tensor.data_ptr());
  uint32_t crc = UINT32_MAX;
  for (size_t i = 0; i < Bytes(tensor); ++i) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xedb88320) : 0);
  }
  return ~crc;
}

/*! \brief The modules with the accelerator's programs inside a library. */
std::vector<ffi::Module> Accelerators(const ffi::Module& library) {
  std::vector<ffi::Module> found;
  for (const ffi::Any& each : library->imports()) {
    const ffi::Module module = each.cast<ffi::Module>();
    if (std::strcmp(module->kind(), "ahcq") == 0) found.push_back(module);
  }
  return found;
}

void Run(const Options& options) {
  // 1. The compiled functions. What was offloaded lies inside, as a module of its own that a device runs.
  Global("ahcq.runtime.request_amx")();  // kernels for AMX need the kernel's permission; without AMX it does nothing
  const ffi::Module library = ffi::Module::LoadFromFile(options.folder + "/library.so");
  const std::vector<ffi::Module> accelerators = Accelerators(library);
  for (const ffi::Module& module : accelerators) {
    constexpr double kSeconds = 600;  // longest time of one program
    Member(module, "ahcq.configure")(options.device, options.on_error, kSeconds);
    Member(module, "ahcq.open")();  // without this, the first call opens the device
  }

  // 2. The virtual machine that calls them: on the processor, with an allocator that keeps memory for the next call.
  const ffi::Module machine = Member(library, "vm_load_executable")().cast<ffi::Module>();
  constexpr int kCpu = 1, kFirst = 0, kPooled = 2;
  Member(machine, "vm_initialization")(kCpu, kFirst, kPooled);

  // 3. Its arguments: the image, then the parameters in their order.
  std::vector<ffi::Any> arguments = {LoadImage(options)};
  const ffi::Map<ffi::String, ffi::Tensor> parameters = LoadTensors(options.folder + "/encode_image.params");
  for (size_t i = 0; i < parameters.size(); ++i) {
    char name[24];
    std::snprintf(name, sizeof name, "%04zu", i);
    arguments.push_back(parameters[name]);
  }
  const std::vector<ffi::AnyView> views(arguments.begin(), arguments.end());

  // 4. Run, and say what came out. A second call would not send the weights to the device again.
  ffi::Any result;
  Member(machine, "encode_image").CallPacked(views.data(), static_cast<int32_t>(views.size()), &result);
  const ffi::Tensor embedding =
      result.as<ffi::Tensor>() ? result.cast<ffi::Tensor>() : result.cast<ffi::Array<ffi::Tensor>>()[0];
  std::printf("embedding crc32 %08x, %zu bytes\n", Checksum(embedding), Bytes(embedding));
  for (const ffi::Module& module : accelerators) {
    const auto described = Member(module, "ahcq.describe")().cast<ffi::Array<ffi::Any>>();
    int64_t cycles = 0;
    for (const ffi::Any& entry : Member(module, "ahcq.counters")().cast<ffi::Array<ffi::Any>>()) {
      cycles += entry.cast<ffi::Array<ffi::Any>>()[2].cast<int64_t>();  // name, calls, cycles, ...
    }
    std::printf("device %s, %lld cycles\n", described[3].cast<ffi::String>().c_str(), static_cast<long long>(cycles));
  }
  if (options.output.empty()) return;
  std::ofstream file(options.output, std::ios::binary);
  file.write(static_cast<const char*>(embedding.data_ptr()), static_cast<std::streamsize>(Bytes(embedding)));
  if (!file.flush()) throw std::runtime_error(options.output + " cannot be written");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    Run(Parse(argc, argv));
  } catch (const ffi::Error& error) {  // a device that is absent or fails, a damaged library, ...
    std::fprintf(stderr, "run_encoder: %s: %s\n", error.kind().c_str(), error.message().c_str());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr,
                 "run_encoder: %s\nusage: run_encoder FOLDER [--device fsim] [--on-device-error raise|host] "
                 "[--image F.f32] [--output F.f32]\n",
                 error.what());
    return 2;
  }
  return 0;
}
