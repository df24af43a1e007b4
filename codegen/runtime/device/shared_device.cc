/*!
 * \file shared_device.cc
 * \brief Which boards are open in this process.
 */
#include "shared_device.h"

#include <map>

namespace ahcq {
namespace {

/*! \brief Whether the name says a board, near or behind a server. */
bool IsBoard(const std::string& name) {
  const size_t slash = name.rfind("rpc:", 0) == 0 ? name.find('/') : std::string::npos;
  return name.compare(slash == std::string::npos ? 0 : slash + 1, 5, "board") == 0;
}

}  // namespace

void SharedDevice::Open(const std::string& name) {
  static std::mutex mutex;
  static auto* boards = new std::map<std::string, std::weak_ptr<Shared>>();  // users may outlive static objects
  shared_.reset();
  if (!IsBoard(name)) {
    auto own = std::make_shared<Shared>();
    own->device = OpenDevice(name);
    shared_ = std::move(own);
    return;
  }
  const std::lock_guard<std::mutex> guard(mutex);
  std::shared_ptr<Shared> found = (*boards)[name].lock();
  if (found == nullptr) (*boards)[name] = found = std::make_shared<Shared>();
  const std::lock_guard<std::mutex> user(found->mutex);
  if (found->device == nullptr) found->device = OpenDevice(name);
  shared_ = std::move(found);
}

void SharedDevice::Fail() {
  if (shared_ == nullptr) return;
  {
    const std::lock_guard<std::mutex> user(shared_->mutex);
    shared_->device.reset();
  }
  shared_.reset();
}

std::unique_lock<std::mutex> SharedDevice::Lock() const {
  return shared_ == nullptr ? std::unique_lock<std::mutex>() : std::unique_lock<std::mutex>(shared_->mutex);
}

}  // namespace ahcq
