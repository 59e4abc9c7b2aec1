// SPDX-License-Identifier: Apache-2.0
// Which variant of a hot function runs: scalar, avx2 or avx512 on x86-64, scalar or neon on aarch64. FKDX_CPU
// forces one of them.
#pragma once

#include <string>
#include <vector>

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

}  // namespace fkdx
