// SPDX-License-Identifier: Apache-2.0
// A row's target on the CPU: base, mass, and the classes above the base, each once.
#pragma once

#include <vector>

#include "loss/loss.h"

namespace fkdx {

struct Entry {
  int64_t id;
  double delta;
};

struct RowTarget {
  double base = 0, mass = 0;
  std::vector<Entry> entries;

  // Reads row `row` of the batch from all sources. Throws std::out_of_range for an id outside [0, classes).
  void read(const LossCall& call, int64_t row);

 private:
  void add(const LossCall& call, const Source& source, int64_t row);
  bool named_twice() const;
  void merge();
};

double load_float(const void* from, Float type, int64_t index);
int64_t load_int(const void* from, Int type, int64_t index);

}  // namespace fkdx
