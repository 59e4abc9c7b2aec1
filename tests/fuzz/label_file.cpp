// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: open a label file, find a key, read and verify everything. The CRCs of a mutated file are
// made right first, so that what lies behind them is reached.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <unistd.h>

#include "base/check.h"
#include "base/crc32c.h"
#include "labels/label_file.h"

namespace {

using namespace fkdx;

// Writes the CRCs of preamble, footer and parts, and of every block whose entry points into the file.
void seal(std::vector<uint8_t>* data) {
  const uint64_t size = data->size();
  if (size < sizeof(Preamble) + sizeof(Footer)) return;
  Preamble top;
  Footer end;
  std::memcpy(&top, data->data(), sizeof top);
  std::memcpy(&end, data->data() + size - sizeof end, sizeof end);
  const uint64_t limit = size - sizeof end;
  const auto fits = [limit](uint64_t at, uint64_t bytes) { return at <= limit && bytes <= limit - at; };
  const Layout layout{
      Kind(top.kind), Encoding(top.encoding), ValueType(top.value_type), top.classes, top.kept, top.required};
  try {
    layout.check("seal");
  } catch (const FormatError&) {
    return;
  }
  if (fits(end.index, 0) && fits(end.keys, 0) && end.index <= end.keys && end.header <= end.index) {
    const uint64_t images = std::min<uint64_t>(end.images, (end.keys - end.index) / sizeof(IndexEntry));
    for (uint64_t i = 0; i < images && fits(end.keys, 4 * (images + 1)); ++i) {
      IndexEntry entry;
      uint32_t starts[2];
      uint8_t* at = data->data() + end.index + i * sizeof entry;
      std::memcpy(&entry, at, sizeof entry);
      std::memcpy(starts, data->data() + end.keys + 4 * i, sizeof starts);
      const RecordFields fields = record_fields(layout, entry.height, entry.width);
      if (entry.crops > kMaxCrops) continue;
      const BlockSize block = block_size(fields, entry.crops, entry.extra);
      const uint64_t keys = end.keys + 4 * (images + 1);
      if (!fits(entry.offset, block.bytes) || starts[0] > starts[1] || !fits(keys, starts[1])) continue;
      uint32_t crc = crc32c(0, top.id.data(), top.id.size());
      crc = crc32c(crc, &entry, offsetof(IndexEntry, crc));
      crc = crc32c(crc, data->data() + keys + starts[0], starts[1] - starts[0]);
      entry.crc = crc32c(crc, data->data() + entry.offset, block.bytes);
      std::memcpy(at, &entry, sizeof entry);
    }
    end.header_crc = crc32c(0, data->data() + end.header, end.index - end.header);
    end.index_crc = crc32c(0, data->data() + end.index, end.keys - end.index);
    end.keys_crc = crc32c(0, data->data() + end.keys, limit - end.keys);
  }
  end.length = size;
  end.crc = crc32c(0, &end, offsetof(Footer, crc));
  end.magic = kEndMagic;
  top.magic = kMagic;
  top.id = end.id;
  top.crc = crc32c(0, &top, offsetof(Preamble, crc));
  std::memcpy(data->data(), &top, sizeof top);
  std::memcpy(data->data() + limit, &end, sizeof end);
}

void read_everything(const std::string& path, Io io) {
  const LabelFile file(path, io);
  file.find("n0/0.JPEG");
  std::vector<uint8_t> scratch;
  std::vector<int32_t> boxes(4), ids(file.layout().id_count());
  std::vector<float> ratios(4), values(file.layout().kept);
  CropArrays out;
  (file.layout().ratios() ? void(out.ratios = ratios.data()) : void(out.boxes = boxes.data()));
  out.ids = ids.data();
  out.values = values.data();
  for (uint64_t image = 0; image < file.images(); ++image) {
    const int64_t first = 0;
    try {
      file.read_crops(image, file.find_crops(image, &first, 1, &scratch), &first, 1, out);
    } catch (const std::out_of_range&) {  // an image without crops
    }
  }
  file.verify();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  std::vector<uint8_t> data(bytes, bytes + size);
  if (size > 0 && bytes[0] & 1) seal(&data);  // the magic begins with 0x89
  static const std::string path = "/dev/shm/fkdx_fuzz_" + std::to_string(getpid());
  FILE* file = std::fopen(path.c_str(), "wb");
  std::fwrite(data.data(), 1, data.size(), file);
  std::fclose(file);
  for (const Io io : {Io::kMmap, Io::kPread}) {
    try {
      read_everything(path, io);
    } catch (const FormatError&) {
    }
  }
  return 0;
}
