/*!
 * \file device.h
 * \brief One interface to every accelerator: functional simulator, Verilated RTL, board.
 *
 * A back end gives memory and registers; what a driver does with them (submit, wait, reset) is written once, here.
 * A program runs like this, on any of them:
 *
 *     std::unique_ptr<ahcq::Device> device = ahcq::OpenDevice("fsim:ecp5_16x16,memory=67108864");
 *     device->RequireConfig(hash_of_the_program);
 *     uint64_t at = device->Allocate(bytes);           // operands, results and program, laid out from address 0
 *     ahcq::Relocate(program, length, at);             // instruction.h; only its own addresses change
 *     device->CopyIn(at, image, bytes);
 *     device->Run(at + program_offset, length, 10.0);  // throws with the name of the error code
 *     device->CopyOut(at + result_offset, result, result_bytes);
 *
 * A device is used by one thread at a time.
 */
#ifndef AHCQ_DEVICE_H_
#define AHCQ_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../isa/generated/ahcq_isa.h"

#if defined(__GNUC__)
#define AHCQ_PUBLIC __attribute__((visibility("default")))  // one type in all libraries, so that it can be caught
#else
#define AHCQ_PUBLIC
#endif

namespace ahcq {

/*! \brief A device that cannot do what it was asked to. */
class AHCQ_PUBLIC DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/*! \brief How a program ended. */
struct Ending {
  isa::Error error;
  uint32_t index;  // of the instruction; of a deadlock, the number of instructions dispatched
};

class AHCQ_PUBLIC Device {
 public:
  virtual ~Device() = default;

  /*! \brief Back end and configuration, for messages. */
  virtual std::string Name() const = 0;
  /*! \brief Bytes of external memory. */
  virtual size_t MemoryBytes() const = 0;
  /*! \brief Address of the first of them, as the device sees it: what Allocate counts from. 0 in simulation. */
  virtual uint64_t MemoryBase() const { return 0; }
  /*! \throws DeviceError if the bytes lie outside of the memory. */
  virtual void CopyIn(uint64_t address, const void* data, size_t bytes) = 0;
  virtual void CopyOut(uint64_t address, void* data, size_t bytes) = 0;
  /*! \brief Registers by byte offset, isa::reg. */
  virtual void WriteRegister(uint32_t offset, uint32_t value) = 0;
  virtual uint32_t ReadRegister(uint32_t offset) = 0;
  /*! \brief Several at once: one exchange with a device that is far away. */
  virtual std::vector<uint32_t> ReadRegisters(const std::vector<uint32_t>& offsets);
  /*! \brief Lets the device go on for a moment. */
  virtual void Pass() = 0;
  /*!
   * \brief Makes bytes [first, end) of memory answer with a bus error; none if they are equal.
   * \throws DeviceError where memory is real.
   */
  virtual void SetFaults(uint64_t first, uint64_t end);

  /*!
   * \brief The next `bytes` of memory, at a multiple of 64.
   * \throws DeviceError if there are not as many.
   */
  uint64_t Allocate(size_t bytes);
  /*! \brief Gives back what was allocated at `address`, and everything after it. */
  void Release(uint64_t address);
  /*! \brief Gives all allocated memory back. */
  void FreeAll() { next_ = 0; }

  /*!
   * \brief Starts `length` instructions at `program`; the whole memory is the program's window.
   * \throws DeviceError if the device is busy or in an error state.
   */
  virtual void Submit(uint64_t program, uint32_t length);
  /*!
   * \brief Waits until the program has ended.
   * \return false if it still runs after that many seconds.
   */
  virtual bool Wait(double seconds);
  /*! \brief How the last program ended. */
  Ending End();
  /*!
   * \brief Submits, waits, and accepts nothing but success.
   * \throws DeviceError with the error's name and the instruction's index, or if it still runs after `seconds`; the
   * device is then reset.
   */
  void Run(uint64_t program, uint32_t length, double seconds);
  /*! \brief Back to idle from any state, once outstanding transfers are answered; false if that takes too long. */
  bool SoftReset(double seconds);
  /*!
   * \brief Makes a device idle that an earlier user left busy or in an error state.
   * \throws DeviceError if it cannot be reset.
   */
  void MakeIdle();

  /*! \brief Hash of the configuration that the device was built for. */
  uint32_t ConfigHash() { return ReadRegister(isa::reg::kConfigHash); }
  /*! \throws DeviceError that names both configurations if the device's is another one. */
  void RequireConfig(uint32_t hash);

 private:
  template <typename Condition>
  bool WaitFor(Condition condition, double seconds);

  uint64_t next_ = 0;  // from MemoryBase
};

/*!
 * \brief Opens a device by name, `backend:option=value,...`; options without a name come first.
 *
 * - `fsim:<config>`, options `memory` (bytes), `threads` (0: all processors), `timing` (1: count cycles, the default;
 *   0: counters of cycles stay 0), `latency` and `width` of the memory assumed, `kernels` (generic, avx2, avx512vnni),
 *   `hang` (from the program of that number on, none ends: to try out what is done about it);
 * - `rtl:<library that hardware/simulator.py built>`, options `memory`, `latency`, `width`, `stalls`, `seed`;
 * - `board:<uio device>,<udmabuf device>`, option `config` (refuse any other);
 * - `rpc:<host>:<port>/<name>`, any of these behind TVM's RPC server on another machine (remote_device.cc). Options of
 *   the connection stand behind the port: `rpc:<host>:<port>,answer=<seconds>/<name>`, how long the server may be
 *   silent (10). `rtl` then takes the name of a configuration, and the server builds it.
 *
 * \throws DeviceError that says what is wrong with the name, or with the device.
 */
AHCQ_PUBLIC std::unique_ptr<Device> OpenDevice(const std::string& name);

/*! \brief "0x8dca1f71 (ecp5_16x16)". */
std::string DescribeConfig(uint32_t hash);
/*! \brief Name of an error code. */
const char* ErrorName(isa::Error error);

/*!
 * \brief What a library with a back end of its own exports, C linkage: `ahcq_device_abi` and `ahcq_open_device`.
 *
 * The second gets the options behind the library's name; it returns null and writes a text if it fails.
 */
constexpr uint32_t kDeviceAbi = 3;
using DeviceAbi = uint32_t (*)();
using DeviceOpener = Device* (*)(const char* options, char* error, size_t error_bytes);

}  // namespace ahcq

#endif  // AHCQ_DEVICE_H_
