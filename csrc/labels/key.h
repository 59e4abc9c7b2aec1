// SPDX-License-Identifier: Apache-2.0
// Keys: paths of images relative to the data set's folder.
#pragma once

#include <string>
#include <string_view>

namespace fkdx {

// Whether a key is valid UTF-8 and a clean relative path, see docs/format.md.
bool valid_key(std::string_view key);

// The key for an error message; bytes of a damaged one become '?'.
std::string printable_key(std::string_view key);

}  // namespace fkdx
