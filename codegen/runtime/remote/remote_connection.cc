/*!
 * \file remote_connection.cc
 * \brief Calls over TVM's RPC that end in time.
 */
#include "remote_connection.h"

#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/tvm_ffi.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "../device/device.h"

namespace ahcq {
namespace remote {
namespace {

namespace ffi = tvm::ffi;

constexpr std::chrono::seconds kGoodbye{1};

/*! \brief What TVM's RPC says, without the condition before it and the places in its sources behind it. */
std::string Reason(const ffi::Error& error) {
  static const std::string kCondition = " is false: ";
  const std::string message = error.message(), line = message.substr(0, message.find('\n'));
  const size_t at = line.find(kCondition);
  return at == std::string::npos ? line : line.substr(at + kCondition.size());
}

/*! \brief TVM's end of a connection; used by one thread. */
struct Client {
  std::optional<ffi::Module> session;
  std::optional<ffi::Function> call;

  void Connect(const std::string& host, int port) {
    const auto connect = ffi::Function::GetGlobal("rpc.Connect");
    if (!connect) throw DeviceError("TVM's runtime library is not loaded, or was built without RPC");
    try {
      session = (*connect)(host, port, "", false).cast<ffi::Module>();
    } catch (const ffi::Error& error) {
      throw DeviceError("no server answers there (" + Reason(error) + "); start one with `tvm-ahcq serve --port " +
                        std::to_string(port) + "`");
    }
    const ffi::Optional<ffi::Function> found = (*session)->GetFunction(kFunction);
    if (!found.has_value()) {
      throw DeviceError("the server there offers no accelerators; start `tvm-ahcq serve`, or let it load libtvm_ahcq");
    }
    call = found.value();
  }
};

}  // namespace

struct Connection::Shared {
  enum class State { kIdle, kAsked, kAnswered, kClosed };

  std::mutex mutex;
  std::condition_variable changed;
  State state = State::kIdle;
  std::function<std::string(Client*)> task;
  std::string answer;
  std::string failure;  // not empty: why there is no answer
  bool lost = false;    // and none will come any more
  bool ended = false;   // the thread, with its end of the connection

  /*! \brief Body of the thread. */
  void Run() {
    Serve();
    const std::lock_guard<std::mutex> guard(mutex);
    ended = true;
    changed.notify_all();
  }

  void Serve() {
    Client client;
    std::unique_lock<std::mutex> lock(mutex);
    while (true) {
      changed.wait(lock, [this] { return state == State::kAsked || state == State::kClosed; });
      if (state == State::kClosed) return;
      const auto current = std::move(task);
      lock.unlock();
      std::string found, problem;
      try {
        found = current(&client);
      } catch (const ffi::Error& error) {
        problem = "the connection is lost: the server ended or cannot be reached (" + Reason(error) + ")";
      } catch (const std::exception& error) {
        problem = error.what();
      }
      lock.lock();
      if (state == State::kClosed) return;
      answer = std::move(found);
      failure = std::move(problem);
      state = State::kAnswered;
      changed.notify_all();
    }
  }
};

Connection::Connection(const std::string& host, int port, double seconds)
    : place_(host + ":" + std::to_string(port)), shared_(std::make_shared<Shared>()) {
  std::thread([shared = shared_] { shared->Run(); }).detach();
  shared_->task = [host, port](Client* client) {
    client->Connect(host, port);
    return std::string();
  };
  try {
    Perform(seconds);
    const std::string version = Call(0, Operation::kHello, 0, 0, "", seconds);
    uint32_t found = 0;
    std::memcpy(&found, version.data(), std::min(version.size(), sizeof found));
    if (found != kVersion) {
      throw DeviceError(place_ + " speaks version " + std::to_string(found) + " of the protocol, this library " +
                        std::to_string(kVersion) + "; install the same tvm-ahcq on both machines");
    }
  } catch (const std::exception&) {
    Close();
    throw;
  }
}

void Connection::Close() {
  std::unique_lock<std::mutex> lock(shared_->mutex);
  shared_->state = Shared::State::kClosed;
  shared_->changed.notify_all();
  // a thread that waits for a silent server ends when that does, or with the process
  if (!shared_->lost) shared_->changed.wait_for(lock, kGoodbye, [this] { return shared_->ended; });
}

std::string Connection::Call(int64_t device, Operation operation, int64_t first, int64_t second,
                             const std::string& data, double seconds) {
  {
    const std::lock_guard<std::mutex> guard(shared_->mutex);
    if (shared_->lost) throw DeviceError(place_ + ": the connection is lost");
    shared_->task = [=](Client* client) {
      const ffi::Any reply = (*client->call)(device, static_cast<int64_t>(operation), first, second, ffi::Bytes(data));
      const ffi::Bytes bytes = reply.cast<ffi::Bytes>();
      return std::string(bytes.data(), bytes.size());
    };
  }
  const std::string reply = Perform(seconds);
  if (reply.empty()) throw DeviceError(place_ + " gave no answer");
  if (reply[0] != 0) throw DeviceError(place_ + ": " + reply.substr(1));
  return reply.substr(1);
}

std::string Connection::Perform(double seconds) {
  std::unique_lock<std::mutex> lock(shared_->mutex);
  shared_->state = Shared::State::kAsked;
  shared_->changed.notify_all();
  const auto limit = std::chrono::duration<double>(seconds);
  if (!shared_->changed.wait_for(lock, limit, [this] { return shared_->state == Shared::State::kAnswered; })) {
    shared_->lost = true;
    char text[32];
    std::snprintf(text, sizeof text, "%g", seconds);
    throw DeviceError("no answer from " + place_ + " within " + text +
                      " s: it hangs, serves another client, or cannot be reached");
  }
  shared_->state = Shared::State::kIdle;
  if (shared_->failure.empty()) return std::move(shared_->answer);
  shared_->lost = true;
  throw DeviceError(place_ + ": " + shared_->failure);
}

}  // namespace remote
}  // namespace ahcq
