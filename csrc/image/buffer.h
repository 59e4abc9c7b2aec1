// SPDX-License-Identifier: Apache-2.0
// Working memory that only grows and starts on a cache line.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace fkdx {

// Bytes that vector code may read behind the last pixel of an image.
constexpr size_t kOverread = 192;

template <typename T>
class Buffer {
 public:
  // Room for `count` elements; what was in the buffer is lost when it has to grow.
  T* reserve(size_t count) {
    if (count > capacity_) {
      const size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
      memory_.reset();
      memory_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
      if (!memory_) throw std::bad_alloc();
      capacity_ = bytes / sizeof(T);
    }
    return memory_.get();
  }

  T* data() { return memory_.get(); }
  const T* data() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(T* memory) const { std::free(memory); }
  };
  std::unique_ptr<T, Free> memory_;
  size_t capacity_ = 0;
};

}  // namespace fkdx
