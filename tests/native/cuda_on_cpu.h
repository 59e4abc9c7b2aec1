// SPDX-License-Identifier: Apache-2.0
// The part of CUDA that fkdx's kernels use, on the CPU: the same kernel source runs under sanitizers without
// a GPU. Blocks run one after the other. The threads of a block are fibers that take turns at barriers; where
// ThreadSanitizer looks on they are threads of the system, so that a missing barrier is a data race it
// reports.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "base/half.h"

#define FKDX_CUDA_ON_CPU
#define __host__
#define __device__
#define __global__
#define __shared__ static
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct Index {
  unsigned x, y;
};
inline thread_local Index threadIdx, blockIdx;

struct dim3 {
  unsigned x, y;
  dim3(unsigned across, unsigned down = 1) : x(across), y(down) {}
};

namespace cuda_on_cpu {

#if defined(__SANITIZE_THREAD__)

class Barrier {
 public:
  void reset(int count) { count_ = count, waiting_ = 0; }
  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    const unsigned round = round_;
    if (++waiting_ == count_) {
      waiting_ = 0;
      ++round_;
      all_.notify_all();
    } else {
      all_.wait(lock, [&] { return round_ != round; });
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable all_;
  int count_ = 0, waiting_ = 0;
  unsigned round_ = 0;
};

inline void run_block(Index block, unsigned threads, const std::function<void()>& kernel) {
  std::vector<std::thread> team;
  for (unsigned thread = 0; thread < threads; ++thread) {
    team.emplace_back([&, thread] {
      threadIdx.x = thread;
      blockIdx = block;
      kernel();
    });
  }
  for (std::thread& thread : team) thread.join();
}

#else

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(1 << 17);
  bool done = false;
};
inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline const std::function<void()>* running_kernel;
inline unsigned steps;  // a turn in which no fiber takes a step is a deadlock

class Barrier {
 public:
  void reset(int count) { count_ = count, waiting_ = 0; }
  void wait() {
    const unsigned round = round_, me = threadIdx.x;
    ++steps;
    if (++waiting_ == count_) {
      waiting_ = 0;
      ++round_;
      return;
    }
    while (round_ == round) swapcontext(&fibers[me].context, &scheduler);
  }

 private:
  int count_ = 0, waiting_ = 0;
  unsigned round_ = 0;
};

inline void run_fiber() {
  (*running_kernel)();
  ++steps;
  fibers[threadIdx.x].done = true;
}

inline void run_block(Index block, unsigned threads, const std::function<void()>& kernel) {
  if (fibers.size() < threads) fibers.resize(threads);
  running_kernel = &kernel;
  blockIdx = block;
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, run_fiber, 0);
  }
  for (unsigned alive = threads; alive;) {
    const unsigned before = steps;
    alive = 0;
    for (unsigned i = 0; i < threads; ++i) {
      if (fibers[i].done) continue;
      threadIdx.x = i;
      swapcontext(&scheduler, &fibers[i].context);
      alive += !fibers[i].done;
    }
    if (alive && steps == before) {
      std::fprintf(stderr, "deadlock: %u threads wait at a barrier that others never reach\n", alive);
      std::abort();
    }
  }
}

#endif

struct Warp {
  Barrier barrier;
  uint64_t slots[32];
};

inline Barrier block_barrier;
inline Warp warps[32];

template <typename T>
T exchange(T value, unsigned from) {
  Warp& warp = warps[threadIdx.x / 32];
  std::memcpy(&warp.slots[threadIdx.x % 32], &value, sizeof(value));
  warp.barrier.wait();
  T other;
  std::memcpy(&other, &warp.slots[from], sizeof(other));
  warp.barrier.wait();
  return other;
}

// Runs kernel(args) for blocks.x times blocks.y blocks of `threads` threads, a multiple of 32.
template <typename Kernel, typename Args>
void launch(Kernel kernel, Index blocks, unsigned threads, const Args& args) {
  for (unsigned block = 0; block < blocks.x * blocks.y; ++block) {
    block_barrier.reset(threads);
    for (unsigned w = 0; w < threads / 32; ++w) warps[w].barrier.reset(32);
    run_block({block % blocks.x, block / blocks.x}, threads, [&] { kernel(args); });
  }
}

}  // namespace cuda_on_cpu

inline void __syncthreads() { cuda_on_cpu::block_barrier.wait(); }
inline void __syncwarp() { cuda_on_cpu::warps[threadIdx.x / 32].barrier.wait(); }
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return cuda_on_cpu::exchange(value, (threadIdx.x % 32) ^ mask);
}
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return cuda_on_cpu::exchange(value, lane);
}
inline bool __any_sync(unsigned, bool mine) {
  bool any = mine;
  for (int mask = 16; mask; mask >>= 1) any |= __shfl_xor_sync(~0u, any, mask);
  return any;
}

namespace fkdx {

struct Pair {
  uint32_t word[2];
};
struct Quad {
  uint32_t word[4];
};

// Four accesses of a type that ThreadSanitizer watches; a misaligned address ends the program.
inline Quad load16(const void* from) {
  if (reinterpret_cast<uintptr_t>(from) % 16) std::abort();
  const uint32_t* words = static_cast<const uint32_t*>(from);
  return {{words[0], words[1], words[2], words[3]}};
}
inline Pair load8(const void* from) {
  if (reinterpret_cast<uintptr_t>(from) % 8) std::abort();
  const uint32_t* words = static_cast<const uint32_t*>(from);
  return {{words[0], words[1]}};
}
inline void store16(void* to, const Quad& q) {
  if (reinterpret_cast<uintptr_t>(to) % 16) std::abort();
  for (int i = 0; i < 4; ++i) static_cast<uint32_t*>(to)[i] = q.word[i];
}

inline float divide_fast(float a, float b) { return a / b; }
inline float exp2_fast(float x) { return x < -126.f ? 0.f : std::exp2(x); }

inline float bits_to_float(uint32_t u) { return float_of(u); }
inline uint32_t float_to_bits(float x) { return bits_of(x); }
inline double bits_to_double(uint32_t low, uint32_t high) {
  const uint64_t bits = uint64_t(high) << 32 | low;
  double x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}
inline uint16_t to_bf16(float x) {
  const uint32_t u = float_to_bits(x);
  return x != x ? 0x7fc0 : uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
inline uint16_t to_f16(float x) { return float_to_half(x); }
inline float from_f16(uint16_t h) { return half_to_float(h); }

template <typename Widen, typename Narrow>
uint32_t larger_halves(uint32_t a, uint32_t b, Widen widen, Narrow narrow) {
  const auto larger = [&](uint32_t x, uint32_t y) -> uint32_t {
    return narrow(std::fmax(widen(uint16_t(x)), widen(uint16_t(y))));
  };
  return larger(a >> 16, b >> 16) << 16 | larger(a, b);
}
inline uint32_t larger_bf16(uint32_t a, uint32_t b) {
  return larger_halves(a, b, [](uint16_t x) { return bits_to_float(uint32_t(x) << 16); }, to_bf16);
}
inline uint32_t larger_f16(uint32_t a, uint32_t b) { return larger_halves(a, b, from_f16, to_f16); }

}  // namespace fkdx
