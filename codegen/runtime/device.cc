/*!
 * \file device.cc
 * \brief What every driver does with memory and registers.
 */
#include "device.h"

#include <chrono>
#include <string>

#include "../hardware/generated/ahcq_isa.h"

namespace ahcq {
namespace {

constexpr uint32_t kStart = 1, kReset = 2;
constexpr uint32_t kBusy = 1, kError = 4, kResetting = 8;
constexpr uint64_t kAlignment = 64;

}  // namespace

uint64_t Device::Allocate(size_t bytes) {
  uint64_t address = next_;
  if (bytes > MemoryBytes() || address > MemoryBytes() - bytes) {
    throw DeviceError(std::to_string(bytes) + " bytes were asked for; " + std::to_string(MemoryBytes() - address) +
                      " of " + std::to_string(MemoryBytes()) + " are free");
  }
  next_ = (address + bytes + kAlignment - 1) / kAlignment * kAlignment;
  return address;
}

void Device::Submit(uint64_t program, uint32_t length) {
  uint32_t status = ReadRegister(isa::reg::kStatus);
  if (status & (kBusy | kError | kResetting)) {
    throw DeviceError("the device has status " + std::to_string(status) + ", not idle; reset it first");
  }
  WriteRegister(isa::reg::kProgram, static_cast<uint32_t>(program));
  WriteRegister(isa::reg::kProgramLength, length);
  WriteRegister(isa::reg::kMemoryBase, 0);
  WriteRegister(isa::reg::kMemoryLimit, static_cast<uint32_t>(MemoryBytes()));
  WriteRegister(isa::reg::kControl, kStart);
}

template <typename Condition>
bool Device::WaitFor(Condition condition, double seconds) {
  auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    Pass();
  }
  return true;
}

bool Device::Wait(double seconds) {
  return WaitFor([this] { return (ReadRegister(isa::reg::kStatus) & kBusy) == 0; }, seconds);
}

bool Device::SoftReset(double seconds) {
  WriteRegister(isa::reg::kControl, kReset);
  return WaitFor([this] { return (ReadRegister(isa::reg::kStatus) & kResetting) == 0; }, seconds);
}

}  // namespace ahcq
