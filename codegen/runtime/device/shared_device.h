/*!
 * \file shared_device.h
 * \brief A device for several users of one process: a library has several modules, a machine has one board.
 */
#ifndef AHCQ_SHARED_DEVICE_H_
#define AHCQ_SHARED_DEVICE_H_

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>

#include "device.h"

namespace ahcq {

/*!
 * \brief A user's hold on a device.
 *
 * Boards are opened once: users with the same name share one, each with memory that it allocates. A simulated device
 * has as much memory as its user asked for, so each user gets one of its own.
 */
class SharedDevice {
 public:
  /*! \brief The device of that name; opened unless another user of this process has it. */
  void Open(const std::string& name);
  /*! \brief Lets go of it; the last user closes it. */
  void reset() { shared_.reset(); }
  /*! \brief Closes it for all users, because it has failed; each opens it anew. */
  void Fail();
  /*! \brief For one user at a time: to be held while a program and its memory are in use. */
  std::unique_lock<std::mutex> Lock() const;

  Device* operator->() const { return shared_->device.get(); }
  /*! \brief Whether there is none: not opened, or closed since for all users. Ask with the lock held. */
  bool operator==(std::nullptr_t) const { return shared_ == nullptr || shared_->device == nullptr; }
  bool operator!=(std::nullptr_t) const { return !(*this == nullptr); }

 private:
  struct Shared {
    std::mutex mutex;
    std::unique_ptr<Device> device;
  };
  std::shared_ptr<Shared> shared_;
};

}  // namespace ahcq

#endif  // AHCQ_SHARED_DEVICE_H_
