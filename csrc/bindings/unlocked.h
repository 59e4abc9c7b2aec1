// SPDX-License-Identifier: Apache-2.0
// The interpreter's lock, let go of while C++ works.
#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

namespace fkdx {

// While it lives, other threads of Python run. As py::gil_scoped_release, but for daemon threads that still
// work when the interpreter ends: Python 3.11 to 3.13 end a thread that asks for the lock then by unwinding
// its stack (pthread_exit), and the first destructor on the way, which must not throw, aborts the whole
// program. Such a thread sleeps here until the process is gone, as all do since Python 3.14.
//
// No py::call_guard for a constructor made of a lambda: pybind11 would register the new object within it.
class Unlocked {
 public:
  Unlocked() : thread_(PyEval_SaveThread()) {}
  ~Unlocked() {
    try {
      PyEval_RestoreThread(thread_);
    } catch (...) {
      while (true) pause();
    }
  }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  PyThreadState* const thread_;
};

}  // namespace fkdx
