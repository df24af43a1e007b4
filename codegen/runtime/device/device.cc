/*!
 * \file device.cc
 * \brief What every driver does with memory and registers.
 */
#include "device.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>

namespace ahcq {
namespace {

constexpr uint32_t kStart = 1, kReset = 2;
constexpr uint32_t kBusy = 1, kError = 4, kResetting = 8;
constexpr uint64_t kAlignment = 64;
constexpr double kResetSeconds = 10;

bool TryReset(Device* device) {
  try {
    return device->SoftReset(kResetSeconds);
  } catch (const DeviceError&) {  // what went wrong before says more
    return false;
  }
}

}  // namespace

void Device::SetFaults(uint64_t, uint64_t) {
  throw DeviceError(Name() + ": only a simulated memory can be made to answer with bus errors");
}

std::vector<uint32_t> Device::ReadRegisters(const std::vector<uint32_t>& offsets) {
  std::vector<uint32_t> values;
  for (uint32_t offset : offsets) values.push_back(ReadRegister(offset));
  return values;
}

uint64_t Device::Allocate(size_t bytes) {
  const uint64_t at = next_;
  if (bytes > MemoryBytes() || at > MemoryBytes() - bytes) {
    throw DeviceError(Name() + ": " + std::to_string(bytes) + " bytes were asked for; " +
                      std::to_string(MemoryBytes() - std::min<uint64_t>(at, MemoryBytes())) + " of " +
                      std::to_string(MemoryBytes()) + " are free");
  }
  next_ = (at + bytes + kAlignment - 1) / kAlignment * kAlignment;
  return MemoryBase() + at;
}

void Device::Release(uint64_t address) {
  const uint64_t at = address - MemoryBase();
  if (at > next_ || at % kAlignment != 0) {
    throw DeviceError(Name() + ": nothing was allocated at address " + std::to_string(address));
  }
  next_ = at;
}

void Device::Submit(uint64_t program, uint32_t length) {
  const uint32_t status = ReadRegister(isa::reg::kStatus);
  if (status & (kBusy | kError | kResetting)) {
    throw DeviceError(Name() + ": the device has status " + std::to_string(status) + ", not idle; reset it first");
  }
  WriteRegister(isa::reg::kProgram, static_cast<uint32_t>(program));
  WriteRegister(isa::reg::kProgramLength, length);
  WriteRegister(isa::reg::kMemoryBase, static_cast<uint32_t>(MemoryBase()));
  WriteRegister(isa::reg::kMemoryLimit, static_cast<uint32_t>(MemoryBase() + MemoryBytes()));
  WriteRegister(isa::reg::kControl, kStart);
}

template <typename Condition>
bool Device::WaitFor(Condition condition, double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    Pass();
  }
  return true;
}

bool Device::Wait(double seconds) {
  return WaitFor([this] { return (ReadRegister(isa::reg::kStatus) & kBusy) == 0; }, seconds);
}

Ending Device::End() {
  const std::vector<uint32_t> values = ReadRegisters({isa::reg::kError, isa::reg::kErrorIndex});
  return {static_cast<isa::Error>(values[0]), values[1]};
}

void Device::Run(uint64_t program, uint32_t length, double seconds) {
  Submit(program, length);
  if (!Wait(seconds)) {
    char limit[32];
    std::snprintf(limit, sizeof limit, "%g", seconds);
    const bool reset = TryReset(this);
    throw DeviceError(Name() + ": the program still runs after " + limit + " s; the device " +
                      (reset ? "was reset" : "does not answer a reset either"));
  }
  const Ending end = End();
  if (end.error == isa::Error::kNone) return;
  TryReset(this);
  throw DeviceError(Name() + ": the program ended with " + ErrorName(end.error) + " at instruction " +
                    std::to_string(end.index) + " of " + std::to_string(length));
}

bool Device::SoftReset(double seconds) {
  WriteRegister(isa::reg::kControl, kReset);
  return WaitFor([this] { return (ReadRegister(isa::reg::kStatus) & kResetting) == 0; }, seconds);
}

void Device::MakeIdle() {
  if ((ReadRegister(isa::reg::kStatus) & (kBusy | kError | kResetting)) == 0 || SoftReset(kResetSeconds)) return;
  throw DeviceError(Name() + ": the device is busy and does not answer a reset; load its bit stream again");
}

void Device::RequireConfig(uint32_t hash) {
  const uint32_t found = ConfigHash();
  if (found == hash) return;
  throw DeviceError(Name() + ": the device has configuration " + DescribeConfig(found) + ", the program was made for " +
                    DescribeConfig(hash) + "; open the right device, or compile for this one");
}

std::string DescribeConfig(uint32_t hash) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", hash);
  for (const isa::Config& config : isa::kConfigs) {
    if (config.hash == hash) return std::string(text) + " (" + config.name + ")";
  }
  return std::string(text) + " (not one of ours)";
}

const char* ErrorName(isa::Error error) {
  for (const isa::Name& entry : isa::kErrorNames) {
    if (entry.value == static_cast<uint32_t>(error)) return entry.name;
  }
  return "an unknown error";
}

}  // namespace ahcq
