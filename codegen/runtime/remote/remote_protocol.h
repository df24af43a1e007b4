/*!
 * \file remote_protocol.h
 * \brief What a remote device and its server say to each other: one function behind TVM's RPC, bytes in and out.
 *
 * `ahcq.remote.call(device, operation, first, second, data) -> reply`. A reply begins with a byte: 0, and then what was
 * asked for; or 1, and then why not, in words. Numbers are those of a little-endian machine on both sides.
 */
#ifndef AHCQ_REMOTE_PROTOCOL_H_
#define AHCQ_REMOTE_PROTOCOL_H_

#include <cstddef>
#include <cstdint>

namespace ahcq {
namespace remote {

constexpr char kFunction[] = "ahcq.remote.call";
/*! \brief Where a server has it: from the name that a client gave to the one to open, or an error. */
constexpr char kResolve[] = "ahcq.remote.resolve";
/*! \brief Of this protocol; kHello answers with it, 4 bytes. */
constexpr uint32_t kVersion = 1;

enum class Operation : int64_t {
  kHello = 0,
  kOpen = 1,  // data: name; gives Opened and then the device's name for messages
  kClose = 2,
  kCopyIn = 3,         // first: address; data
  kCopyOut = 4,        // first: address, second: bytes
  kWriteRegister = 5,  // first: offset, second: value
  kReadRegisters = 6,  // data: offsets; gives as many values
  kSubmit = 7,         // first: program, second: length
  kWait = 8,           // first: milliseconds; gives a byte, 1 if the program has ended
  kPass = 9,
  kSetFaults = 10,  // first, second: as SetFaults
};

struct Opened {
  int64_t device;
  uint64_t memory_bytes;
  uint64_t memory_base;
};

/*! \brief Of one transfer: TVM's RPC slows down above it. */
constexpr size_t kMostBytes = size_t{1} << 18;
/*! \brief Of one wait at the server: it answers in between, so that its silence is noticed. */
constexpr int64_t kWaitMilliseconds = 500;

}  // namespace remote
}  // namespace ahcq

#endif  // AHCQ_REMOTE_PROTOCOL_H_
