/*!
 * \file device_options.h
 * \brief The options in the name of a device, and the back ends that live in this library.
 */
#ifndef AHCQ_DEVICE_OPTIONS_H_
#define AHCQ_DEVICE_OPTIONS_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "device.h"

namespace ahcq {

/*! \brief `value,value,option=value,...`: values without a name belong to the first of `names`, in order. */
class DeviceOptions {
 public:
  /*! \throws DeviceError for an option that is not one of `names`, or given twice. */
  DeviceOptions(const std::string& text, const std::vector<std::string>& names);

  bool Has(const std::string& name) const { return values_.count(name) != 0; }
  std::string Text(const std::string& name, const std::string& missing = "") const;
  /*! \throws DeviceError if it is not a whole number from `least` to `most`. */
  uint64_t Number(const std::string& name, uint64_t missing, uint64_t least = 0, uint64_t most = UINT32_MAX) const;

 private:
  std::map<std::string, std::string> values_;
};

/*! \brief Memory is addressed with 32 bits, and its end must be a number of 32 bits too. */
constexpr uint64_t kMaxMemory = UINT64_C(0xffffffc0);

std::unique_ptr<Device> OpenFsim(const std::string& options);
std::unique_ptr<Device> OpenBoard(const std::string& options);
std::unique_ptr<Device> OpenRemote(const std::string& options);

}  // namespace ahcq

#endif  // AHCQ_DEVICE_OPTIONS_H_
