// SPDX-License-Identifier: Apache-2.0
#include "labels/topk_records.h"

#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/cpu.h"

namespace fkdx {

bool FieldLanes::fit(const Field& field, bool at_byte) {
  const uint32_t late = at_byte ? 0 : 7;
  return field.count >= 4 && field.count <= 8 && field.width <= 25 && late + field.count * field.width <= 128;
}

FieldLanes::FieldLanes(const Field& field) : mask((uint32_t{1} << (field.width & 31)) - 1) {
  constexpr uint8_t kNothing = 0x80;  // a byte of zeros
  for (uint32_t bit = 0; bit < 8; ++bit) {
    for (uint32_t lane = 0; lane < 8; ++lane) {
      const uint32_t at = bit + field.width * lane;
      shifts[bit][lane] = at % 8;
      for (uint32_t i = 0; i < 4; ++i) {
        const uint32_t byte = at / 8 + i;
        bytes[bit][4 * lane + i] = lane < field.count && byte < 16 ? static_cast<uint8_t>(byte) : kNothing;
      }
    }
  }
}

struct TopkRecords::Call {
  const RecordFields& fields;
  const CropBounds& bounds;
  const uint8_t* block;
  uint64_t flips;
  const int64_t* crops;
  size_t count;
  const CropArrays& out;
};

namespace {

bool has_such_records(const Layout& layout, const RecordFields& fields) {
  const bool plain = layout.encoding == Encoding::kPlain;
  const bool values = layout.value_type == ValueType::kFloat16 || layout.value_type == ValueType::kLog8;
  return layout.kind == Kind::kTopk && values && !layout.ratios() && !layout.two_views() &&
         FieldLanes::fit(fields.ids, plain) && FieldLanes::fit(fields.values, plain);
}

}  // namespace

TopkRecords::TopkRecords(const Layout& layout, const RecordFields& fields)
    : fits_(has_such_records(layout, fields)),
      log8_(layout.value_type == ValueType::kLog8),
      kept_(layout.kept),
      classes_(layout.classes),
      ids_(fields.ids),
      values_(fields.values) {}

bool TopkRecords::read(const RecordFields& fields, const CropBounds& bounds, const uint8_t* block,
                       uint64_t flips, const int64_t* crops, size_t count, const CropArrays& out) const {
  if (!fits_ || !out.boxes || !out.flips || !out.ids || !out.values) return false;
  const auto read = choose(read_none, FKDX_ON_X86(read_avx2), nullptr);
  return read(*this, {fields, bounds, block, flips, crops, count, out});
}

bool TopkRecords::read_none(const TopkRecords&, const Call&) { return false; }

#if defined(__x86_64__)
#define FKDX_WITH_AVX2 __attribute__((target("avx2,f16c")))

namespace {

FKDX_WITH_AVX2 inline __m128i load(const void* from) {
  return _mm_loadu_si128(static_cast<const __m128i*>(from));
}

FKDX_WITH_AVX2 inline __m256i load_aligned(const void* from) {
  return _mm256_load_si256(static_cast<const __m256i*>(from));
}

// The items of a field that begins at bit `at` of the block; 0 in the other lanes.
FKDX_WITH_AVX2 inline __m256i items(const FieldLanes& lanes, const uint8_t* block, uint64_t at) {
  const uint64_t bit = at & 7;
  const __m256i bytes = _mm256_broadcastsi128_si256(load(block + at / 8));
  const __m256i words = _mm256_shuffle_epi8(bytes, load_aligned(lanes.bytes[bit]));
  const __m256i shifted = _mm256_srlv_epi32(words, load_aligned(lanes.shifts[bit]));
  return _mm256_and_si256(shifted, _mm256_set1_epi32(static_cast<int>(lanes.mask)));
}

// The first 4 to 8 lanes: the last four of them overlap the first ones.
FKDX_WITH_AVX2 inline void store(__m256i lanes, __m256i last, uint32_t count, void* out) {
  _mm_storeu_si128(static_cast<__m128i*>(out), _mm256_castsi256_si128(lanes));
  const __m256i moved = _mm256_permutevar8x32_epi32(lanes, last);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(static_cast<uint32_t*>(out) + count - 4),
                   _mm256_castsi256_si128(moved));
}

FKDX_WITH_AVX2 inline __m256 floats_of_halves(__m256i raw) {
  const __m256i both = _mm256_permute4x64_epi64(_mm256_packus_epi32(raw, raw), 0x08);
  return _mm256_cvtph_ps(_mm256_castsi256_si128(both));
}

// Lanes that are not 0 where a value is no probability.
FKDX_WITH_AVX2 inline __m256i out_of_range(__m256 values) {
  const __m256 right = _mm256_and_ps(_mm256_cmp_ps(values, _mm256_setzero_ps(), _CMP_GE_OQ),
                                     _mm256_cmp_ps(values, _mm256_set1_ps(kTooLarge), _CMP_LT_OQ));
  return _mm256_xor_si256(_mm256_castps_si256(right), _mm256_set1_epi32(-1));
}

// Boxes whose four edges fit one word of 64 bits.
struct Edges {
  __m256i shifts, masks;
  __m128i limits;

  static bool fit(const RecordFields& fields) {
    const uint32_t bits = fields.width.at + fields.width.width - fields.top.at;
    return bits <= 57 || (bits == 64 && fields.stride % 8 == 0 && fields.top.at % 8 == 0);
  }
  FKDX_WITH_AVX2 Edges(const RecordFields& fields, const CropBounds& bounds) {
    const auto mask = [](const Field& field) { return (int64_t{1} << field.width) - 1; };
    const auto shift = [&](const Field& field) { return int64_t{field.at} - fields.top.at; };
    shifts = _mm256_setr_epi64x(0, shift(fields.left), shift(fields.height), shift(fields.width));
    masks = _mm256_setr_epi64x(mask(fields.top), mask(fields.left), mask(fields.height), mask(fields.width));
    limits =
        _mm_setr_epi32(static_cast<int>(bounds.height), static_cast<int>(bounds.width), INT32_MAX, INT32_MAX);
  }
  FKDX_WITH_AVX2 __m128i read(const uint8_t* block, uint64_t at) const {
    uint64_t word;
    std::memcpy(&word, block + at / 8, sizeof(word));
    const __m256i all = _mm256_set1_epi64x(static_cast<int64_t>(word >> (at & 7)));
    const __m256i wide = _mm256_and_si256(_mm256_srlv_epi64(all, shifts), masks);
    const __m256i low = _mm256_setr_epi32(0, 2, 4, 6, 0, 0, 0, 0);
    return _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(wide, low));
  }
  // Lanes that are not 0 where a box does not lie inside its image.
  FKDX_WITH_AVX2 __m128i wrong(__m128i box) const {
    const __m128i ends = _mm_add_epi32(box, _mm_unpackhi_epi64(box, box));  // bottom, right; anything
    return _mm_or_si128(_mm_cmpgt_epi32(ends, limits), _mm_cmpgt_epi32(_mm_setr_epi32(0, 0, 1, 1), box));
  }
};

}  // namespace

FKDX_WITH_AVX2 bool TopkRecords::read_avx2(const TopkRecords& records, const Call& call) {
  const RecordFields& fields = call.fields;
  if (!Edges::fit(fields)) return false;
  const Edges edges(fields, call.bounds);
  const uint32_t kept = records.kept_;
  const __m256i last = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 0, 0, 0, 0),
                                        _mm256_set1_epi32(static_cast<int>(kept) - 4));
  const __m256i last_class = _mm256_set1_epi32(static_cast<int>(records.classes_) - 1);
  const float* levels = log8_levels();
  __m256i wrong = _mm256_setzero_si256();
  for (size_t i = 0; i < call.count; ++i) {
    const auto crop = static_cast<uint64_t>(call.crops[i]);
    const uint64_t record = fields.stride * crop;
    const __m128i box = edges.read(call.block, record + fields.top.at);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(call.out.boxes + 4 * i), box);
    call.out.flips[i] = call.block[call.flips + crop / 8] >> (crop % 8) & 1;
    const __m256i ids = items(records.ids_, call.block, record + fields.ids.at);
    store(ids, last, kept, call.out.ids + kept * i);
    wrong = _mm256_or_si256(wrong, _mm256_or_si256(_mm256_cmpgt_epi32(ids, last_class),
                                                   _mm256_zextsi128_si256(edges.wrong(box))));
    const __m256i raw = items(records.values_, call.block, record + fields.values.at);
    float* values = call.out.values + kept * i;
    if (records.log8_) {  // any code is in range
      store(_mm256_castps_si256(_mm256_i32gather_ps(levels, raw, 4)), last, kept, values);
      const uint64_t rest = record + fields.rest.at;
      put_first(values, kept, call.block[rest / 8] >> (rest & 7) & 1);
    } else {
      const __m256 found = floats_of_halves(raw);
      store(_mm256_castps_si256(found), last, kept, values);
      wrong = _mm256_or_si256(wrong, out_of_range(found));
    }
  }
  return _mm256_testz_si256(wrong, wrong);
}
#endif

}  // namespace fkdx
