// SPDX-License-Identifier: Apache-2.0
// Random JPEG streams: our decoder's verdict and pixels of any region are those of a plain full decode.
//   main SEED COUNT [FIRST [FOLDER]]   streams FIRST ... FIRST + COUNT - 1; those that differ are written to
//   FOLDER
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>

#include "base/check.h"
#include "image/crops.h"
#include "judge.h"
#include "stream.h"

namespace {

using fkdx::Box;
using fkdx::CropDecoder;
using fkdx::ImageError;
using fkdx::Strictness;

// One for many streams, so that nothing of one may show in the next; a new one now and then, whose tables are
// empty.
std::unique_ptr<CropDecoder> decoder;

// Empty, or what is wrong with our decode of a box.
std::string compare(const Bytes& bytes, const Judgement& judged, const Box& box, Strictness rules,
                    bool plain) {
  const int bottom = box.top + box.height;
  const bool all = rules.allow_warnings ? judged.complete : judged.sound;
  const bool expected =
      rules.whole_file ? all : (rules.allow_warnings ? judged.rows : judged.sound_rows) >= bottom;
  Bytes got(size_t{3} * box.height * box.width);
  try {
    decoder->decode_box(bytes.data(), bytes.size(), box, rules, plain, got.data());
  } catch (const ImageError& error) {
    return expected ? std::string("refused: ") + error.what() : "";
  }
  if (!expected) return "accepted, but: " + judged.reason;
  if (rules.whole_file && decoder->harmless_warnings() != judged.harmless)
    return fkdx::message("warnings, got ", decoder->harmless_warnings(), ", expected ", judged.harmless, ", ",
                         judged.reason);
  for (int y = 0; y < box.height; ++y) {
    const size_t row = size_t{3} * box.width;
    const uint8_t* right = &judged.pixels[3 * (size_t(box.top + y) * judged.width + box.left)];
    if (std::memcmp(&got[y * row], right, row) != 0)
      return "pixels differ in row " + std::to_string(box.top + y);
  }
  return "";
}

Box random_box(Random& random, int height, int width) {
  const int rows = random.between(1, height), columns = random.between(1, width);
  return {random.below(height - rows + 1), random.below(width - columns + 1), rows, columns};
}

// A stream that cannot be judged by its pixels: it has to end well, that is all.
void only_survive(const Bytes& bytes, const Judgement& judged) {
  const bool known = judged.height > 0 && judged.width > 0;
  const Box box{0, 0, 1, known ? std::min(judged.width, 64) : 1};
  Bytes got(size_t{3} * box.width);
  try {
    decoder->decode_box(bytes.data(), bytes.size(), box, {}, false, got.data());
  } catch (const ImageError&) {
  }
}

std::string check(Random& random, const Bytes& bytes, const Judgement& judged) {
  if (bytes.empty()) return "";
  fkdx::ImageSize size{0, 0};
  try {
    size = decoder->read_size(bytes.data(), bytes.size());
  } catch (const ImageError& error) {
    return judged.header ? std::string("header refused: ") + error.what() : "";
  }
  if (!judged.header) return "header accepted, but: " + judged.reason;
  if (size.height != judged.height || size.width != judged.width) return "another size";
  if (judged.pixels.empty()) {
    only_survive(bytes, judged);
    return "";
  }
  const Box whole{0, 0, size.height, size.width};
  for (const bool allow_warnings : {false, true}) {
    for (const bool whole_file : {false, true}) {
      const Strictness rules{allow_warnings, whole_file};
      for (int i = 0; i < 3; ++i) {
        const Box box = i == 0 ? whole : random_box(random, size.height, size.width);
        const bool plain = random.chance(20);
        const std::string wrong = compare(bytes, judged, box, rules, plain);
        if (wrong.empty()) continue;
        return fkdx::message(wrong, "; box ", box.top, " ", box.left, " ", box.height, " ", box.width,
                             allow_warnings ? ", warnings allowed" : "", whole_file ? ", whole file" : "",
                             plain ? ", plain" : "");
      }
    }
  }
  return "";
}

void keep(const std::string& folder, uint64_t seed, uint64_t index, const Bytes& bytes) {
  const std::string path = fkdx::message(folder, "/", seed, "-", index, ".jpg");
  if (FILE* file = std::fopen(path.c_str(), "wb")) {
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
  }
}

const char* kind_of(const Judgement& judged) {
  return !judged.header          ? "header refused"
         : judged.pixels.empty() ? "too large to judge"
         : !judged.complete      ? "given up"
         : !judged.sound         ? "damaged"
         : judged.harmless > 0   ? "sound with harmless warnings"
                                 : "sound";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return std::fprintf(stderr, "usage: %s SEED COUNT [FIRST [FOLDER]]\n", argv[0]), 2;
  const uint64_t seed = std::strtoull(argv[1], nullptr, 10), count = std::strtoull(argv[2], nullptr, 10);
  const uint64_t first = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 0;
  std::map<std::string, uint64_t> kinds;
  uint64_t failures = 0;
  for (uint64_t index = first; index < first + count; ++index) {
    Random random(seed, index);
    const Bytes bytes = random_stream(random);
    if (!decoder || random.chance(10)) decoder = std::make_unique<CropDecoder>();
    const Judgement judged = judge(bytes);
    ++kinds[kind_of(judged)];
    const std::string wrong = check(random, bytes, judged);
    if (wrong.empty()) continue;
    if (++failures <= 20)
      std::printf("stream %llu: %s\n", static_cast<unsigned long long>(index), wrong.c_str());
    if (argc > 4) keep(argv[4], seed, index, bytes);
  }
  for (const auto& [kind, number] : kinds) {
    std::printf("%s: %llu\n", kind.c_str(), static_cast<unsigned long long>(number));
  }
  std::printf("jpeg streams: %llu of seed %llu, %llu failures\n", static_cast<unsigned long long>(count),
              static_cast<unsigned long long>(seed), static_cast<unsigned long long>(failures));
  return failures > 0;
}
