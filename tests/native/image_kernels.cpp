// SPDX-License-Identifier: Apache-2.0
// Every CPU variant's resize equals the scalar one bit for bit: random sources, sizes, filters, flips and
// orders of passes, buffers that end where a source may be read last. The digest is that of all results:
// machines agree in it for the same seed.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "base/crc32c.h"
#include "image/idct.h"
#include "image/idct_constants.h"
#include "image/random_boxes.h"
#include "image/resample.h"

namespace fkdx {
namespace {

std::mt19937 rng;
int failures = 0;
uint32_t digest = 0;

int below(int n) { return int(rng() % uint32_t(n)); }

void expect(bool ok, const char* what, const std::string& cpu, int a, int b, int c, int d) {
  if (!ok && ++failures <= 20) std::printf("FAILED %s, %s: %d, %d, %d, %d\n", what, cpu.c_str(), a, b, c, d);
}

struct Case {
  int height, width, rows, columns;
  bool flip;
  Interpolation interpolation;
  ResampleRule rule;
};

std::vector<uint8_t> resized(const Case& c, const std::vector<uint8_t>& pixels) {
  std::vector<uint8_t> out(size_t(c.rows) * c.columns * 3, 0x55);
  Resampler resampler;
  const Box box = resampler.plan({c.height, c.rows, 0, c.rows}, {c.width, c.columns, 0, c.columns}, c.flip,
                                 c.interpolation, c.rule);
  resampler.run(&pixels[(size_t(box.top) * c.width + box.left) * 3], c.width * 3, out.data(), c.columns * 3);
  return out;
}

void compare_resize(const Case& c, bool extreme) {
  std::vector<uint8_t> pixels(size_t(c.height) * c.width * 3 + kOverread);
  for (uint8_t& value : pixels) value = extreme ? uint8_t(-below(2)) : uint8_t(rng());
  force_cpu("scalar");
  const std::vector<uint8_t> want = resized(c, pixels);
  digest = crc32c(digest, want.data(), want.size());
  for (const Cpu cpu : supported_cpus()) {
    force_cpu(cpu_name(cpu));
    expect(resized(c, pixels) == want, "resize", cpu_name(cpu), c.height, c.width, c.rows, c.columns);
  }
}

void compare_sizes(int most) {
  for (const Interpolation interpolation : {Interpolation::kBilinear, Interpolation::kBicubic}) {
    for (const ResampleRule rule : {ResampleRule::kPillow12, ResampleRule::kPillow13}) {
      const Case c{1 + below(most),
                   1 + below(most),
                   1 + below(150),
                   1 + below(150),
                   below(2) == 0,
                   interpolation,
                   rule};
      compare_resize(c, below(4) == 0);
    }
  }
}

void compare_extremes() {
  for (const auto& [height, width] : {std::pair{900, 9}, {9, 900}, {1, 1200}, {1200, 1}, {1, 1}}) {
    for (const int size : {1, 5, 224}) {
      compare_resize({height, width, size, size, true, Interpolation::kBicubic, ResampleRule::kPillow12},
                     true);
      compare_resize({height, width, size, size, false, Interpolation::kBilinear, ResampleRule::kPillow13},
                     false);
    }
  }
}

// One pass of libjpeg's accurate integer transform, as its vector form does it: sums of two inputs wrap at 16
// bits, results are saturated.
void transform_eight(const int16_t* in, int16_t* out, int stride, int bits) {
  using namespace idct_constants;
  const auto at = [&](int i) { return int64_t{in[i * stride]}; };
  const auto sum = [](int64_t a, int64_t b) { return int64_t{int16_t(a + b)}; };
  const int64_t z = at(2) * k0_541 + at(6) * k0_541;
  const int64_t even[4] = {sum(at(0), at(4)) * (1 << kConstantBits) + z + at(2) * k0_765,
                           sum(at(0), -at(4)) * (1 << kConstantBits) + z - at(6) * k1_847,
                           sum(at(0), -at(4)) * (1 << kConstantBits) - z + at(6) * k1_847,
                           sum(at(0), at(4)) * (1 << kConstantBits) - z - at(2) * k0_765};
  const int64_t z3 = sum(at(7), at(3)), z4 = sum(at(5), at(1)), z5 = (z3 + z4) * k1_175;
  const int64_t a = z5 - z3 * k1_961, b = z5 - z4 * k0_390;
  const int64_t z1 = (at(7) + at(1)) * -k0_899, z2 = (at(5) + at(3)) * -k2_562;
  const int64_t odd[4] = {at(1) * k1_501 + z1 + b, at(3) * k3_072 + z2 + a, at(5) * k2_053 + z2 + b,
                          at(7) * k0_298 + z1 + a};
  for (int i = 0; i < 4; ++i) {
    const auto rounded = [bits](int64_t x) {
      return int16_t(std::clamp(int32_t(uint32_t(x + (1 << (bits - 1)))) >> bits, INT16_MIN, INT16_MAX));
    };
    out[i * stride] = rounded(even[i] + odd[i]);
    out[(7 - i) * stride] = rounded(even[i] - odd[i]);
  }
}

void plain_idct(const int16_t* coefficients, const uint16_t* quantisation, uint8_t* out) {
  using namespace idct_constants;
  int16_t in[64], between[64], samples[64];
  for (int i = 0; i < 64; ++i) in[i] = int16_t(coefficients[i] * quantisation[i]);
  const bool ac = std::any_of(coefficients + 8, coefficients + 64, [](int16_t c) { return c != 0; });
  for (int c = 0; c < 8; ++c) {
    transform_eight(in + c, between + c, 8, kConstantBits - kPass1Bits);
    for (int r = 0; r < 8 && !ac; ++r) between[8 * r + c] = int16_t(in[c] * (1 << kPass1Bits));
  }
  for (int r = 0; r < 8; ++r)
    transform_eight(between + 8 * r, samples + 8 * r, 1, kConstantBits + kPass1Bits + 3);
  for (int i = 0; i < 64; ++i) out[i] = uint8_t(std::clamp(int{samples[i]}, -128, 127) + 128);
}

// Blocks of photographs, and blocks whose sums overflow.
void compare_idct() {
  for (int trial = 0; trial < 4000; ++trial) {
    alignas(64) int16_t block[64] = {};
    uint16_t quantisation[64];
    const int most = trial % 4 == 0 ? 65535 : 60, count = below(65), width = trial % 3 == 0 ? 8 : 64;
    for (uint16_t& q : quantisation) q = uint16_t(1 + below(trial % 8 == 0 ? 65535 : 40));
    for (int i = 0; i < count; ++i) block[below(width)] = int16_t(below(most + 1) - most / 2);
    uint8_t want[64];
    plain_idct(block, quantisation, want);
    for (const Cpu cpu : supported_cpus()) {
      force_cpu(cpu_name(cpu));
      const Idct idct = choose<Idct>(nullptr, FKDX_ON_X86(idct_avx2), FKDX_ON_X86(idct_avx512()));
      if (!idct) continue;
      alignas(64) int16_t copy[64];
      std::copy_n(block, 64, copy);
      uint8_t got[8][9], *rows[8];
      for (int r = 0; r < 8; ++r) rows[r] = got[r];
      idct(copy, quantisation, rows, 1);
      bool same = std::all_of(copy, copy + 64, [](int16_t c) { return c == 0; });
      for (int i = 0; i < 64; ++i) same &= got[i / 8][1 + i % 8] == want[i];
      expect(same, "idct", cpu_name(cpu), trial, count, most, width);
    }
  }
}

void compare_checksums() {
  std::vector<uint8_t> bytes(5000);
  for (uint8_t& value : bytes) value = uint8_t(rng());
  for (int i = 0; i < 200; ++i) {
    const int begin = below(100), size = below(int(bytes.size()) - begin);
    force_cpu("scalar");
    const uint32_t want = crc32c(uint32_t(i), &bytes[begin], size);
    for (const Cpu cpu : supported_cpus()) {
      force_cpu(cpu_name(cpu));
      expect(crc32c(uint32_t(i), &bytes[begin], size) == want, "crc32c", cpu_name(cpu), begin, size, i, 0);
    }
  }
}

// The boxes of random crops go into the digest.
void draw_crops() {
  const RandomCrops crops({0.08, 1, 0.75, 4.0 / 3, 0.5});
  std::vector<Box> boxes(2000);
  std::vector<uint8_t> flips(boxes.size());
  const uint64_t stream = rng();
  const ImageSize image{1 + below(600), 1 + below(600)};
  crops.draw(stream, image, 0, int(boxes.size()), boxes.data(), flips.data());
  digest = crc32c(digest, boxes.data(), boxes.size() * sizeof(Box));
  digest = crc32c(digest, flips.data(), flips.size());
}

void refuse_other_machines() {
  const std::vector<Cpu> here = supported_cpus();
  for (const Cpu cpu : {Cpu::kScalar, Cpu::kAvx2, Cpu::kAvx512, Cpu::kNeon}) {
    bool refused = false;
    try {
      force_cpu(cpu_name(cpu));
    } catch (const std::invalid_argument& error) {
      refused = std::string(error.what()).find("expected one of scalar") != std::string::npos;
    }
    const bool runs = std::find(here.begin(), here.end(), cpu) != here.end();
    expect(refused != runs, "force_cpu", cpu_name(cpu), runs, refused, 0, 0);
  }
}

}  // namespace
}  // namespace fkdx

// image_kernels [SEED [quick]]
int main(int argc, char** argv) {
  using namespace fkdx;
  const unsigned seed = argc > 1 ? unsigned(std::atoi(argv[1])) : std::random_device{}() % 100000;
  rng.seed(seed);
  for (int i = 0; i < (argc > 2 ? 5 : 40); ++i) {
    compare_sizes(i % 2 ? 20 : 400);
    draw_crops();
  }
  compare_extremes();
  compare_checksums();
  compare_idct();
  refuse_other_machines();
  std::string names;
  for (const Cpu cpu : supported_cpus()) names += std::string(" ") + cpu_name(cpu);
  std::printf("image_kernels: seed %u, digest %08x,%s, %d failures\n", seed, digest, names.c_str(), failures);
  return failures != 0;
}
