// SPDX-License-Identifier: Apache-2.0
// One label file or several shards, numbered as one.
//
// A shard of mixed crops also lists the images that its crops are mixed with, without crops of their own.
// Such an image may have its crops in another shard, and is listed by any number of them: the set counts it
// once, where it has crops, or else where it is listed first, and a crop's partner is numbered as the set
// numbers it.
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

  // Each image once.
  uint64_t images() const { return starts_.back(); }
  const std::vector<std::unique_ptr<LabelFile>>& files() const { return files_; }
  const LabelFile& first() const { return *files_.front(); }

  struct Place {
    const LabelFile* file;
    uint64_t image;  // in that file
    size_t number;   // of that file
  };
  // Throws std::out_of_range.
  Place place(int64_t image) const;
  // Which images of file `number` are counted there, ascending; null: all.
  const std::vector<uint32_t>* counted(size_t number) const {
    return shares_.empty() ? nullptr : &shares_.at(number).counted;
  }
  // The image's number, or -1.
  int64_t find(std::string_view key) const;
  // Throws FormatError where an image has crops in two files. Sets of mixed crops are checked when opened.
  void check_images() const;
  // Reads crops [images, each] of images [count].
  void gather(const int64_t* images, size_t count, const int64_t* crops, size_t each,
              const CropArrays& out) const;

 private:
  // What a file of mixed crops adds to the set.
  struct Share {
    std::vector<uint32_t> counted;  // which of its images the set counts here
    std::vector<uint32_t> numbers;  // of all its images in the set
  };
  // An image of a file.
  struct Entry {
    uint32_t file, image;
  };
  // Hands the entries of every image to `visit`, those of all files together, in the order of keys.
  template <typename Visit>
  void each_image(Visit visit) const;
  std::vector<std::vector<Entry>> owners() const;
  const Entry& owner(const std::vector<Entry>& same) const;
  void number_images();
  void gather_group(const int64_t* images, size_t count, const int64_t* crops, size_t each,
                    const CropArrays& out) const;
  // Of `count` crops of a file.
  void renumber_partners(size_t file, size_t count, const CropArrays& crops) const;

  std::vector<std::unique_ptr<LabelFile>> files_;
  std::vector<Share> shares_;     // one a file; none where no image is in two of them
  std::vector<uint64_t> starts_;  // [files + 1]
};

}  // namespace fkdx
