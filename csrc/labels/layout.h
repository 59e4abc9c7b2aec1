// SPDX-License-Identifier: Apache-2.0
// What docs/format.md says about the preamble, the index, the footer and the fields of a record.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace fkdx {

constexpr std::array<uint8_t, 8> kMagic = {0x89, 'F', 'K', 'D', 'X', 0x0D, 0x0A, 0x1A};
constexpr std::array<uint8_t, 4> kEndMagic = {'D', 'X', 'K', 'F'};
constexpr uint16_t kMajor = 1;
constexpr uint64_t kAlign = 64;
constexpr uint32_t kMaxCrops = 65535;
constexpr uint32_t kMaxKept = 4096;
constexpr uint32_t kMaxClasses = 1u << 24;
constexpr uint32_t kMaxEmbedding = 8192;  // values of one embedding
constexpr uint64_t kMaxFile = uint64_t{1} << 48;
constexpr uint64_t kMaxHeader = uint64_t{64} << 20;
constexpr size_t kMaxKey = 4096;
constexpr double kMaxSum = 1.0 + 1e-3;  // of the probabilities of a crop
constexpr double kMaxLog8Sum = 1.025;   // where all of them were rounded to levels of log8

enum class Kind : uint8_t { kTopk, kHard, kSmoothing, kDense, kDenseLogits, kTopkLogits, kEmbedding };
enum class Encoding : uint8_t { kPlain, kCompact };
enum class ValueType : uint8_t { kNone, kFloat16, kFloat32, kLog8, kInt8 };
enum Required : uint32_t { kRatioBoxes = 1, kTwoViews = 2, kExtraOperations = 4, kKnownRequired = 7 };

struct Preamble {
  std::array<uint8_t, 8> magic;
  uint16_t major, minor;
  uint32_t required, optional;
  uint8_t kind, encoding, value_type, zero;
  uint32_t classes, kept, crops, mix_size;
  std::array<uint8_t, 16> id;
  uint32_t zero2, crc;
};
static_assert(sizeof(Preamble) == 64);

struct IndexEntry {
  uint64_t offset;
  uint32_t crops;
  uint16_t height, width;
  uint32_t extra, crc;
};
static_assert(sizeof(IndexEntry) == 24);

struct Footer {
  uint64_t header, header_bytes, index, images, keys, keys_bytes;
  uint32_t header_crc, index_crc, keys_crc, zero;
  std::array<uint8_t, 32> digest;
  std::array<uint8_t, 16> id;
  uint64_t length;
  uint32_t crc;
  std::array<uint8_t, 4> magic;
};
static_assert(sizeof(Footer) == 128);

constexpr uint64_t align64(uint64_t x) { return (x + kAlign - 1) / kAlign * kAlign; }

// What kind of labels a file holds and how they are stored.
struct Layout {
  Kind kind = Kind::kTopk;
  Encoding encoding = Encoding::kPlain;
  ValueType value_type = ValueType::kFloat16;
  uint32_t classes = 0;  // of embeddings: the values of the first of a crop
  uint32_t kept = 0;     // of embeddings: the values of all of a crop
  uint32_t required = 0;

  bool ratios() const { return required & kRatioBoxes; }
  bool two_views() const { return required & kTwoViews; }
  bool logits() const { return kind == Kind::kDenseLogits || kind == Kind::kTopkLogits; }
  bool dense() const { return kind == Kind::kDense || kind == Kind::kDenseLogits; }
  bool embeds() const { return kind == Kind::kEmbedding; }
  bool probabilities() const { return !logits() && !embeds(); }  // values of other kinds: any finite number
  uint32_t embeddings() const { return embeds() ? 1 + (kept > classes) : 0; }
  uint32_t id_count() const { return dense() || embeds() ? 0 : kept; }
  uint32_t value_count() const { return kind == Kind::kHard ? 0 : kept; }

  // Throws FormatError naming the first rule that does not hold; `where` is put into its text.
  void check(const std::string& where) const;
};

// One field of a record: `count` items of `width` bits, the first at bit `at` of the record.
struct Field {
  uint32_t at = 0, width = 0, count = 0;
};

// The fields of a record of one image; without `count` where absent. `stride` is the record's width in bits.
struct RecordFields {
  Field top, left, height, width, ids, rest, scales, values, tail;
  Field partner, partner_box, operation, lambda, mix_box;
  uint64_t stride = 0;
};

RecordFields record_fields(const Layout& layout, uint32_t height, uint32_t width);

// Bytes of a block with its padding, and where in it the flip bits and the extra bytes begin.
struct BlockSize {
  uint64_t flips, extra, bytes;
};
BlockSize block_size(const RecordFields& fields, uint32_t crops, uint32_t extra);

}  // namespace fkdx
