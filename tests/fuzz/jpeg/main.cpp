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
#include "base/crc32c.h"
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

std::map<std::string, uint64_t> kinds;

// Empty, or what is wrong with our decode of a box.
std::string compare(const Bytes& bytes, const Judgement& judged, const Box& box, Strictness rules, bool plain,
                    const Bytes& entries = {}, uint32_t* proved = nullptr) {
  const int bottom = box.top + box.height;
  const bool all = rules.allow_warnings ? judged.complete : judged.sound;
  const bool expected =
      rules.whole_file ? all : (rules.allow_warnings ? judged.rows : judged.sound_rows) >= bottom;
  Bytes got(size_t{3} * box.height * box.width);
  try {
    decoder->decode_box(bytes.data(), bytes.size(), box, rules, plain, got.data(),
                        {entries.data(), entries.size(), proved});
  } catch (const ImageError& error) {
    return expected ? std::string("refused: ") + error.what() : "";
  }
  if (!expected) return "accepted, but: " + judged.reason;
  // Not of a damaged file: what lies behind its last pixel depends on how far the rows have come.
  if (rules.whole_file && judged.sound && decoder->harmless_warnings() != judged.harmless)
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

void seal(Bytes* entries) {
  const uint32_t crc = fkdx::crc32c(0, entries->data() + 4, entries->size() - 4);
  std::memcpy(entries->data(), &crc, sizeof(crc));
}

// Entry points as somebody would forge them: with every checksum right. A decoder that trusts them may give
// other pixels, but never worse; one that proves them, in several decodes, may not.
std::string forge(Random& random, const Bytes& bytes, const Judgement& judged, Bytes entries) {
  const uint32_t crc = fkdx::crc32c(0, bytes.data(), bytes.size()),
                 size = static_cast<uint32_t>(bytes.size());
  std::memcpy(&entries[4], &crc, sizeof(crc));
  std::memcpy(&entries[8], &size, sizeof(size));
  for (int i = random.between(1, 3); i > 0; --i) {
    const int first = random.chance(30) ? 12 : std::min<int>(19, static_cast<int>(entries.size()) - 1);
    uint8_t& byte = entries[random.between(first, static_cast<int>(entries.size()) - 1)];
    byte = static_cast<uint8_t>(random.chance(60) ? byte ^ 1 << random.below(8) : random.below(256));
  }
  if (random.chance(20)) entries.resize(random.between(16, static_cast<int>(entries.size())));
  seal(&entries);
  const std::string wrong =
      compare(bytes, judged, random_box(random, judged.height, judged.width), {}, false, entries);
  const bool used = decoder->entry_use() == fkdx::EntryUse::kUsed;
  ++kinds[!used           ? "forged points, found"
          : wrong.empty() ? "forged points, no pixel changed"
                          : "forged points, not found"];
  uint32_t proved = 0;
  for (int i = 0; i < 4; ++i) {
    const Box box = random_box(random, judged.height, judged.width);
    const std::string lie = compare(bytes, judged, box, {}, false, entries, &proved);
    if (!lie.empty()) return "with forged points that were to be proved: " + lie;
    if (proved > 0) ++kinds["decodes that proved forged points"];
  }
  return "";
}

// Right, stale, cut and changed entry points.
std::string check_entries(Random& random, const Bytes& bytes, const Judgement& judged) {
  static Bytes of_another;
  if (judged.pixels.empty()) return "";
  const Bytes right = decoder->make_entry_points(bytes.data(), bytes.size(), random.pick({1, 100}) * 0.2,
                                                 random.between(1, 4));
  if (!right.empty() && !judged.sound) return "entry points of a damaged stream: " + judged.reason;
  if (!right.empty()) {
    ++kinds["with entry points"];
    uint32_t proved = 0;
    for (int i = 0; i < 8; ++i) {
      const Box box = random_box(random, judged.height, judged.width);
      const std::string wrong =
          compare(bytes, judged, box, {random.chance(50), false}, false, right, i < 4 ? nullptr : &proved);
      if (!wrong.empty())
        return fkdx::message("with entry points: ", wrong, "; box ", box.top, " ", box.left, " ", box.height,
                             " ", box.width);
      if (decoder->entry_use() == fkdx::EntryUse::kMisfit) return "entry points do not fit";
      if (decoder->entry_use() == fkdx::EntryUse::kUsed) ++kinds["decodes with entry points"];
    }
    const std::string wrong = forge(random, bytes, judged, right);
    if (!wrong.empty()) return wrong;
  }
  Bytes bad = right.empty() || random.chance(50) ? of_another : right;
  if (!right.empty()) of_another = right;
  if (bad.empty()) return "";
  if (const std::string wrong = right.empty() ? "" : forge(random, bytes, judged, bad); !wrong.empty())
    return wrong;
  if (random.chance(50)) {
    bad.resize(random.below(static_cast<int>(bad.size())) + 1);
  } else {
    bad[random.below(static_cast<int>(bad.size()))] ^= static_cast<uint8_t>(1 << random.below(8));
  }
  if (bad == right) return "";
  const Box box = random_box(random, judged.height, judged.width);
  const std::string wrong = compare(bytes, judged, box, {random.chance(50), false}, false, bad);
  if (decoder->entry_use() == fkdx::EntryUse::kUsed) return "bad entry points not noticed";
  return wrong.empty() ? "" : "with bad entry points: " + wrong;
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
  uint64_t failures = 0;
  for (uint64_t index = first; index < first + count; ++index) {
    Random random(seed, index);
    const Bytes bytes = random_stream(random);
    if (!decoder || random.chance(10)) decoder = std::make_unique<CropDecoder>();
    const Judgement judged = judge(bytes);
    ++kinds[kind_of(judged)];
    std::string wrong = check(random, bytes, judged);
    if (wrong.empty()) wrong = check_entries(random, bytes, judged);
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
