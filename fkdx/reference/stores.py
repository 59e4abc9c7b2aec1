"""Canonical keys, the data index, and entry points into the Huffman stream of a baseline JPEG."""

import re
import struct

from fkdx.reference.labels import crc32c

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
SYNSET = r"n\d{8}"


def canonical_key(key: str, class_name: str = "") -> str:
    """docs/format.md, "Canonical keys"."""
    *folders, stem = key.split("/")
    if stem.rfind(".") > 0 and stem[stem.rfind(".") :].lower() in IMAGE_SUFFIXES:
        stem = stem[: stem.rfind(".")]
    if folders:
        return f"{folders[-1]}/{stem}"
    if found := re.fullmatch(rf"(.+)_({SYNSET})", stem, re.A | re.S):
        return f"{found[2]}/{found[1]}"
    if found := re.match(rf"({SYNSET})_", stem, re.A):
        return f"{found[1]}/{stem}"
    return f"{class_name}/{stem}" if class_name else stem


def read_data_index(data: bytes) -> dict[str, bytes]:
    """The sections of a data index by name. ValueError where anything does not hold."""
    magic, major, _, count, images, length, table_crc, crc = struct.unpack_from("<8sHHIQQ24xII", data)
    if magic != b"\x89FKDI\r\n\x1a" or major != 1 or length != len(data) or crc != crc32c(data[:60]):
        raise ValueError("preamble")
    table = data[64 : 64 + 48 * count]
    if crc32c(table) != table_crc:
        raise ValueError("section table")
    sections = {"images": images.to_bytes(8, "little")}
    for name, offset, size, section_crc, _flags in struct.iter_unpack("<16sQQII8x", table):
        part = data[offset : offset + size]
        if len(part) != size or crc32c(part) != section_crc or offset % 64:
            raise ValueError(f"section {name!r}")
        sections[name.rstrip(b"\0").decode()] = part
    return sections


def decode_keys(coded: bytes) -> list[str]:
    """All keys of a section `keys` or `aliases`."""
    keys, last, at = [], b"", 0
    while at < len(coded):
        shared, more = struct.unpack_from("<HH", coded, at)
        last = last[:shared] + coded[at + 4 : at + 4 + more]
        keys.append(last.decode())
        at += 4 + more
    return keys


# ---- entry points -----------------------------------------------------------------------------------------


def read_entry_points(coded: bytes, image: bytes) -> list[tuple[int, ...]]:
    """(unit, byte, bit, predictor of each component) of every entry point. ValueError for another image's."""
    crc, image_crc, size, step = struct.unpack_from("<IIIH", coded)
    if crc != crc32c(coded[4:]) or (size, image_crc) != (len(image), crc32c(image)):
        raise ValueError("entry points of another image")
    begin, columns, states = huffman_states(image)
    orders = coded[14 : 16 + len(states[0]) - 3]
    text = "".join(f"{byte:08b}" for byte in coded[14 + len(orders) :])
    per_row = -(-columns // step)
    places, points, at = [8 * begin], [(0,) * (len(orders) - 1)], 0
    for i in range(1, len(states) // columns * per_row):
        numbers = []
        for order in orders:
            zeros = text.index("1", at) - at
            number = int(text[at + zeros : at + 2 * zeros + order + 1], 2) - 2**order
            numbers.append(-(number + 1) // 2 if number % 2 else number // 2)
            at += 2 * zeros + order + 1
        model = i - per_row if i >= per_row else i - 1
        way = places[model] - places[model - 1] if model else 0
        places.append(places[-1] + way + numbers[0])
        points.append(tuple(dc + more for dc, more in zip(points[model], numbers[1:])))
    units = [
        row * columns + column for row in range(len(states) // columns) for column in range(0, columns, step)
    ]
    return [(unit, *divmod(place, 8), *dc) for unit, place, dc in zip(units, places, points)][1:]


def huffman_states(image: bytes) -> tuple[int, int, list[tuple[int, ...]]]:
    """Of a baseline JPEG: the first byte of its scan, the units (MCUs) of a row, and the decoder's state
    (byte, bit, predictor of each component) before every unit. ITU-T T.81, Annex F.2."""
    codes, at, interval = {}, 2, 0
    while image[at + 1] != 0xDA:
        marker, length = image[at + 1], int.from_bytes(image[at + 2 : at + 4], "big")
        part = image[at + 4 : at + 2 + length]
        if marker == 0xC0 or marker == 0xC1:
            height, width = struct.unpack_from(">HH", part, 1)
            frame = {part[6 + 3 * i]: divmod(part[7 + 3 * i], 16) for i in range(part[5])}
        elif marker == 0xDD:
            interval = int.from_bytes(part, "big")
        while marker == 0xC4 and part:
            counts, values, code, table = part[1:17], part[17:], 0, {}
            for bits, count in enumerate(counts, 1):
                for _ in range(count):
                    table[bits, code], values, code = values[0], values[1:], code + 1
                code *= 2
            codes[part[0]], part = table, part[17 + sum(counts) :]
        at += 2 + length
    part, at = image[at + 4 :], at + 2 + int.from_bytes(image[at + 2 : at + 4], "big")
    scan = [(frame[part[1 + 2 * i]], divmod(part[2 + 2 * i], 16)) for i in range(part[0])]
    across, down = (max(sides) for sides in zip(*frame.values()))
    if len(scan) == 1:
        scan, across, down = [((1, 1), scan[0][1])], 1, 1
    columns, rows = -(-width // (8 * across)), -(-height // (8 * down))
    begin, bit, states, predictors = at, 0, [], [0] * len(scan)

    def read(count: int) -> int:
        nonlocal at, bit
        value = 0
        for _ in range(count):
            value = 2 * value + (image[at] >> (7 - bit) & 1)
            bit += 1
            if bit == 8:
                at, bit = at + 1 + (image[at] == 0xFF), 0
        return value

    def symbol(table: dict) -> int:
        bits, code = 0, 0
        while (bits, code) not in table:
            bits, code = bits + 1, 2 * code + read(1)
        return table[bits, code]

    for unit in range(columns * rows):
        if unit and interval and unit % interval == 0:
            # The last byte before a marker, part of which was read, may be 0xFF itself; then it is FF 00.
            at, bit, predictors = re.compile(rb"\xff[\xd0-\xd7]").search(image, at).end(), 0, [0] * len(scan)
        states.append((at, bit, *predictors))
        for c, ((h, v), (dc, ac)) in enumerate(scan):
            for _ in range(h * v):
                size = symbol(codes[dc])
                number = read(size)
                predictors[c] += number if not size or number >> (size - 1) else number - 2**size + 1
                k = 1
                while k < 64 and (coded := symbol(codes[16 + ac])):
                    read(coded % 16)
                    k += coded // 16 + 1
    return begin, columns, states
