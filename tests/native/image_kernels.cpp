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
  refuse_other_machines();
  std::string names;
  for (const Cpu cpu : supported_cpus()) names += std::string(" ") + cpu_name(cpu);
  std::printf("image_kernels: seed %u, digest %08x,%s, %d failures\n", seed, digest, names.c_str(), failures);
  return failures != 0;
}
