// SPDX-License-Identifier: Apache-2.0
// Numbers that are the same on every machine: each stream of the fuzzer is known by seed and index.
#pragma once

#include <cstdint>
#include <initializer_list>

class Random {
 public:
  Random(uint64_t seed, uint64_t index) : state_(seed * 0x9E3779B97F4A7C15 ^ index * 0xD1B54A32D192ED03) {}

  // 0 ... n - 1
  int below(int n) { return static_cast<int>((next() >> 33) % static_cast<uint64_t>(n)); }
  int between(int first, int last) { return first + below(last - first + 1); }
  bool chance(int percent) { return below(100) < percent; }
  int pick(std::initializer_list<int> values) {
    return values.begin()[below(static_cast<int>(values.size()))];
  }

 private:
  // SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)
  uint64_t next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
  }

  uint64_t state_;
};
