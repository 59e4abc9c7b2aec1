// SPDX-License-Identifier: Apache-2.0
// fkdx._C: the door between Python and the rooms of csrc. Only this folder includes pybind11.
#include "bindings/rooms.h"

PYBIND11_MODULE(_C, m, pybind11::mod_gil_not_used()) {
  m.doc() = "Native part of fkdx; use it through the fkdx package.";
  fkdx::bind_base(m);
  fkdx::bind_image(m);
  fkdx::bind_labels(m);
  fkdx::bind_loader(m);
  fkdx::bind_stores(m);
  fkdx::bind_loss(m);
  fkdx::bind_batch(m);
}
