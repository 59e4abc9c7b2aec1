"""Slow, obvious twins of everything fast in fkdx. They import nothing of fkdx and judge all of it.

One section a room, in the order of docs/design.md.
"""

import hashlib
import json
import math
import re
import struct
from collections.abc import Sequence

import numpy as np

# ---- image: boxes cut, resized and flipped exactly as Pillow does ----------------------------------------


def resize_weights(source: int, target: int, interpolation: str) -> np.ndarray:
    """Pillow's antialiasing weights of one axis, (target, source) integers with 22 fraction bits."""
    scale = source / target
    stretch = max(scale, 1.0)
    support = {"bilinear": 1.0, "bicubic": 2.0}[interpolation] * stretch
    table = np.zeros((target, source), np.int64)
    if source == target:
        np.fill_diagonal(table, 1 << 22)
        return table
    for i in range(target):
        centre = (i + 0.5) * scale
        begin = max(int(centre - support + 0.5), 0)
        end = min(int(centre + support + 0.5), source)
        values = [_filter((x - centre + 0.5) * (1.0 / stretch), interpolation) for x in range(begin, end)]
        total = 0.0
        for value in values:
            total += value
        for x, value in zip(range(begin, end), values):
            weight = (value / total if total != 0.0 else value) * (1 << 22)
            table[i, x] = int(weight + (0.5 if weight >= 0 else -0.5))
    return table


def _filter(x: float, interpolation: str) -> float:
    x = abs(x)
    if interpolation == "bilinear":
        return 1.0 - x if x < 1.0 else 0.0
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2.0 else 0.0


def resize(
    image: np.ndarray, size: tuple[int, int], interpolation: str = "bilinear", resample: str = "pillow12"
) -> np.ndarray:
    """(H, W, 3) uint8 -> (*size, 3) uint8 as `Image.resize` does: two passes, rounded to bytes in between."""
    (height, width), (rows, columns) = image.shape[:2], size
    if resample == "pillow12":
        rows_last = rows < height and height > 100 * width
    else:
        rows_last = rows < height and height - rows > 2 * (width - columns)
    for axis in (0, 1) if rows_last else (1, 0):
        table = resize_weights(image.shape[axis], size[axis], interpolation)
        sums = np.moveaxis(np.tensordot(table, image.astype(np.int64), (1, axis)), 0, axis)
        image = np.clip((sums + (1 << 21)) >> 22, 0, 255).astype(np.uint8)
    return image


def cut_crop(
    image: np.ndarray,
    box: Sequence[int],
    flip: bool,
    size: int,
    interpolation: str = "bilinear",
    resample: str = "pillow12",
) -> np.ndarray:
    """One stored crop of a decoded image: (H, W, 3) uint8 -> (size, size, 3) uint8."""
    top, left, height, width = box
    out = resize(image[top : top + height, left : left + width], (size, size), interpolation, resample)
    return out[:, ::-1] if flip else out


def validation_crop(
    image: np.ndarray,
    size: int,
    crop_ratio: float,
    interpolation: str = "bilinear",
    resample: str = "pillow12",
) -> np.ndarray:
    """Shorter side to floor(size / crop_ratio), then the centre, padded with black where it is too small."""
    height, width = image.shape[:2]
    shorter, resized = min(height, width), math.floor(size / crop_ratio)
    target = tuple(resized * side // shorter for side in (height, width))
    image = resize(image, target, interpolation, resample)
    missing = [max(size - side, 0) for side in target]
    image = np.pad(image, [*((n // 2, n - n // 2) for n in missing), (0, 0)])
    top, left = (round((side - size) / 2) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


# ---- labels: a second reader of the label file, written from docs/format.md alone -------------------------

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


# ---- crops: random boxes and flips -----------------------------------------------------------------------

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def splitmix64(z: int) -> int:
    """The output function of SplitMix64 (Steele, Lea, Flood 2014)."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _WORD
    return z ^ (z >> 31)


def mix_words(words: list[int]) -> int:
    """One 64-bit number from many."""
    state = 0
    for word in words:
        state = splitmix64((state ^ word) + _GOLDEN & _WORD)
    return state


def random_word(stream: int, counter: int) -> tuple[int, int]:
    """Two 32-bit random numbers."""
    word = splitmix64(stream + (counter + 1) * _GOLDEN & _WORD)
    return word >> 32, word & 0xFFFFFFFF


def random_box(
    size: tuple[int, int],
    seed: int,
    key: str,
    crop: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    flip: float,
    epoch: int = 0,
) -> tuple[tuple[int, int, int, int], bool]:
    """One crop from counters, as torchvision's RandomResizedCrop: ((top, left, height, width), flip)."""
    name = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
    stream = mix_words([seed & _WORD, name, epoch])
    height, width = size
    first = 16 * crop
    flipped = random_word(stream, first + 11)[0] / 2**32 < flip
    for attempt in range(10):
        share_bits, ratio_bits = random_word(stream, first + attempt)
        share = scale[0] + (scale[1] - scale[0]) * (share_bits / 2**32)
        # aspect = low * (high / low) ** u, with one square root a bit of u, so that every machine agrees
        aspect, root = ratio[0], ratio[1] / ratio[0]
        for bit in reversed(range(32)):
            root = math.sqrt(root)
            if ratio_bits >> bit & 1:
                aspect *= root
        w = round(math.sqrt(float(height) * width * share * aspect))
        h = round(math.sqrt(float(height) * width * share / aspect))
        if 0 < w <= width and 0 < h <= height:
            top_bits, left_bits = random_word(stream, first + 10)
            return (top_bits * (height - h + 1) >> 32, left_bits * (width - w + 1) >> 32, h, w), flipped
    w, h = width, height
    if width / height < ratio[0]:
        h = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = max(1, round(height * ratio[1]))
    return ((height - h) // 2, (width - w) // 2, h, w), flipped


# ---- calibration: which crops are shown, with which targets ------------------------------------------------


def calibrated_image(
    teachers, truth: int, low: float, middle: float, top: float, epsilon: float, score: str, least: int
) -> list[tuple[int, list[np.ndarray]]]:
    """The crops of one image that are left, and what each teacher's target of them becomes.

    `teachers` holds each teacher's probabilities (M, C) of the same M crops.
    """
    shown, gone = [], []
    for crop, rows in enumerate(zip(*teachers)):
        scores = [row.max() if score == "max" else row[truth] for row in rows]
        beyond = max(max(low - s, s - top, 0) for s in scores)
        (gone if beyond > 0 else shown).append((beyond, crop))
    missing = max(0, least - len(shown))
    crops = sorted(crop for _, crop in shown + sorted(gone)[:missing])
    result = []
    for crop in crops:
        targets = []
        for probabilities in teachers:
            row = probabilities[crop]
            if low < middle and (row.max() if score == "max" else row[truth]) < middle:
                row = np.full(len(row), epsilon / (len(row) - 1))
                row[truth] = 1 - epsilon
            targets.append(row)
        result.append((crop, targets))
    return result


# ---- sampler: which image and crop at which step ---------------------------------------------------------


def permutation(stream: int, count: int) -> list[int]:
    """0 ... count - 1 in random order: sorted by 32 random bits, equal ones by number."""
    return sorted(range(count), key=lambda i: (random_word(stream, i)[0], i))


def planned_batch(
    stored: list[int],
    batch_images: int,
    crops_per_image: int,
    seed: int,
    epoch: int,
    step: int,
    choice: str,
    window: tuple[float, float] = (0, 1),
    epochs: int = 1,
) -> list[tuple[int, list[int]]]:
    """The global batch of a step: (image, its crops) in order. `stored[i]` is how many crops image i has.

    Choices with a window number crops from the easiest to the hardest.
    """
    order = permutation(mix_words([seed & _WORD, 0, epoch]), len(stored))
    batch = []
    for position in range(step * batch_images, (step + 1) * batch_images):
        lap, place = divmod(position, len(order))
        image = order[place]
        if choice == "independent":
            fresh = permutation(mix_words([seed & _WORD, 1, image, epoch, lap]), stored[image])
            crops = fresh[:crops_per_image]
        elif choice != "cycle":
            done = 0.0 if choice == "range" else min(epoch / max(epochs - 1, 1), 1.0)
            moved = 1 - done if choice == "hard_to_easy" else done
            low, high = (edge + (1 - window[0] - window[1]) * moved for edge in window)
            first, last = round(low * stored[image]), round(high * stored[image])
            last = min(max(last, first + crops_per_image), stored[image])
            first = min(first, last - crops_per_image)
            fresh = permutation(mix_words([seed & _WORD, 1, image, epoch, lap]), last - first)
            crops = [first + place for place in fresh[:crops_per_image]]
        else:
            crops = []
            for shown in range(epoch, epoch + crops_per_image):
                number, place = divmod(shown, stored[image])
                crops.append(permutation(mix_words([seed & _WORD, 2, image, number]), stored[image])[place])
        batch.append((image, crops))
    return batch


# ---- loss: targets and soft cross-entropy, dense ----------------------------------------------------------


def dense_target(ids, values, num_classes: int, kind: str) -> np.ndarray:
    """(B, C) float64 targets from top-K labels, one row and one class after the other."""
    dense = np.zeros((len(ids), num_classes))
    for row, row_ids, row_values in zip(dense, ids, np.asarray(values, np.float64)):
        if kind in ("hard", "smoothing"):
            best = int(np.argmax(row_values))
            row_ids, row_values = row_ids[best : best + 1], row_values[best : best + 1]
        if kind == "hard":
            row_values = np.ones(1)
        base = 0.0
        if kind == "marginal_renorm":
            row_values = row_values / max(row_values.sum(), 1e-12)
        elif kind != "hard" and len(row_ids) < num_classes:
            base = (1.0 - row_values.sum()) / (num_classes - len(row_ids))
        row += base
        for class_id, value in zip(row_ids, row_values):
            row[class_id] += value - base
    return dense


def tempered_target(ids, logits, tail, num_classes: int, kind: str, temperature: float) -> np.ndarray:
    """(B, C) float64 targets at a temperature from the K largest logits of every row; `tail` is the log of
    what exp of the others adds up to, of which each has an equal share."""
    dense = np.zeros((len(ids), num_classes))
    for row, row_ids, row_logits, row_tail in zip(dense, ids, np.asarray(logits, np.float64), tail):
        every = np.full(num_classes, -np.inf)
        if len(row_ids) < num_classes:
            every[:] = float(row_tail) - math.log(num_classes - len(row_ids))
        every[row_ids] = row_logits
        row[:] = _softmax(every, temperature)
    kept = np.take_along_axis(dense, np.asarray(ids), axis=1)
    return dense_target(ids, kept, num_classes, kind)


def soft_cross_entropy(logits, target, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Loss of every row (B,) and d loss[b] / d logits[b] (B, C), float64; target (B, C), 0 * log 0 = 0."""
    t = np.asarray(logits, np.float64) / temperature
    t = t - t.max(1, keepdims=True)
    total = np.exp(t).sum(1, keepdims=True)
    # log(total) keeps its digits near 0 when the largest terms, which are 1, are counted apart
    ties = (t == 0).sum(1, keepdims=True)
    log_total = np.log(ties) + np.log1p(np.where(t == 0, 0.0, np.exp(t)).sum(1, keepdims=True) / ties)
    with np.errstate(invalid="ignore"):
        terms = np.where(target == 0, 0.0, target * (log_total - t))
    grad = (target.sum(1, keepdims=True) * np.exp(t) / total - target) / temperature
    return terms.sum(1), grad


def binary_cross_entropy(logits, target) -> tuple[np.ndarray, np.ndarray]:
    """Mean over classes of -y log s - (1 - y) log(1 - s), s = sigmoid(logits), and its gradient, float64."""
    z = np.asarray(logits, np.float64)
    loss = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) - target * z
    sigmoid = np.where(z < 0, np.exp(-np.abs(z)), 1.0) / (1.0 + np.exp(-np.abs(z)))
    return loss.mean(1), (sigmoid - target) / z.shape[1]


# ---- distill: a student against a teacher, row by row and class by class ----------------------------------


def _softmax(logits, temperature: float) -> np.ndarray:
    return np.exp(_log_softmax(logits, temperature))


def _log_softmax(logits, temperature: float = 1.0) -> np.ndarray:
    """Divergences start from logarithms, in which the least likely class keeps its digits."""
    powers = (np.asarray(logits, np.float64) - np.max(logits)) / temperature
    return powers - math.log(np.exp(powers).sum())


def _log_sum(logs) -> float:
    """The logarithm of a sum, from the logarithms of what is added."""
    return float(np.max(logs)) + math.log(np.exp(logs - np.max(logs)).sum())


def _kl(t, s) -> float:
    """Kullback-Leibler divergence of two distributions, from the logarithms of their probabilities."""
    return sum(math.exp(a) * (a - b) for a, b in zip(t, s))


def kl(student, teacher, temperature: float) -> list[float]:
    """Kullback-Leibler divergence of every row's softmaxes, times the temperature squared."""
    return [
        temperature**2 * _kl(_log_softmax(t, temperature), _log_softmax(s, temperature))
        for s, t in zip(student, teacher)
    ]


def bkl(student, teacher, temperature: float) -> list[float]:
    """The mean over classes of KL between Bernoulli(softmax of the teacher) and Bernoulli(sigmoid)."""
    rows = []
    for s, t in zip(np.asarray(student) / temperature, teacher):
        t = _log_softmax(t, temperature)
        teachers = [(t[c], _log_sum(np.delete(t, c))) for c in range(len(t))]
        students = [(-np.logaddexp(0, -x), -np.logaddexp(0, x)) for x in s]  # sigmoid(x) and sigmoid(-x)
        terms = [_kl(a, b) for a, b in zip(teachers, students)]
        rows.append(temperature**2 * sum(terms) / len(terms))
    return rows


def dkd(student, teacher, classes, temperature: float, alpha: float, beta: float) -> list[float]:
    """T**2 * (alpha * KL of the true class against the rest + beta * KL among the rest, renormalised).

    What is left beside a sure class is added up from the others: 1 - p would be rounding alone.
    """
    rows = []
    for s, t, true in zip(student, teacher, classes):
        t, s = _log_softmax(t, temperature), _log_softmax(s, temperature)
        others = [np.delete(p, true) for p in (t, s)]
        binary = [(p[true], _log_sum(rest)) for p, rest in zip((t, s), others)]
        among = [_log_softmax(rest) for rest in others]
        rows.append(temperature**2 * (alpha * _kl(*binary) + beta * _kl(*among)))
    return rows


def dist(student, teacher, temperature: float, beta: float, gamma: float) -> list[float]:
    """T**2 * (beta * (1 - correlation of a row) + gamma * (1 - mean correlation of the columns))."""
    s = np.array([_softmax(row, temperature) for row in student])
    t = np.array([_softmax(row, temperature) for row in teacher])
    intra = np.mean([_correlation(s[:, c], t[:, c]) for c in range(s.shape[1])])
    inter = [_correlation(a, b) for a, b in zip(s, t)]
    return [temperature**2 * (beta * (1 - r) + gamma * (1 - intra)) for r in inter]


def mse_gt(student, teacher, classes, temperature: float, gamma: float) -> list[float]:
    """MSE and GT of G-VBSM: squared differences of logits, their mean over the classes, and cross-entropy.

    The temperature makes no difference.
    """
    losses = []
    for s, t, true in zip(student, teacher, classes):
        squares = [(a - b) ** 2 for a, b in zip(s, t)]
        losses.append(sum(squares) / len(squares) - gamma * _log_softmax(s)[true])
    return losses


def _correlation(a, b) -> float:
    """Pearson's, and less where values hardly differ: a length below 1e-8 counts as 1e-8."""
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / (max(np.linalg.norm(a), 1e-8) * max(np.linalg.norm(b), 1e-8)))


# ---- batch: images on the device --------------------------------------------------------------------------


def prepare(images, mean, std, partners=None, boxes=None, blend=None) -> np.ndarray:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float64, normalised; inside its box a row blends with another."""
    pixels = np.asarray(images, np.float64)
    mixed = pixels.copy()
    if partners is not None:
        for row, (top, left, height, width) in enumerate(boxes):
            cut = (slice(top, top + height), slice(left, left + width))
            other = pixels[partners[row]][cut]
            mixed[row][cut] = (1 - float(blend[row])) * pixels[row][cut] + float(blend[row]) * other
    return ((mixed / 255 - np.asarray(mean)) / np.asarray(std)).transpose(0, 3, 1, 2)


def mix_views(own, other, operation: int, lam: float, box) -> np.ndarray:
    """Pixels (H, W, 3) of a stored mix of two crops, float64: Mixup (bit 1) first, then CutMix (bit 2)."""
    own, other = np.asarray(own, np.float64), np.asarray(other, np.float64)
    mixed = float(lam) * own + (1 - float(lam)) * other if operation & 1 else own.copy()
    if operation & 2:
        top, left, height, width = box
        mixed[top : top + height, left : left + width] = other[top : top + height, left : left + width]
    return mixed


# ---- train: features without a classifier ------------------------------------------------------------------


def knn_class(known, classes, row, k: int, temperature: float = 0.07) -> int:
    """The class of a feature (D,) by the votes of its k nearest among known ones (N, D)."""
    cosines = [float(one @ row / np.linalg.norm(one) / np.linalg.norm(row)) for one in known]
    votes: dict[int, float] = {}
    for place in sorted(range(len(known)), key=lambda i: -cosines[i])[:k]:
        votes[classes[place]] = votes.get(classes[place], 0.0) + math.exp(cosines[place] / temperature)
    return max(votes, key=votes.__getitem__)


# ---- loss: embeddings --------------------------------------------------------------------------------------


def cosine_gradient(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Of 1 - cosine, for the student; both (n, D) float64."""
    length = np.linalg.norm(student, axis=1, keepdims=True)
    s, t = student / length, teacher / np.linalg.norm(teacher, axis=1, keepdims=True)
    return -(t - (s * t).sum(1, keepdims=True) * s) / length


def embedding_loss(student, teacher, loss: str, temperature: float = 1.0, teacher_temperature: float = 1.0):
    """Of one projection and one embedding, (D,) each, in float64."""
    s, t = np.asarray(student, np.float64), np.asarray(teacher, np.float64)
    if loss == "cosine":
        return 1 - float(s @ t) / math.sqrt(float(s @ s) * float(t @ t))
    if loss == "mse":
        return float(np.mean((s - t) ** 2))
    if loss == "smooth_l1":
        return float(np.mean([d * d / 2 if d < 1 else d - 0.5 for d in np.abs(s - t).tolist()]))
    p = np.exp(t / teacher_temperature - np.max(t / teacher_temperature))
    q = s / temperature
    return -float(p / p.sum() @ (q - q.max() - math.log(np.exp(q - q.max()).sum())))


# ---- generate: what a teacher says of crops ---------------------------------------------------------------


def teacher_probabilities(model, path, boxes, flips, preprocess, temperature):
    """(M, C) float32: softmax(model / temperature) of every crop, one at a time, by Pillow and torchvision.

    `preprocess` has size, interpolation ("bilinear" or "bicubic"), mean and std.
    """
    import torch
    from PIL import Image
    from torchvision.transforms import functional as transforms

    image = Image.open(path).convert("RGB")
    rows = []
    for (top, left, height, width), flip in zip(boxes.tolist(), flips):
        crop = image.crop((left, top, left + width, top + height))
        resample = Image.Resampling[preprocess.interpolation.upper()]
        crop = crop.resize((preprocess.size, preprocess.size), resample)
        crop = transforms.hflip(crop) if flip else crop
        pixels = transforms.normalize(transforms.to_tensor(crop), preprocess.mean, preprocess.std)
        with torch.no_grad():
            rows.append(torch.softmax(model(pixels[None])[0] / temperature, dim=0))
    return torch.stack(rows)


# ---- report: what one pass over a label file counts --------------------------------------------------------


def label_statistics(ids, values, num_classes: int, truth: int | None) -> dict[str, float]:
    """Of one image: ids and probabilities (M, K) of its crops, and its class.

    Means of the largest probability and of entropy / log C (what lies outside the top K spread evenly over
    the other classes), their spread, the class that most crops name first (the smallest of several), and the
    parts of the crops that name it, and the image's own class, first.
    """
    largest, entropies, first = [], [], []
    for row, p in zip(np.asarray(ids).tolist(), np.asarray(values, float).tolist()):
        pairs = sorted(zip(p, row), key=lambda pair: -pair[0])
        largest.append(pairs[0][0])
        first.append(pairs[0][1])
        rest, others = max(1 - sum(p), 0), num_classes - len(p)
        spread = [rest / others] * others if others else []
        entropies.append(-sum(q * math.log(q) for q in [*p, *spread] if q > 0) / math.log(num_classes))
    majority = min(set(first), key=lambda c: (-first.count(c), c))
    return {
        "score": sum(largest) / len(largest),
        "spread": float(np.std(largest)),
        "lowest": min(largest),
        "highest": max(largest),
        "entropy": sum(entropies) / len(entropies),
        "majority": majority,
        "unity": first.count(majority) / len(first),
        "agreement": math.nan if truth is None else first.count(truth) / len(first),
    }


# ---- stores: canonical keys and the data index -----------------------------------------------------------

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


# ---- stores: entry points into the Huffman stream of a baseline JPEG ---------------------------------------


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
            at, bit, predictors = image.index(b"\xff", at) + 2, 0, [0] * len(scan)
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
