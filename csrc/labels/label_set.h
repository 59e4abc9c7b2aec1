// SPDX-License-Identifier: Apache-2.0
// One label file or several shards, numbered as one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "labels/label_file.h"

namespace fkdx {

class LabelSet {
 public:
  // Throws FormatError where the files do not belong together.
  LabelSet(const std::vector<std::string>& paths, Io io);

  uint64_t images() const { return starts_.back(); }
  const std::vector<std::unique_ptr<LabelFile>>& files() const { return files_; }
  const LabelFile& first() const { return *files_.front(); }

  struct Place {
    const LabelFile* file;
    uint64_t image;  // in that file
  };
  // Throws std::out_of_range.
  Place place(int64_t image) const;
  // The image's number, or -1.
  int64_t find(std::string_view key) const;
  // Reads crops [images, each] of images [count].
  void gather(const int64_t* images, size_t count, const int64_t* crops, size_t each,
              const CropArrays& out) const;

 private:
  std::vector<std::unique_ptr<LabelFile>> files_;
  std::vector<uint64_t> starts_;  // [files + 1]
};

}  // namespace fkdx
