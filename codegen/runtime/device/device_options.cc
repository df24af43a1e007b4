/*!
 * \file device_options.cc
 * \brief Reads the options in the name of a device.
 */
#include "device_options.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>

namespace ahcq {

DeviceOptions::DeviceOptions(const std::string& text, const std::vector<std::string>& names) {
  std::string known;
  for (const std::string& name : names) known += (known.empty() ? "" : ", ") + name;
  size_t unnamed = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, end - at);
    const size_t equals = part.find('=');
    const bool named = equals != std::string::npos;
    if (!named && unnamed >= names.size()) throw DeviceError("'" + part + "' is one value too many; options: " + known);
    const std::string name = named ? part.substr(0, equals) : names[unnamed++];
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      throw DeviceError("a device of this kind has no option '" + name + "'; it has " + known);
    }
    if (!values_.emplace(name, named ? part.substr(equals + 1) : part).second) {
      throw DeviceError("option '" + name + "' is given twice");
    }
    at = end + 1;
  }
}

std::string DeviceOptions::Text(const std::string& name, const std::string& missing) const {
  const auto found = values_.find(name);
  return found == values_.end() ? missing : found->second;
}

uint64_t DeviceOptions::Number(const std::string& name, uint64_t missing, uint64_t least, uint64_t most) const {
  if (!Has(name)) return missing;
  const std::string text = Text(name);
  char* end = nullptr;
  errno = 0;
  const uint64_t value = std::strtoull(text.c_str(), &end, 0);
  const bool digits = !text.empty() && text[0] >= '0' && text[0] <= '9';
  if (errno != 0 || !digits || *end != '\0' || value < least || value > most) {
    throw DeviceError("option " + name + " is '" + text + "'; expected a whole number from " + std::to_string(least) +
                      " to " + std::to_string(most));
  }
  return value;
}

}  // namespace ahcq
