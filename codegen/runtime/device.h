/*!
 * \file device.h
 * \brief One interface to every accelerator: functional simulator, Verilated RTL, board.
 *
 * A back end gives memory and registers; what a driver does with them (submit, wait, reset) is written once, here.
 */
#ifndef AHCQ_DEVICE_H_
#define AHCQ_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace ahcq {

/*! \brief A device that cannot do what it was asked to. */
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Device {
 public:
  virtual ~Device() = default;

  /*! \brief Bytes of external memory. */
  virtual size_t MemoryBytes() const = 0;
  virtual void CopyIn(uint64_t address, const void* data, size_t bytes) = 0;
  virtual void CopyOut(uint64_t address, void* data, size_t bytes) = 0;
  virtual void WriteRegister(uint32_t offset, uint32_t value) = 0;
  virtual uint32_t ReadRegister(uint32_t offset) = 0;
  /*! \brief Lets the device go on for a moment. */
  virtual void Pass() = 0;

  /*!
   * \brief The next `bytes` of memory, at a multiple of 64.
   * \throws DeviceError if there are not as many.
   */
  uint64_t Allocate(size_t bytes);
  /*! \brief Gives all allocated memory back. */
  void FreeAll() { next_ = 0; }

  /*!
   * \brief Starts `length` instructions at `program`; the whole memory is the program's window.
   * \throws DeviceError if the device is busy or in an error state.
   */
  void Submit(uint64_t program, uint32_t length);
  /*!
   * \brief Waits until the program has ended.
   * \return false if it still runs after that many seconds.
   */
  bool Wait(double seconds);
  /*! \brief Back to idle from any state, once outstanding transfers are answered; false if that takes too long. */
  bool SoftReset(double seconds);

 private:
  template <typename Condition>
  bool WaitFor(Condition condition, double seconds);

  uint64_t next_ = 0;
};

}  // namespace ahcq

#endif  // AHCQ_DEVICE_H_
