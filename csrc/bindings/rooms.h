// SPDX-License-Identifier: Apache-2.0
// One function a room; each adds its part to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace fkdx {

void bind_base(pybind11::module_& m);
void bind_image(pybind11::module_& m);
void bind_labels(pybind11::module_& m);
void bind_loader(pybind11::module_& m);
void bind_stores(pybind11::module_& m);
void bind_loss(pybind11::module_& m);
void bind_batch(pybind11::module_& m);

}  // namespace fkdx
