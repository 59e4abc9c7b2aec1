// SPDX-License-Identifier: Apache-2.0
// In the place of csrc/base/launch.h where kernels run on the CPU (cuda_on_cpu.h): all blocks, one after the
// other, before the call returns.
#pragma once

namespace fkdx {

template <typename Args>
void launch(void (*kernel)(Args), dim3 blocks, int threads, const Args& args, int, uintptr_t, const char*) {
  cuda_on_cpu::launch(kernel, {blocks.x, blocks.y}, static_cast<unsigned>(threads), args);
}

}  // namespace fkdx
