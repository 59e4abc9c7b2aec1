// SPDX-License-Identifier: Apache-2.0
#include "base/cpu.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include <atomic>
#include <cstdlib>

#include "base/check.h"

namespace fkdx {
namespace {

constexpr int kUnset = -1;
std::atomic<int> forced{kUnset};

Cpu named_cpu(const std::string& name) {
  for (Cpu cpu : supported_cpus()) {
    if (name == cpu_name(cpu)) return cpu;
  }
  std::string expected;
  for (Cpu cpu : supported_cpus()) expected += std::string(expected.empty() ? "" : ", ") + cpu_name(cpu);
  throw std::invalid_argument(message("cpu: FKDX_CPU, got '", name, "', expected one of ", expected));
}

#if defined(__aarch64__)
// Of bytes: optional in ARMv8.2; all of Apple's processors have them.
bool has_dot_products() {
#if defined(__linux__)
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
  return true;
#endif
}
#endif

}  // namespace

const char* cpu_name(Cpu cpu) {
  constexpr const char* kNames[] = {"scalar", "avx2", "avx512", "neon"};
  return kNames[static_cast<int>(cpu)];
}

std::vector<Cpu> supported_cpus() {
  std::vector<Cpu> cpus{Cpu::kScalar};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    cpus.push_back(Cpu::kAvx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
      cpus.push_back(Cpu::kAvx512);
    }
  }
#elif defined(__aarch64__)
  if (has_dot_products()) cpus.push_back(Cpu::kNeon);
#endif
  return cpus;
}

Cpu selected_cpu() {
  const int now = forced.load(std::memory_order_relaxed);
  if (now != kUnset) return static_cast<Cpu>(now);
  static const Cpu standard = [] {
    const char* name = std::getenv("FKDX_CPU");
    return name && *name ? named_cpu(name) : supported_cpus().back();
  }();
  return standard;
}

void force_cpu(const std::string& name) {
  forced.store(name.empty() ? kUnset : static_cast<int>(named_cpu(name)), std::memory_order_relaxed);
}

}  // namespace fkdx
