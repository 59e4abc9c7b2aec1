// SPDX-License-Identifier: Apache-2.0
#include "base/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#ifdef __clang__  // for which the checksum is an extension of its own
#define FKDX_WITH_CRC __attribute__((target("crc32")))
#else
#define FKDX_WITH_CRC __attribute__((target("sse4.2")))
#endif
#elif defined(__aarch64__)
#include <arm_acle.h>
#define FKDX_WITH_CRC __attribute__((target("+crc")))
#endif

#include "base/cpu.h"

namespace fkdx {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;  // reflected

using Table = std::array<std::array<uint32_t, 256>, 8>;

constexpr Table make_table() {
  Table table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? kPolynomial : 0);
    table[0][byte] = crc;
  }
  for (size_t slice = 1; slice < 8; ++slice) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t crc = table[slice - 1][byte];
      table[slice][byte] = (crc >> 8) ^ table[0][crc & 0xFF];
    }
  }
  return table;
}

constexpr Table kTable = make_table();

// Eight bytes a turn ("slicing by 8"), on the raw register (no initial or final xor).
uint32_t extend_by_table(uint32_t crc, const uint8_t* data, size_t size) {
  for (; size >= 8; data += 8, size -= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    word ^= crc;
    crc = 0;
    for (size_t i = 0; i < 8; ++i) crc ^= kTable[7 - i][(word >> (8 * i)) & 0xFF];
  }
  for (; size > 0; ++data, --size) crc = (crc >> 8) ^ kTable[0][(crc ^ *data) & 0xFF];
  return crc;
}

#if defined(FKDX_WITH_CRC)

// One instruction takes in a word or a byte.
FKDX_WITH_CRC inline uint32_t extend_word(uint32_t crc, const uint8_t* data) {
  uint64_t word;
  std::memcpy(&word, data, 8);
#if defined(__x86_64__)
  return static_cast<uint32_t>(_mm_crc32_u64(crc, word));
#else
  return __crc32cd(crc, word);
#endif
}

FKDX_WITH_CRC inline uint32_t extend_byte(uint32_t crc, uint8_t byte) {
#if defined(__x86_64__)
  return _mm_crc32_u8(crc, byte);
#else
  return __crc32cb(crc, byte);
#endif
}

// The register after `Lane` zero bytes, as four lookups: how three lanes, computed side by side, are joined.
template <size_t Lane>
struct Shift {
  uint32_t part[4][256];

  Shift() {
    static const uint8_t zeros[Lane] = {};
    for (int byte = 0; byte < 4; ++byte) {
      for (uint32_t value = 0; value < 256; ++value) {
        part[byte][value] = extend_by_table(value << (8 * byte), zeros, Lane);
      }
    }
  }

  uint32_t operator()(uint32_t crc) const {
    return part[0][crc & 0xFF] ^ part[1][(crc >> 8) & 0xFF] ^ part[2][(crc >> 16) & 0xFF] ^
           part[3][crc >> 24];
  }
};

// The crc32 instruction takes three cycles but one can start each cycle: three independent lanes hide that.
template <size_t Lane>
FKDX_WITH_CRC uint32_t extend_lanes(uint32_t crc, const uint8_t*& data, size_t& size) {
  static const Shift<Lane> shift;
  while (size >= 3 * Lane) {
    uint32_t a = crc, b = 0, c = 0;
    for (size_t at = 0; at < Lane; at += 8) {
      a = extend_word(a, data + at);
      b = extend_word(b, data + Lane + at);
      c = extend_word(c, data + 2 * Lane + at);
    }
    crc = shift(shift(a) ^ b) ^ c;
    data += 3 * Lane;
    size -= 3 * Lane;
  }
  return crc;
}

FKDX_WITH_CRC uint32_t extend_by_instruction(uint32_t crc, const uint8_t* data, size_t size) {
  crc = extend_lanes<1024>(crc, data, size);
  crc = extend_lanes<128>(crc, data, size);
  for (; size >= 8; data += 8, size -= 8) crc = extend_word(crc, data);
  for (; size > 0; ++data, --size) crc = extend_byte(crc, *data);
  return crc;
}

#else

constexpr decltype(&extend_by_table) extend_by_instruction = nullptr;

#endif

}  // namespace

uint32_t crc32c(uint32_t crc, const void* data, size_t size) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  // Every CPU with AVX2 has SSE4.2, every one with ARMv8.2's dot products ARMv8.1's checksums.
  const auto extend =
      choose(&extend_by_table, extend_by_instruction, extend_by_instruction, extend_by_instruction);
  return ~extend(~crc, bytes, size);
}

}  // namespace fkdx
