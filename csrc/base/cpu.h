// SPDX-License-Identifier: Apache-2.0
// Which variant of a hot function runs: scalar, avx2 or avx512 on x86-64, scalar or neon on aarch64. FKDX_CPU
// forces one of them.
#pragma once

#include <string>
#include <type_traits>
#include <vector>

#if defined(__x86_64__)
#define FKDX_ON_X86(variant) variant
#else
#define FKDX_ON_X86(variant) nullptr
#endif
#if defined(__aarch64__)
#define FKDX_ON_ARM(variant) variant
#else
#define FKDX_ON_ARM(variant) nullptr
#endif

namespace fkdx {

enum class Cpu { kScalar, kAvx2, kAvx512, kNeon };

const char* cpu_name(Cpu cpu);

// Variants that this machine can run, slowest first; never empty.
std::vector<Cpu> supported_cpus();

// The variant in use: the best supported one, or what FKDX_CPU or force_cpu asked for.
// Throws std::invalid_argument where FKDX_CPU names an unknown or unsupported variant.
Cpu selected_cpu();

// For tests and benchmarks: a name as in FKDX_CPU, or "" to go back to the default.
void force_cpu(const std::string& name);

// Of something that is compiled several times, the variant that selected_cpu() names. They are pointers;
// where there is none for this machine, the next slower one is taken.
template <typename Variant>
Variant choose(Variant scalar, std::common_type_t<Variant> avx2, std::common_type_t<Variant> avx512,
               std::common_type_t<Variant> neon = nullptr) {
  const Cpu cpu = selected_cpu();
  if (cpu == Cpu::kAvx512 && avx512) return avx512;
  if ((cpu == Cpu::kAvx512 || cpu == Cpu::kAvx2) && avx2) return avx2;
  return cpu == Cpu::kNeon && neon ? neon : scalar;
}

}  // namespace fkdx
