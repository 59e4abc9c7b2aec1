// SPDX-License-Identifier: Apache-2.0
#include <pybind11/pybind11.h>

#include "bindings/rooms.h"

namespace fkdx {

void bind_loss(pybind11::module_&) {}

}  // namespace fkdx
