/*!
 * \file fsim_device.cc
 * \brief The functional simulator as a device: registers and memory as on the bus, a thread that runs programs.
 */
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "../device/device_options.h"
#include "fsim_machine.h"
#include "fsim_timing.h"

namespace ahcq {
namespace fsim {
namespace {

constexpr uint32_t kStart = 1, kReset = 2;
constexpr uint32_t kId = 0x41484351;  // "AHCQ"
constexpr uint32_t kWatchdog = 100000;
constexpr uint32_t kRegisterBytes = 0x80;
constexpr size_t kLong = 100;  // instructions

/*! \brief States of SPEC 7 that a driver can see. */
enum class Status : uint32_t { kIdle = 0, kBusy = 1, kDone = 2, kError = 4 };

class FsimDevice : public Device {
 public:
  explicit FsimDevice(const DeviceOptions& options)
      : config_(ConfigOf(options)),
        memory_(options.Number("memory", 1 << 26, Instruction::kBytes, kMaxMemory)),
        machine_(config_, &memory_, static_cast<uint32_t>(options.Number("threads", 0, 0, 256)), KernelsOf(options)),
        timed_(options.Number("timing", 1, 0, 1) != 0) {
    timing_.latency = static_cast<uint32_t>(options.Number("latency", timing_.latency, 1, 1 << 20));
    timing_.bytes_per_cycle =
        static_cast<uint32_t>(options.Number("width", 0, 0, isa::kChunkBytes * config_.bus_chunks));
    hang_ = options.Number("hang", 0);
    registers_[isa::reg::kWatchdog / 4] = kWatchdog;
  }
  ~FsimDevice() override { Join(); }

  std::string Name() const override { return std::string("fsim (") + config_.name + ")"; }
  size_t MemoryBytes() const override { return memory_.size(); }
  void CopyIn(uint64_t address, const void* data, size_t bytes) override {
    std::memcpy(At(address, bytes), data, bytes);
  }
  void CopyOut(uint64_t address, void* data, size_t bytes) override { std::memcpy(data, At(address, bytes), bytes); }
  void SetFaults(uint64_t first, uint64_t end) override { faults_ = {first, end}; }

  uint32_t ReadRegister(uint32_t offset) override {
    std::lock_guard<std::mutex> lock(mutex_);
    switch (offset) {
      case isa::reg::kId:
        return kId;
      case isa::reg::kVersion:
        return isa::kVersion;
      case isa::reg::kConfigHash:
        return config_.hash;
      case isa::reg::kControl:
        return 0;
      case isa::reg::kStatus:
        return static_cast<uint32_t>(status_);
      default:
        return offset < kRegisterBytes && offset % 4 == 0 ? registers_[offset / 4] : 0;
    }
  }

  void WriteRegister(uint32_t offset, uint32_t value) override {
    switch (offset) {
      case isa::reg::kControl:
        if (value & kReset) return Reset();
        if (value & kStart) Start();
        return;
      case isa::reg::kIrqEnable:
        return Set(offset, value & 1);
      case isa::reg::kIrqStatus:
        if (value & 1) Set(offset, 0);
        return;
      case isa::reg::kProgram:
      case isa::reg::kProgramLength:
      case isa::reg::kMemoryBase:
      case isa::reg::kMemoryLimit:
      case isa::reg::kWatchdog:
        return Set(offset, value);
      default:  // read only, or not there
        return;
    }
  }

  void Pass() override {
    std::unique_lock<std::mutex> lock(mutex_);
    ended_.wait_for(lock, std::chrono::milliseconds(5), [this] { return status_ != Status::kBusy; });
  }

 private:
  static const isa::Config& ConfigOf(const DeviceOptions& options) {
    const std::string name = options.Text("config");
    const isa::Config* config = FindConfig(name.c_str());
    if (config != nullptr) return *config;
    std::string known;
    for (const isa::Config& entry : isa::kConfigs) known += (known.empty() ? "" : ", ") + std::string(entry.name);
    throw DeviceError("no accelerator configuration is called '" + name + "'; there are " + known);
  }

  static const Kernels& KernelsOf(const DeviceOptions& options) {
    if (!options.Has("kernels")) return BestKernels();
    const Kernels* kernels = FindKernels(options.Text("kernels").c_str());
    if (kernels != nullptr) return *kernels;
    throw DeviceError("kernels '" + options.Text("kernels") + "' do not exist or cannot run on this processor");
  }

  uint8_t* At(uint64_t address, size_t bytes) {
    if (bytes > memory_.size() || address > memory_.size() - bytes) {
      throw DeviceError(Name() + ": " + std::to_string(bytes) + " bytes at " + std::to_string(address) +
                        " lie outside of the memory of " + std::to_string(memory_.size()));
    }
    return memory_.data() + address;
  }

  void Set(uint32_t offset, uint32_t value) {
    std::lock_guard<std::mutex> lock(mutex_);
    registers_[offset / 4] = value;
  }

  void Join() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    stop_ = false;
  }

  void Start() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (status_ != Status::kIdle && status_ != Status::kDone) return;
      status_ = Status::kBusy;
      registers_[isa::reg::kError / 4] = registers_[isa::reg::kErrorIndex / 4] = 0;
      for (uint32_t at = isa::reg::kCycles; at < kRegisterBytes; at += 4) registers_[at / 4] = 0;
    }
    Join();
    thread_ = std::thread(&FsimDevice::RunProgram, this);
  }

  void Reset() {
    Join();
    std::lock_guard<std::mutex> lock(mutex_);
    status_ = Status::kIdle;
    registers_[isa::reg::kError / 4] = registers_[isa::reg::kErrorIndex / 4] = 0;
  }

  void RunProgram() {
    if (hang_ != 0 && ++started_ >= hang_) {
      while (!stop_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return;  // busy until it is reset
    }
    const Window window = {ReadRegister(isa::reg::kMemoryBase), ReadRegister(isa::reg::kMemoryLimit)};
    const Program program = Decode(memory_, config_, ReadRegister(isa::reg::kProgram),
                                   ReadRegister(isa::reg::kProgramLength), window, faults_);
    Estimate estimate = {};
    std::thread timer;
    auto count = [&] { estimate = EstimateCycles(program, config_, timing_, stop_); };
    // in a thread of its own unless it is short: it needs the instructions only, not the data
    const bool aside = timed_ && program.instructions.size() >= kLong;
    if (aside) timer = std::thread(count);
    const Outcome outcome = machine_.Run(program, faults_, stop_);
    if (timed_ && !aside) count();
    if (timer.joinable()) timer.join();
    const bool watched = ReadRegister(isa::reg::kWatchdog) != 0;
    if (outcome.error == isa::Error::kDeadlock && !watched) return;  // busy until it is reset, as the hardware
    Publish(outcome, estimate);
  }

  void Publish(const Outcome& outcome, const Estimate& estimate) {
    std::lock_guard<std::mutex> lock(mutex_);
    registers_[isa::reg::kError / 4] = static_cast<uint32_t>(outcome.error);
    registers_[isa::reg::kErrorIndex / 4] = outcome.index;
    registers_[isa::reg::kCycles / 4] = estimate.cycles;
    registers_[isa::reg::kArrayBusy / 4] = outcome.array_busy;
    for (int unit = 0; unit < kUnits; ++unit) {
      registers_[isa::reg::kLoadBusy / 4 + unit] = estimate.busy[unit];
      registers_[isa::reg::kLoadStall / 4 + unit] = estimate.stall[unit];
      registers_[isa::reg::kLoadCount / 4 + unit] = outcome.count[unit];
    }
    registers_[isa::reg::kLoadChunks / 4] = outcome.load_chunks;
    registers_[isa::reg::kStoreChunks / 4] = outcome.store_chunks;
    registers_[isa::reg::kIrqStatus / 4] = 1;
    status_ = outcome.error == isa::Error::kNone ? Status::kDone : Status::kError;
    ended_.notify_all();
  }

  const isa::Config& config_;
  std::vector<uint8_t> memory_;
  Machine machine_;
  Timing timing_;
  const bool timed_;
  uint64_t hang_ = 0, started_ = 0;
  Window faults_ = {0, 0};
  std::mutex mutex_;  // of registers and status
  std::condition_variable ended_;
  uint32_t registers_[kRegisterBytes / 4] = {};
  Status status_ = Status::kIdle;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace
}  // namespace fsim

std::unique_ptr<Device> OpenFsim(const std::string& options) {
  static const std::vector<std::string> kNames = {"config",  "memory", "threads", "timing",
                                                  "latency", "width",  "kernels", "hang"};
  return std::make_unique<fsim::FsimDevice>(DeviceOptions(options, kNames));
}

}  // namespace ahcq
