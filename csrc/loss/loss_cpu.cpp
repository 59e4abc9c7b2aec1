// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <exception>
#include <thread>
#include <vector>

#include "base/cpu.h"
#include "loss/loss.h"
#include "loss/variants.h"

namespace fkdx {
namespace {

constexpr int64_t kLogitsPerThread = 1 << 16;  // fewer are not worth starting a thread

}  // namespace

LossVariant selected_loss() {
#if defined(__x86_64__)
  if (selected_cpu() == Cpu::kAvx512) return loss_avx512();
  if (selected_cpu() == Cpu::kAvx2) return loss_avx2();
#endif
  return loss_scalar();
}

void loss_cpu(const LossCall& call, int threads) {
  const LossRange rows = selected_loss().rows;
  const int64_t useful = std::min(call.rows, call.rows * call.classes / kLogitsPerThread);
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(threads, useful));
  std::vector<std::exception_ptr> errors(parts);
  const auto work = [&](int64_t part) {
    try {
      rows(call, call.rows * part / parts, call.rows * (part + 1) / parts);
    } catch (...) {
      errors[part] = std::current_exception();
    }
  };
  std::vector<std::thread> helpers;
  for (int64_t part = 1; part < parts; ++part) helpers.emplace_back(work, part);
  work(0);
  for (std::thread& helper : helpers) helper.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace fkdx
