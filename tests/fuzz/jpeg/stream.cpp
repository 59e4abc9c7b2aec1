// SPDX-License-Identifier: Apache-2.0
#include "stream.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

namespace {

enum Marker : uint8_t {
  kBaseline = 0xC0,
  kExtended = 0xC1,
  kProgressive = 0xC2,
  kArithmetic = 0xC9,
  kArithmeticProgressive = 0xCA,
  kHuffman = 0xC4,
  kRestart0 = 0xD0,
  kStart = 0xD8,
  kEnd = 0xD9,
  kScan = 0xDA,
  kQuantisation = 0xDB,
  kRestarts = 0xDD,
  kApp0 = 0xE0,
  kApp14 = 0xEE,
  kComment = 0xFE,
};

struct Segment {
  uint8_t marker;
  Bytes fields;    // behind the length
  Bytes data{};    // entropy-coded, of a scan
  int lie = 0;     // added to the length
  Bytes before{};  // bytes that belong to nobody
};

bool has_length(uint8_t marker) {
  return marker != kStart && marker != kEnd && marker != 0x01 && (marker < kRestart0 || marker > 0xD7);
}

struct Component {
  int id, across, down, table;  // table: of quantisation
  int dc = 0, ac = 0;           // Huffman tables of the current scan
  int last = 0;                 // DC before
};

class Maker {
 public:
  explicit Maker(Random& random) : random_(random) {}

  Bytes make() {
    choose_frame();
    add({kStart, {}});
    add_application_markers();
    add_tables();
    add_frame();
    if (random_.chance(3)) add_huffman(kAll);  // behind the frame
    add_scans();
    if (random_.chance(97)) add({kEnd, {}});
    for (int i = random_.chance(30) ? random_.pick({1, 1, 2, 3}) : 0; i > 0; --i) change_structure();
    Bytes bytes = written();
    for (int i = random_.chance(15) ? random_.between(1, 3) : 0; i > 0; --i) change_bytes(bytes);
    return bytes;
  }

 private:
  static constexpr int kAll = -1;

  void add(Segment segment) { segments_.push_back(std::move(segment)); }

  void choose_frame() {
    const int kind = random_.below(20);
    frame_ = kind < 13   ? kBaseline
             : kind < 15 ? kExtended
             : kind < 18 ? kProgressive
             : kind < 19 ? kArithmetic
                         : kArithmeticProgressive;
    const int largest = random_.chance(3) ? 250 : random_.pick({8, 24, 64, 100});
    height_ = random_.between(1, largest);
    width_ = random_.between(1, largest);
    const int count = random_.chance(2) ? 2 : random_.pick({1, 3, 3, 3, 4});
    const bool usual = random_.chance(80), same = random_.chance(15), shared = random_.chance(25);
    const int chroma = random_.pick({0x11, 0x21, 0x12, 0x22, 0x41, 0x14, 0x42, 0x24});
    const int all = random_.pick({0x11, 0x22, 0x21, 0x44, 0x33});
    for (int i = 0; i < count; ++i) {
      Component one{i + 1, random_.between(1, 4), random_.between(1, 4), random_.below(i == 0 ? 1 : 2)};
      if (usual)
        one.across = i == 0 || i == 3 ? chroma >> 4 : 1, one.down = i == 0 || i == 3 ? chroma & 15 : 1;
      if (same) one.across = all >> 4, one.down = all & 15;
      if (shared) one.table = 0;
      components_.push_back(one);
    }
    while (blocks(kAll) > 10 && random_.chance(97)) {
      Component& one = components_[random_.below(count)];
      (one.across > one.down ? one.across : one.down) /= 2;
      one.across = std::max(one.across, 1);
      one.down = std::max(one.down, 1);
    }
    if (random_.chance(3)) components_[random_.below(count)].id = random_.below(256);
    if (count == 3 && random_.chance(4)) {
      components_[0].id = 'R', components_[1].id = 'G', components_[2].id = 'B';
    }
    interval_ = random_.chance(40) ? random_.pick({1, 2, 3, 5, 7, 8, 100}) : 0;
  }

  int blocks(int only) const {
    int sum = 0;
    for (const Component& one : components_) sum += one.across * one.down;
    return only == kAll ? sum : 1;
  }

  void add_application_markers() {
    if (random_.chance(40)) {
      add({kApp0,
           {'J', 'F', 'I', 'F', 0, uint8_t(random_.chance(90) ? 1 : random_.below(4)), 1, 0, 0, 1, 0, 1, 0,
            0}});
    }
    if (random_.chance(25)) {
      const uint8_t transform = random_.chance(90) ? random_.below(3) : random_.below(256);
      add({kApp14, {'A', 'd', 'o', 'b', 'e', 0, 100, 0, 0, 0, 0, transform}});
    }
    if (random_.chance(10)) add({uint8_t(kApp0 + random_.below(16)), random_bytes(random_.below(40))});
    if (random_.chance(10)) add({kComment, random_bytes(random_.below(40))});
  }

  Bytes random_bytes(int count) {
    Bytes bytes(count);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random_.below(256));
    return bytes;
  }

  void add_tables() {
    add_quantisation();
    if (random_.chance(95)) {
      for (int number = 0; number < 4; ++number) {
        if (number < 2 || random_.chance(50)) add_huffman(number);
      }
    }
    if (interval_ > 0) add({kRestarts, {0, uint8_t(interval_)}});
  }

  void add_quantisation() {
    for (int number = 0; number < 2; ++number) {
      const bool wide = random_.chance(5);
      Bytes fields{uint8_t(number | wide << 4)};
      const int largest = random_.pick({1, 8, 40, 255});
      for (int i = 0; i < 64; ++i) {
        if (wide) fields.push_back(static_cast<uint8_t>(random_.chance(95) ? 0 : random_.below(256)));
        fields.push_back(static_cast<uint8_t>(random_.chance(99) ? random_.between(1, largest) : 0));
      }
      add({kQuantisation, fields});
    }
  }

  // Both tables of a number, in one segment or two.
  void add_huffman(int number) {
    if (number == kAll) number = random_.below(4);
    Segment segment{kHuffman, {}};
    for (const bool ac : {false, true}) {
      Codes codes = random_codes(random_, ac);
      segment.fields.push_back(static_cast<uint8_t>(number | ac << 4));
      segment.fields.insert(segment.fields.end(), codes.counts.begin() + 1, codes.counts.end());
      segment.fields.insert(segment.fields.end(), codes.values.begin(), codes.values.end());
      tables_[2 * number + ac] = std::move(codes);
      if (random_.chance(50)) add(std::exchange(segment, {kHuffman, {}}));
    }
    if (!segment.fields.empty()) add(segment);
  }

  void add_frame() {
    Bytes fields{8,
                 uint8_t(height_ >> 8),
                 uint8_t(height_),
                 uint8_t(width_ >> 8),
                 uint8_t(width_),
                 uint8_t(components_.size())};
    for (const Component& one : components_) {
      fields.insert(fields.end(), {uint8_t(one.id), uint8_t(one.across << 4 | one.down), uint8_t(one.table)});
    }
    add({frame_, fields});
  }

  bool progressive() const { return frame_ == kProgressive || frame_ == kArithmeticProgressive; }

  void add_scans() {
    if (progressive()) return add_progressive_scans();
    const int count = static_cast<int>(components_.size());
    if (count == 1 || random_.chance(80)) {
      add_scan(all_components(), 0, 63, 0, 0);
      if (random_.chance(2)) add_scan(all_components(), 0, 63, 0, 0);
      return;
    }
    for (int first = 0; first < count;) {
      const int some = random_.between(1, count - first);
      std::vector<int> members;
      for (int i = 0; i < some; ++i) members.push_back(first++);
      redefine();
      add_scan(members, 0, 63, 0, 0);
      if (random_.chance(3)) return;  // the rest is missing
    }
  }

  void add_progressive_scans() {
    const int shift = random_.below(3);
    add_scan(all_components(), 0, 0, 0, shift);
    for (int i = 0; i < static_cast<int>(components_.size()); ++i) {
      for (int first = 1; first <= 63;) {
        const int last = random_.chance(60) ? 63 : random_.between(first, 63);
        redefine();
        add_scan({i}, first, last, 0, 0);
        first = last + 1;
        if (random_.chance(4)) return;
      }
    }
    for (int low = shift - 1; low >= 0; --low) add_scan(all_components(), 0, 0, low + 1, low);
  }

  std::vector<int> all_components() const {
    std::vector<int> all(components_.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int>(i);
    return all;
  }

  // Between two scans.
  void redefine() {
    if (random_.chance(30)) add_huffman(random_.below(4));
    if (random_.chance(10)) add_quantisation();
    if (random_.chance(10)) {
      interval_ = random_.below(6);
      add({kRestarts, {0, uint8_t(interval_)}});
    }
    if (random_.chance(5)) add({kComment, random_bytes(random_.below(9))});
  }

  void add_scan(const std::vector<int>& members, int first, int last, int high, int low) {
    Bytes fields{uint8_t(members.size())};
    const bool shared = random_.chance(20);
    const int one = random_.below(2);
    for (const int i : members) {
      Component& component = components_[i];
      const auto number = [&](int usual) {
        if (shared) return one;
        const int any = random_.below(random_.chance(99) ? 4 : 16);
        return random_.chance(70) || (!table(any, false) && random_.chance(98)) ? usual : any;
      };
      component.dc = number(i > 0);
      component.ac = number(i > 0);
      fields.insert(fields.end(), {uint8_t(component.id), uint8_t(component.dc << 4 | component.ac)});
    }
    fields.insert(fields.end(), {uint8_t(first), uint8_t(last), uint8_t(high << 4 | low)});
    add({kScan, fields, entropy(members, first, last, high)});
  }

  Bytes entropy(const std::vector<int>& members, int first, int last, int high) {
    if (frame_ == kArithmetic || frame_ == kArithmeticProgressive) return plain_bytes();
    BitWriter bits;
    const int units = units_of(members);
    int restart = 0;
    for (int unit = 0; unit < units; ++unit) {
      if (unit > 0 && interval_ > 0 && unit % interval_ == 0) {
        bits.marker(static_cast<uint8_t>(kRestart0 + restart++ % 8));
        for (Component& one : components_) one.last = 0;
      }
      for (const int i : members) {
        const int count = members.size() == 1 ? 1 : components_[i].across * components_[i].down;
        for (int block = 0; block < count; ++block) put_block(bits, components_[i], first, last, high);
      }
    }
    bits.align();
    for (Component& one : components_) one.last = 0;
    return bits.bytes;
  }

  Bytes plain_bytes() {
    Bytes bytes = random_bytes(random_.below(600));
    std::replace(bytes.begin(), bytes.end(), uint8_t{0xFF}, uint8_t{0});
    return bytes;
  }

  int units_of(const std::vector<int>& members) const {
    int across = 1, down = 1;
    for (const Component& one : components_) {
      across = std::max(across, one.across);
      down = std::max(down, one.down);
    }
    const auto up = [](int a, int b) { return (a + b - 1) / b; };
    if (members.size() > 1) return up(width_, 8 * across) * up(height_, 8 * down);
    const Component& one = components_[members[0]];
    return up(width_ * one.across, 8 * across) * up(height_ * one.down, 8 * down);
  }

  const Codes* table(int number, bool ac) {
    if (number > 3) return nullptr;
    std::optional<Codes>& found = tables_[2 * number + ac];
    if (!found && number < 2) found = standard_codes(ac, number == 1);
    return found ? &*found : nullptr;
  }

  void put_block(BitWriter& bits, Component& one, int first, int last, int high) {
    if (high > 0) return bits.put(random_.below(2), 1);  // refinement of DC
    if (first == 0) put_dc(bits, one);
    if (last > 0) put_ac(bits, one, std::max(first, 1), last);
  }

  void put_dc(BitWriter& bits, Component& one) {
    const Codes* codes = table(one.dc, false);
    if (!codes || codes->values.empty()) return bits.put(random_.below(256), 8);
    int size = random_symbol(*codes);
    for (int i = 0; i < 8 && std::abs(one.last) + (1 << std::min(size, 20)) > 1500; ++i) {
      size = random_symbol(*codes);
    }
    put_symbol(bits, *codes, size);
    if (size == 0 || size > 16) return;
    const int high_bit = one.last > 0 ? 0 : 1 << (size - 1);  // back towards zero
    const int value = random_.below(1 << (size - 1)) | high_bit;
    bits.put(value, size);
    one.last += high_bit ? value : value - (1 << size) + 1;
  }

  void put_ac(BitWriter& bits, const Component& one, int k, int last) {
    const Codes* codes = table(one.ac, true);
    if (!codes || codes->values.empty()) return bits.put(random_.below(256), 8);
    const int stop = random_.pick({1, 10, 30, 60});
    while (k <= last) {
      int symbol = random_symbol(*codes);
      const auto fits = [&] { return (symbol & 15 || symbol == 0xF0) && k + (symbol >> 4) <= last; };
      for (int i = 0; i < 20 && !fits(); ++i) symbol = random_symbol(*codes);
      if ((!fits() || random_.chance(stop)) && codes->lengths[0] > 0) symbol = 0;
      put_symbol(bits, *codes, symbol);
      const int size = symbol & 15;
      bits.put(random_.below(1 << size), size);
      if (size == 0 && symbol != 0xF0) return;
      k += (symbol >> 4) + 1;
    }
  }

  int random_symbol(const Codes& codes) {
    return codes.values[random_.below(static_cast<int>(codes.values.size()))];
  }

  void put_symbol(BitWriter& bits, const Codes& codes, int symbol) {
    bits.put(codes.bits[symbol], codes.lengths[symbol]);
  }

  // ---- what makes a stream half legal ----

  void change_structure() {
    const int at = random_.below(static_cast<int>(segments_.size()));
    Segment& segment = segments_[at];
    switch (random_.below(10)) {
      case 0:
        segments_.erase(segments_.begin() + at);
        if (segments_.empty()) add({kStart, {}});
        break;
      case 1:
        segments_.insert(segments_.begin() + random_.below(at + 1), Segment(segment));
        break;
      case 2:
        std::swap(segment, segments_[random_.below(static_cast<int>(segments_.size()))]);
        break;
      case 3:
        segment.before = random_bytes(random_.pick({1, 2, 3, 9, 30}));
        break;
      case 4:
        segment.before = Bytes(random_.between(1, 4), 0xFF);  // legal filling
        break;
      case 5:
        segment.lie = random_.pick({-3, -2, -1, 1, 2, 17, 1000});
        break;
      case 6:
        segment.marker =
            static_cast<uint8_t>(random_.chance(50) ? random_.between(0xC0, 0xFE) : random_.below(256));
        break;
      case 7:
        segments_.insert(segments_.begin() + at,
                         {uint8_t(random_.pick({0x01, 0xD0, 0xD3, kEnd, kRestarts})), {0, 3}});
        break;
      default:
        change_field(segment.fields);
    }
  }

  void change_field(Bytes& fields) {
    if (fields.empty()) return;
    const int head = std::min(static_cast<int>(fields.size()), 24);
    uint8_t& byte =
        fields[random_.chance(70) ? random_.below(head) : random_.below(static_cast<int>(fields.size()))];
    byte = static_cast<uint8_t>(random_.chance(40) ? byte ^ 1 << random_.below(8)
                                : random_.chance(50)
                                    ? byte + random_.pick({-1, 1})
                                    : random_.pick({0, 1, 2, 3, 4, 15, 16, 17, 63, 64, 127, 128, 255}));
  }

  void change_bytes(Bytes& bytes) {
    if (bytes.empty()) return;
    const int at = random_.below(static_cast<int>(bytes.size()));
    switch (random_.below(5)) {
      case 0:
        bytes.resize(at);
        break;
      case 1:
        bytes.erase(bytes.begin() + at);
        break;
      case 2:
        bytes.insert(bytes.begin() + at, static_cast<uint8_t>(random_.pick({0, 0xFF, random_.below(256)})));
        break;
      case 3:
        bytes[at] = static_cast<uint8_t>(random_.below(256));
        break;
      default:
        bytes[at] ^= static_cast<uint8_t>(1 << random_.below(8));
    }
  }

  Bytes written() const {
    Bytes bytes;
    for (const Segment& segment : segments_) {
      bytes.insert(bytes.end(), segment.before.begin(), segment.before.end());
      bytes.insert(bytes.end(), {0xFF, segment.marker});
      if (has_length(segment.marker)) {
        const int length = static_cast<int>(segment.fields.size()) + 2 + segment.lie;
        bytes.insert(bytes.end(), {uint8_t(length >> 8), uint8_t(length)});
        bytes.insert(bytes.end(), segment.fields.begin(), segment.fields.end());
      }
      bytes.insert(bytes.end(), segment.data.begin(), segment.data.end());
    }
    return bytes;
  }

  Random& random_;
  uint8_t frame_ = kBaseline;
  int height_ = 1, width_ = 1, interval_ = 0;
  std::vector<Component> components_;
  std::array<std::optional<Codes>, 8> tables_;  // 2 * number + ac, as they stand
  std::vector<Segment> segments_;
};

}  // namespace

Bytes random_stream(Random& random) { return Maker(random).make(); }
