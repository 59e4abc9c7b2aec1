// SPDX-License-Identifier: Apache-2.0
#include "image/resample.h"

#include <algorithm>
#include <utility>

#include "base/cpu.h"

namespace fkdx {
namespace {

// Pillow 12 turns the order round for sources that are more than a hundred times taller than wide, Pillow 13
// where the height shrinks by more than twice as many pixels as the width.
bool columns_go_first(const Axis& vertical, const Axis& horizontal, ResampleRule rule) {
  if (vertical.out >= vertical.in) return false;
  if (rule == ResampleRule::kPillow12) return vertical.in > int64_t{100} * horizontal.in;
  return vertical.in - vertical.out > 2 * (horizontal.in - horizontal.out);
}

Span rebase(Taps* taps) {
  const Span span = source_span(*taps);
  for (int32_t& first : taps->first) first -= span.begin;
  return span;
}

}  // namespace

Box Resampler::plan(const Axis& vertical, const Axis& horizontal, bool flip, Interpolation interpolation,
                    ResampleRule rule) {
  clamp_ = interpolation == Interpolation::kBicubic;
  columns_first_ = columns_go_first(vertical, horizontal, rule);
  kernels_ = choose(&kScalarKernels, FKDX_ON_X86(&kAvx2Kernels), FKDX_ON_X86(avx512_kernels()),
                    FKDX_ON_ARM(&kNeonKernels));
  for (const auto& [axis, taps] : {std::pair{vertical, &vertical_}, {horizontal, &horizontal_}}) {
    axis.in == axis.out ? copy_taps(axis, taps) : kernels_->filter_taps(axis, interpolation, taps);
  }
  if (flip) reverse(&horizontal_);
  const Span rows = rebase(&vertical_);
  const Span columns = rebase(&horizontal_);
  table_.clamp = clamp_;
  while (!kernels_->fill_table(horizontal_, &table_)) kernels_ = kernels_->fallback;
  region_ = {rows.begin, columns.begin, rows.end - rows.begin, columns.end - columns.begin};
  return region_;
}

void Resampler::run(const uint8_t* source, ptrdiff_t stride, uint8_t* out, ptrdiff_t out_stride) {
  const Rows rows{source, stride, region_.height};
  if (!columns_first_) return rows_first(rows, out, out_stride);
  rows_alone(columns_alone(rows), out, out_stride);
}

// Vertical pass. make_strip(index, strip) is called once for each strip, in order, just before it is needed.
template <typename MakeStrip>
void Resampler::column_pass(int columns, MakeStrip make_strip, uint8_t* out, ptrdiff_t stride) {
  const Taps& taps = vertical_;
  const int strip_rows = kernels_->strip_rows;
  const int ring = taps.width / strip_rows + 2;  // strips that one output row may read
  const size_t strip_words = padded_columns(columns);
  strips_.reserve(ring * strip_words);
  strip_list_.resize(ring);
  words_.resize(size_t(ring) * kernels_->weight_words);
  int made = taps.first[0] / strip_rows;
  for (int y = 0; y < taps.outputs(); ++y, out += stride) {
    const int first = taps.first[y] / strip_rows;
    const int last = (taps.first[y] + taps.width - 1) / strip_rows;
    for (; made <= last; ++made) make_strip(made, strips_.data() + made % ring * strip_words);
    const int32_t* weights = taps.of(y) - taps.first[y] % strip_rows;  // of the first strip's rows
    for (int s = 0; s <= last - first; ++s) {
      strip_list_[s] = strips_.data() + (first + s) % ring * strip_words;
      kernels_->pack_weights(weights + s * strip_rows, &words_[size_t(s) * kernels_->weight_words]);
    }
    kernels_->column_pass(strip_list_.data(), last - first + 1, words_.data(), clamp_, columns, out);
  }
}

// The rows of a strip, the last row again for those that are not there.
void Resampler::pick_rows(const Rows& source, int index, const uint8_t** rows) const {
  for (int r = 0; r < kernels_->strip_rows; ++r) {
    rows[r] = source.data + std::min(index * kernels_->strip_rows + r, source.count - 1) * source.stride;
  }
}

void Resampler::rows_first(const Rows& source, uint8_t* out, ptrdiff_t stride) {
  const auto make_strip = [&](int index, uint32_t* strip) {
    const uint8_t* rows[kMaxStripRows];
    pick_rows(source, index, rows);
    kernels_->row_pass(rows, table_, strip);
  };
  column_pass(3 * horizontal_.outputs(), make_strip, out, stride);
}

// The vertical pass over the source itself.
Resampler::Rows Resampler::columns_alone(const Rows& source) {
  const int columns = 3 * region_.width;
  const int rows = vertical_.outputs();
  const ptrdiff_t stride = padded_columns(columns);
  between_.reserve(rows * stride + kOverread);
  const auto make_strip = [&](int index, uint32_t* strip) {
    const uint8_t* rows[kMaxStripRows];
    pick_rows(source, index, rows);
    kernels_->interleave(rows, columns, strip);
  };
  column_pass(columns, make_strip, between_.data(), stride);
  return {between_.data(), stride, rows};
}

// The horizontal pass over rows that are resized already.
void Resampler::rows_alone(const Rows& source, uint8_t* out, ptrdiff_t stride) {
  const int strip_rows = kernels_->strip_rows;
  const int columns = 3 * horizontal_.outputs();
  uint32_t* strip = strips_.reserve(padded_columns(columns));
  for (int y = 0; y < source.count; y += strip_rows) {
    const uint8_t* rows[kMaxStripRows];
    uint8_t* outs[kMaxStripRows];
    pick_rows(source, y / strip_rows, rows);
    for (int r = 0; r < strip_rows; ++r) outs[r] = out + std::min(y + r, source.count - 1) * stride;
    kernels_->row_pass(rows, table_, strip);
    kernels_->separate(strip, columns, outs);
  }
}

}  // namespace fkdx
