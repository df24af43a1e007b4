/*!
 * \file board_device.cc
 * \brief The accelerator on a Linux board: registers through UIO, memory through a physically contiguous DMA buffer.
 *
 * The registers are map 0 of a UIO device (drivers `uio_pdrv_genirq` or `uio_dmem_genirq`), the memory is a buffer of
 * the `u-dma-buf` driver (`/dev/udmabuf0`), which tells its physical address and size in sysfs. UNTESTED ON SILICON:
 * what is exercised is this code against files that stand for both devices (devices/mock_board.py).
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "../device/device_options.h"

namespace ahcq {
namespace {

constexpr size_t kRegisterBytes = 4096;  // a page, the least that can be mapped
constexpr uint32_t kId = 0x41484351;     // "AHCQ"
constexpr int kPollMilliseconds = 5;     // how long a wait for the interrupt lasts
constexpr int kReadbackMicroseconds = 10;
constexpr std::chrono::seconds kCommand{2};  // how long a command may take to be obeyed

std::string Reason() { return std::strerror(errno); }

/*! \brief An open file, mapped for reading and writing. */
class Mapping {
 public:
  Mapping(const std::string& path, size_t bytes, const std::string& what) : path_(path) {
    descriptor_ = open(path.c_str(), O_RDWR | O_SYNC);  // O_SYNC: u-dma-buf then maps without the cache
    if (descriptor_ < 0) throw DeviceError("the " + what + " " + path + " cannot be opened: " + Reason());
    struct stat status;
    regular_ = fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode);
    if (bytes == 0 && regular_) bytes = static_cast<size_t>(status.st_size);
    bytes_ = bytes;
    if (bytes_ != 0) data_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor_, 0);
    if (bytes_ == 0 || data_ == MAP_FAILED || (regular_ && static_cast<size_t>(status.st_size) < bytes_)) {
      const std::string reason = bytes_ == 0 ? "its size is unknown or 0" : "it is too small, or " + Reason();
      Close();
      throw DeviceError("the " + what + " " + path + " cannot be mapped: " + reason);
    }
  }
  ~Mapping() { Close(); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  uint8_t* data() const { return static_cast<uint8_t*>(data_); }
  size_t size() const { return bytes_; }
  int descriptor() const { return descriptor_; }
  /*! \brief A file that stands for a device: nothing interrupts, nothing says a physical address. */
  bool regular() const { return regular_; }

 private:
  void Close() {
    if (data_ != nullptr && data_ != MAP_FAILED) munmap(data_, bytes_);
    if (descriptor_ >= 0) close(descriptor_);
    data_ = nullptr;
    descriptor_ = -1;
  }

  std::string path_;
  int descriptor_ = -1;
  void* data_ = nullptr;
  size_t bytes_ = 0;
  bool regular_ = false;
};

/*! \brief A number that the u-dma-buf driver tells of its buffer; `missing` for a plain file. */
uint64_t BufferAttribute(const std::string& path, const std::string& attribute, uint64_t missing) {
  const std::string name = path.substr(path.find_last_of('/') + 1);
  std::ifstream file("/sys/class/u-dma-buf/" + name + "/" + attribute);
  std::string text;
  return file >> text ? std::strtoull(text.c_str(), nullptr, 0) : missing;
}

class BoardDevice : public Device {
 public:
  explicit BoardDevice(const DeviceOptions& options)
      : registers_(options.Text("registers"), kRegisterBytes, "register file"),
        memory_(options.Text("memory"), BufferAttribute(options.Text("memory"), "size", 0), "DMA buffer"),
        base_(BufferAttribute(options.Text("memory"), "phys_addr", 0)),
        name_("board (" + options.Text("registers") + ")") {
    if (base_ + memory_.size() > kMaxMemory) {
      throw DeviceError(Name() + ": the DMA buffer ends at " + std::to_string(base_ + memory_.size()) +
                        "; the accelerator addresses 32 bits: reserve it below 4 GiB");
    }
    if (!memory_.regular() && base_ == 0) {
      throw DeviceError(Name() + ": " + options.Text("memory") + " has no phys_addr in /sys/class/u-dma-buf");
    }
    if (base_ % 64 != 0) throw DeviceError(Name() + ": the DMA buffer must start at a multiple of 64 bytes");
    if (flock(registers_.descriptor(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      throw DeviceError(Name() + ": the accelerator is in use already; close it there first");
    }
    if (ReadRegister(isa::reg::kId) != kId) {
      throw DeviceError(Name() + ": no accelerator answers; is the bit stream loaded, and this the right UIO device?");
    }
    if (ReadRegister(isa::reg::kVersion) != isa::kVersion) {
      throw DeviceError(Name() + ": the accelerator has version " + std::to_string(ReadRegister(isa::reg::kVersion)) +
                        ", this driver is for version " + std::to_string(isa::kVersion));
    }
    if (options.Has("config")) RequireConfig(HashOf(options.Text("config")));
    WriteRegister(isa::reg::kIrqEnable, registers_.regular() ? 0 : 1);
  }

  std::string Name() const override { return name_; }
  size_t MemoryBytes() const override { return memory_.size(); }
  uint64_t MemoryBase() const override { return base_; }

  void CopyIn(uint64_t address, const void* data, size_t bytes) override {
    std::memcpy(At(address, bytes), data, bytes);
    std::atomic_thread_fence(std::memory_order_seq_cst);  // before the register write that starts the program
  }
  void CopyOut(uint64_t address, void* data, size_t bytes) override {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    std::memcpy(data, At(address, bytes), bytes);
  }

  void WriteRegister(uint32_t offset, uint32_t value) override {
    if (offset == isa::reg::kControl) *Register(isa::reg::kIrqStatus) = 1;  // the interrupt of the program before
    std::atomic_thread_fence(std::memory_order_seq_cst);
    *Register(offset) = value;
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (offset != isa::reg::kControl) return;
    // posted writes: what is read after this must be what the command made of it; `control` itself reads as 0
    const auto end = std::chrono::steady_clock::now() + kCommand;
    while (*Register(offset) != 0) {
      if (std::chrono::steady_clock::now() > end) {
        throw DeviceError(Name() + ": the accelerator does not take commands; load its bit stream again");
      }
      usleep(kReadbackMicroseconds);
    }
  }

  uint32_t ReadRegister(uint32_t offset) override {
    const uint32_t value = *Register(offset);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return value;
  }

  void Pass() override {
    if (registers_.regular()) {
      usleep(200);
      return;
    }
    // UIO: writing 1 arms the interrupt, a read of 4 bytes takes it
    const uint32_t arm = 1;
    if (write(registers_.descriptor(), &arm, sizeof arm) != sizeof arm) {
      usleep(1000 * kPollMilliseconds);  // a device without an interrupt: poll the status
      return;
    }
    pollfd wait = {registers_.descriptor(), POLLIN, 0};
    uint32_t count;
    if (poll(&wait, 1, kPollMilliseconds) == 1 && read(registers_.descriptor(), &count, sizeof count) < 0) {
      throw DeviceError(Name() + ": the interrupt cannot be read: " + Reason());
    }
  }

 private:
  static uint32_t HashOf(const std::string& name) {
    for (const isa::Config& config : isa::kConfigs) {
      if (name == config.name) return config.hash;
    }
    throw DeviceError("no accelerator configuration is called '" + name + "'");
  }

  volatile uint32_t* Register(uint32_t offset) {
    return reinterpret_cast<volatile uint32_t*>(registers_.data() + offset % kRegisterBytes);
  }

  uint8_t* At(uint64_t address, size_t bytes) {
    const uint64_t at = address - base_;
    if (address < base_ || bytes > memory_.size() || at > memory_.size() - bytes) {
      throw DeviceError(Name() + ": " + std::to_string(bytes) + " bytes at " + std::to_string(address) +
                        " lie outside of the DMA buffer of " + std::to_string(memory_.size()) + " at " +
                        std::to_string(base_));
    }
    return memory_.data() + at;
  }

  Mapping registers_, memory_;
  const uint64_t base_;
  const std::string name_;
};

}  // namespace

std::unique_ptr<Device> OpenBoard(const std::string& options) {
  const DeviceOptions read(options, {"registers", "memory", "config"});
  if (!read.Has("registers") || !read.Has("memory")) {
    throw DeviceError("board needs two devices, registers and memory: board:/dev/uio0,/dev/udmabuf0");
  }
  return std::make_unique<BoardDevice>(read);
}

}  // namespace ahcq
