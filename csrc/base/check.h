// SPDX-License-Identifier: Apache-2.0
// Error classes and the one way to raise them. Text: "function: what, got X, expected Y, path".
#pragma once

#include <cerrno>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>

namespace fkdx {

// An image that cannot be decoded as it should. Python sees fkdx.ImageError (a ValueError).
struct ImageError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// A label file that is not what it claims to be. Python sees fkdx.FormatError (a ValueError).
struct FormatError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

template <typename... Parts>
std::string message(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

// check<FormatError>(ok, "open: magic, got ", magic, ", expected ...")
template <typename Error, typename... Parts>
void check(bool ok, const Parts&... parts) {
  if (!ok) throw Error(message(parts...));
}

// Raises OSError with the current errno.
template <typename... Parts>
void check_os(bool ok, const Parts&... parts) {
  if (!ok) throw std::system_error(errno, std::generic_category(), message(parts...));
}

}  // namespace fkdx
