/*!
 * \file remote_device.cc
 * \brief A device behind TVM's RPC server, in another process or on another machine.
 *
 * What takes several registers of a near device (start, wait, how it ended) is one exchange here.
 */
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "../device/device_options.h"
#include "remote_connection.h"

namespace ahcq {
namespace {

using remote::Operation;

constexpr uint64_t kAnswerSeconds = 10;
/*! \brief The server may have to build the simulated RTL first. */
constexpr double kBuildSeconds = 900;
/*! \brief Closing happens wherever the last user is destroyed, in Python perhaps with its lock held: not for long. */
constexpr double kCloseSeconds = 1;

/*! \brief `host:port,options/name`. */
struct Address {
  std::string host, name;
  int port;
  double answer;

  explicit Address(const std::string& text) {
    const size_t slash = std::min(text.find('/'), text.size());
    const size_t comma = std::min(text.find(','), slash);
    const size_t colon = text.rfind(':', comma == 0 ? 0 : comma - 1);
    const DeviceOptions options(comma < slash ? text.substr(comma + 1, slash - comma - 1) : "", {"answer"});
    answer = static_cast<double>(options.Number("answer", kAnswerSeconds, 1, 86400));
    name = slash < text.size() ? text.substr(slash + 1) : "";
    const std::string digits = colon < comma ? text.substr(colon + 1, comma - colon - 1) : "";
    host = colon < comma ? text.substr(0, colon) : "";
    port = digits.empty() || digits.size() > 5 || digits.find_first_not_of("0123456789") != std::string::npos
               ? 0
               : std::atoi(digits.c_str());
    if (host.empty() || name.empty() || port < 1 || port > 65535) {
      throw DeviceError("'rpc:" + text + "' is no device behind a server; expected rpc:HOST:PORT/DEVICE, such as " +
                        "rpc:192.168.1.2:9090/fsim");
    }
  }
};

class RemoteDevice : public Device {
 public:
  explicit RemoteDevice(const Address& address)
      : place_("rpc " + address.host + ":" + std::to_string(address.port)),
        answer_(address.answer),
        connection_(address.host, address.port, address.answer) {
    const double limit = address.name.rfind("rtl", 0) == 0 ? kBuildSeconds : answer_;
    const std::string reply = Call(Operation::kOpen, 0, 0, address.name, limit);
    if (reply.size() < sizeof opened_) throw DeviceError(place_ + ": the answer is no device");
    std::memcpy(&opened_, reply.data(), sizeof opened_);
    name_ = place_ + ", " + reply.substr(sizeof opened_);
  }
  ~RemoteDevice() override {
    try {
      Call(Operation::kClose, 0, 0, "", kCloseSeconds);
    } catch (const DeviceError&) {  // the server closes what belongs to a lost connection
    }
  }

  std::string Name() const override { return name_; }
  size_t MemoryBytes() const override { return static_cast<size_t>(opened_.memory_bytes); }
  uint64_t MemoryBase() const override { return opened_.memory_base; }

  void CopyIn(uint64_t address, const void* data, size_t bytes) override {
    const char* from = static_cast<const char*>(data);
    for (size_t at = 0; at < bytes; at += remote::kMostBytes) {
      const size_t count = std::min(bytes - at, remote::kMostBytes);
      Call(Operation::kCopyIn, static_cast<int64_t>(address + at), 0, std::string(from + at, count));
    }
  }

  void CopyOut(uint64_t address, void* data, size_t bytes) override {
    char* to = static_cast<char*>(data);
    for (size_t at = 0; at < bytes; at += remote::kMostBytes) {
      const size_t count = std::min(bytes - at, remote::kMostBytes);
      const std::string part =
          Call(Operation::kCopyOut, static_cast<int64_t>(address + at), static_cast<int64_t>(count));
      CheckSize(part, count);
      std::memcpy(to + at, part.data(), count);
    }
  }

  void WriteRegister(uint32_t offset, uint32_t value) override { Call(Operation::kWriteRegister, offset, value); }
  uint32_t ReadRegister(uint32_t offset) override { return ReadRegisters({offset})[0]; }
  std::vector<uint32_t> ReadRegisters(const std::vector<uint32_t>& offsets) override {
    const size_t bytes = offsets.size() * sizeof(uint32_t);
    const std::string reply =
        Call(Operation::kReadRegisters, 0, 0, std::string(reinterpret_cast<const char*>(offsets.data()), bytes));
    CheckSize(reply, bytes);
    std::vector<uint32_t> values(offsets.size());
    std::memcpy(values.data(), reply.data(), bytes);
    return values;
  }

  void Pass() override { Call(Operation::kPass); }
  void SetFaults(uint64_t first, uint64_t end) override {
    Call(Operation::kSetFaults, static_cast<int64_t>(first), static_cast<int64_t>(end));
  }
  void Submit(uint64_t program, uint32_t length) override {
    Call(Operation::kSubmit, static_cast<int64_t>(program), length);
  }

  bool Wait(double seconds) override {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (true) {
      const double left = std::chrono::duration<double>(end - std::chrono::steady_clock::now()).count();
      const double slice = std::min(std::max(left, 0.0) * 1000, static_cast<double>(remote::kWaitMilliseconds));
      const std::string reply = Call(Operation::kWait, static_cast<int64_t>(std::ceil(slice)));
      CheckSize(reply, 1);
      if (reply[0] != 0) return true;
      if (left <= 0) return false;
    }
  }

 private:
  std::string Call(Operation operation, int64_t first = 0, int64_t second = 0, const std::string& data = "",
                   double limit = 0) {
    const double seconds = limit != 0 ? limit : answer_ + remote::kWaitMilliseconds / 1e3;
    return connection_.Call(opened_.device, operation, first, second, data, seconds);
  }

  void CheckSize(const std::string& reply, size_t bytes) const {
    if (reply.size() == bytes) return;
    throw DeviceError(name_ + ": " + std::to_string(bytes) + " bytes were asked for, " + std::to_string(reply.size()) +
                      " came");
  }

  const std::string place_;
  const double answer_;
  remote::Connection connection_;
  remote::Opened opened_ = {0, 0, 0};
  std::string name_;
};

}  // namespace

std::unique_ptr<Device> OpenRemote(const std::string& options) {
  return std::make_unique<RemoteDevice>(Address(options));
}

}  // namespace ahcq
