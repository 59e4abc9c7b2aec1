"""A second reader of the label file, written from docs/format.md alone."""

import hashlib
import json
import struct

import numpy as np

CRC_TABLE = np.arange(256, dtype=np.uint32)
for _ in range(8):
    CRC_TABLE = np.where(CRC_TABLE & 1, (CRC_TABLE >> 1) ^ np.uint32(0x82F63B78), CRC_TABLE >> 1)
CRC_TABLE = CRC_TABLE.tolist()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def read_labels(path) -> tuple[dict, dict[str, dict[str, np.ndarray]]]:
    """The header and, by key, all fields of a label file. AssertionError where a rule is broken."""
    with open(path, "rb") as file:
        data = file.read()
    names = (
        "magic major minor required optional kind encoding value_type zero C K crops mix_size id zero2 crc"
    )
    top = dict(zip(names.split(), struct.unpack("<8sHHIIBBBBIIII16sII", data[:64])))
    names = (
        "header header_bytes index images keys keys_bytes "
        "header_crc index_crc keys_crc zero digest id length crc"
    )
    end = dict(zip(names.split(), struct.unpack("<6Q4I32s16sQI", data[-128:-4])))
    assert top["magic"] == b"\x89FKDX\r\n\x1a"
    assert data[-4:] == b"DXKF"
    assert top["major"] == 1
    assert top["required"] < 8
    assert top["id"] == end["id"]
    assert top["zero"] == top["zero2"] == end["zero"] == 0
    assert top["crc"] == crc32c(data[:60])
    assert end["crc"] == crc32c(data[-128:-8])
    assert end["length"] == len(data)
    assert end["digest"] == hashlib.blake2b(data[:-128], digest_size=32).digest()
    starts = [end["header"], end["index"], end["keys"], len(data) - 128]
    sizes = [end["header_bytes"], 24 * end["images"], end["keys_bytes"]]
    for start, size, stop, name in zip(starts, sizes, starts[1:], ("header", "index", "keys")):
        assert start + -(-size // 64) * 64 == stop
        assert not any(data[start + size : stop])
        assert crc32c(data[start:stop]) == end[f"{name}_crc"]
    images, text = end["images"], end["keys"] + 4 * (end["images"] + 1)
    marks = struct.unpack(f"<{images + 1}I", data[end["keys"] : text])
    labels = {}
    for i in range(images):
        entry = data[end["index"] + 24 * i :][:24]
        offset, crops, height, width, extra, crc = struct.unpack("<QIHHII", entry)
        key = data[text + marks[i] : text + marks[i + 1]]
        fields, stride = record_layout(top, height, width)
        flips = -(-crops * stride // 8)
        after = flips + -(-crops // 8)
        block = data[offset : offset + -(-(after + extra) // 64) * 64]
        assert crc == crc32c(top["id"] + entry[:20] + key + block)
        bits = np.unpackbits(np.frombuffer(block, np.uint8), bitorder="little")
        records = bits[: crops * stride].reshape(crops, stride)
        found = {name: read_field(records, *place) for name, place in fields.items()}
        found["flips"] = bits[8 * flips : 8 * flips + crops].astype(bool)
        labels[key.decode()] = {**decode(top, found), "size": (height, width), "extra": block[after:][:extra]}
    assert list(labels) == sorted(labels, key=str.encode)
    return json.loads(data[end["header"] :][: end["header_bytes"]]), labels


def join_mixed(shards: list[dict[str, dict]]) -> dict[str, dict]:
    """The images of shards of mixed crops as one set, in its order and with its numbers of partners."""
    owned = {key for shard in shards for key, image in shard.items() if len(image["flips"])}
    joined: dict[str, dict] = {}
    for shard in shards:
        joined |= {
            key: image
            for key, image in shard.items()
            if len(image["flips"]) or not (key in owned or key in joined)
        }
    numbers = {key: number for number, key in enumerate(joined)}
    for shard in shards:
        of_entry = np.array([numbers[key] for key in shard])
        for image in shard.values():
            mixed = image["operations"] & 3 > 0
            image["partners"] = np.where(mixed, of_entry[image["partners"]], 0)
    return joined


def record_layout(top: dict, height: int, width: int) -> tuple[dict, int]:
    """Fields of a record as name: (first bit, width, count), and the width of the record."""
    plain, ratios, mixed = top["encoding"] == 0, top["required"] & 1, top["required"] & 2
    edge = 32 if ratios else 16
    rows, columns = (edge, edge) if plain or ratios else (height.bit_length(), width.bit_length())
    ids = (16 if top["C"] <= 65536 else 32) if plain else max(1, (top["C"] - 1).bit_length())
    asked = [("top", rows, 1), ("left", columns, 1), ("height", rows, 1), ("width", columns, 1)]
    asked += [("ids", ids, top["K"])] if top["kind"] not in (3, 4, 6) else []
    asked += [("rest", 1, 1)] if top["value_type"] == 3 else []
    asked += [("scales", 16, 1 + (top["K"] > top["C"]))] if top["value_type"] == 4 else []
    asked += [("values", [0, 16, 32, 8, 8][top["value_type"]], top["K"])] if top["kind"] != 1 else []
    asked += [("tails", 32, 1)] if top["kind"] == 5 else []
    mix = [("partners", 32, 1), ("partner_boxes", edge, 4), ("operations", 8, 1), ("lambdas", 32, 1)]
    asked += [*mix, ("mix_boxes", 16, 4)] if mixed else []
    fields, at = {}, 0
    for name, bits, count in asked:
        at = -(-at // bits) * bits if plain else at
        fields[name] = (at, bits, count)
        at += bits * count
    widest = max(bits for _, bits, _ in asked)
    return fields, -(-at // widest) * widest if plain else at


def read_field(records: np.ndarray, at: int, width: int, count: int) -> np.ndarray:
    bits = records[:, at : at + width * count].reshape(len(records), count, width)
    return bits @ (1 << np.arange(width, dtype=np.int64))


def decode(top: dict, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of a crop's labels from the integers of its record."""
    boxes = np.concatenate([found.pop(edge) for edge in ("top", "left", "height", "width")], axis=1)
    as_float32 = lambda raw: raw.astype(np.uint32).view(np.float32)  # noqa: E731
    found["boxes"] = as_float32(boxes) if top["required"] & 1 else boxes
    for name in ({"tails", "lambdas"} | ({"partner_boxes"} if top["required"] & 1 else set())) & set(found):
        found[name] = as_float32(found[name])
    if top["value_type"] == 1:
        found["values"] = found["values"].astype(np.uint16).view(np.float16).astype(np.float32)
    elif top["value_type"] == 2:
        found["values"] = as_float32(found["values"])
    elif top["value_type"] == 3:
        codes = found["values"]
        values = np.where(codes > 0, 2.0 ** -(1 + (255 - codes) / 15), 0).astype(np.float32)
        rest = np.maximum(0, 1 - np.cumsum(values.astype(np.float64), axis=1)[:, -1]).astype(np.float32)
        values[:, 0] = np.where(found.pop("rest")[:, 0] == 1, rest, values[:, 0])
        found["values"] = values
    elif top["value_type"] == 4:
        scales = as_float32(found.pop("scales") << 16)
        own = np.arange(top["K"]) >= top["C"]  # which embedding each value belongs to
        found["values"] = found["values"].astype(np.uint8).view(np.int8) * scales[:, own.astype(int)]
    return found


def int8_codes(values: np.ndarray) -> tuple[float, np.ndarray]:
    """The scale of one embedding (D,) float32, a bfloat16, and its codes (D,) int8."""
    largest = float(np.abs(values).max())
    if largest == 0:
        return 0.0, np.zeros(len(values), np.int8)
    bits = int(np.float32(np.float32(largest) / np.float32(127)).view(np.uint32))
    smallest = max(1, -(-bits // 2**16))
    for raw in (smallest, smallest + 1, smallest + 2):
        scale = np.uint32(raw << 16).view(np.float32)
        codes = np.clip(np.rint(values / scale), -127, 127)
        if (codes * scale == values).all():  # decoded before
            return float(scale), codes.astype(np.int8)
    scale = np.uint32(smallest << 16).view(np.float32)
    return float(scale), np.clip(np.rint(values / scale), -127, 127).astype(np.int8)
