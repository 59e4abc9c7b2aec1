// SPDX-License-Identifier: Apache-2.0
// The pixels of one image, a vector at a time. Included by the variants inside
// an unnamed namespace, after base/lanes.h.

inline Lanes<float> load_bytes(const uint8_t* from, int n) {
  Bytes bytes{};
  std::memcpy(&bytes, from, n);
  return from_bytes(bytes);
}

// factors[c][i] is the factor of lane i where lane 0 is of channel c.
using Channels = std::array<Lanes<float>, 3>;

inline Channels channels(const float* factors) {
  Channels all_phases;
  for (int c = 0; c < 3; ++c) {
    for (int i = 0; i < kLanes<float>; ++i) all_phases[c][i] = factors[(c + i) % 3];
  }
  return all_phases;
}

template <typename T>
void prepare_image(const PrepareCall& call, int64_t row, const Channels& scale, const Channels& bias) {
  const int line = call.width * 3;
  const int64_t size = int64_t(call.height) * line;
  const uint8_t* own = call.images + row * size;
  const uint8_t* partner = call.partners ? call.others + call.partners[row] * size : nullptr;
  const int32_t* box = call.partners ? call.boxes + row * 4 : nullptr;
  typename T::Stored* out = static_cast<typename T::Stored*>(call.out) + row * size;
  Mask<float> lane;
  for (int i = 0; i < kLanes<float>; ++i) lane[i] = i;
  for (int y = 0; y < call.height; ++y, own += line, out += line) {
    const bool mixed = partner && y >= box[0] && y < box[0] + box[2];
    const auto prepare_some = [&](int e, int n) {
      Lanes<float> x = load_bytes(own + e, n);
      if (mixed) {
        const Mask<float> inside = (lane + e >= box[1] * 3) & (lane + e < (box[1] + box[3]) * 3);
        const Lanes<float> blend = inside ? all(call.blend[row]) : Lanes<float>{};
        x = fused(blend, load_bytes(partner + int64_t(y) * line + e, n) - x, x);
      }
      store_some<T>(out + e, fused(x, scale[e % 3], bias[e % 3]), n);
    };
    int e = 0;
    for (; e + kLanes<float> <= line; e += kLanes<float>) prepare_some(e, kLanes<float>);
    if (e < line) prepare_some(e, line - e);
  }
}

template <typename T>
void prepare_range(const PrepareCall& call, int64_t begin, int64_t end) {
  const Channels scale = channels(call.scale), bias = channels(call.bias);
  for (int64_t row = begin; row < end; ++row) prepare_image<T>(call, row, scale, bias);
}

void prepare_any_type(const PrepareCall& call, int64_t begin, int64_t end) {
  switch (call.type) {
    case PixelType::kF32:
      return prepare_range<F32>(call, begin, end);
    case PixelType::kBf16:
      return prepare_range<Bf16>(call, begin, end);
    case PixelType::kF16:
      return prepare_range<F16>(call, begin, end);
  }
}
