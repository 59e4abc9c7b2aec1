"""What bench/gpu.sh measured, beside what we want: python bench/gpu_table.py OUT

Reads OUT/card.txt and OUT/{loss,batch,generate,train}.json, as far as they are there, prints one line a
number and writes all to OUT/gpu.json. What moves memory is measured against a copy of the same bytes on the
same card; microseconds are demanded of an H200 only.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

PARTS = ("loss", "batch", "generate", "train")


@dataclass(frozen=True)
class Line:
    """A number, and what it should be: at most or at least the goal; None where only the number is of use."""

    what: str
    value: float
    most: float | None = None
    least: float | None = None

    @property
    def verdict(self) -> str:
        if self.most is None and self.least is None:
            return ""
        good = self.value <= self.most if self.least is None else self.value >= self.least
        goal = f"<= {self.most:g}" if self.least is None else f">= {self.least:g}"
        return f"{goal:<10} {'met' if good else 'MISSED'}"


COPY = "copy of the same bytes"
MOST_COPY = 1.15  # times the copy
# GPU time of loss and gradient: (rows, classes, bytes a logit) -> microseconds on an H200, times faster than
# others
LOSS = {
    (1024, 1000, 2): {"us": 3.5, "torch.compile dense": 3, "torch dense": 12, "triton": 1},
    (4096, 1000, 4): {"us": 10.5, "triton": 1},
    (4096, 21841, 2): {"us": 95, "torch.compile dense": 4, "triton": 1.5},
    (4096, 21848, 2): {"us": 95, "triton": 1},
}
WALL = {(1024, 1000, 2): 20}  # times faster than FKD's recovery on the CPU, copy and loss


def loss_lines(rows: list[dict], card: str) -> Iterator[Line]:
    for row in rows:
        what, us = row["what"], row.get("us", {})
        if what == "host time of a call":
            yield Line("host of loss_and_grad, us", us["loss_and_grad"], most=8)
            continue
        if "fkdx" not in us:  # it failed: see the log
            continue
        width = 4 if row["dtype"] == "torch.float32" else 2
        case = row["rows"], row["classes"], width
        name = f"loss {case[0]} x {case[1]} {row['dtype'][6:]}"
        if what == "GPU time":
            goals = LOSS.get(case, {})
            yield Line(f"{name}, us", us["fkdx"], most=goals.get("us") if "H200" in card else None)
            yield from beside_copy(name, us, MOST_COPY)
            for other in us:
                if other not in ("fkdx", COPY):
                    yield Line(f"{name}, {other} / fkdx", us[other] / us["fkdx"], least=goals.get(other))
            yield Line(f"{name}, bytes needed a logit", row["bytes"], most=2.05 if width == 2 else 4.05)
        elif what.startswith("GPU time"):  # of dense targets
            yield Line(f"{name},{what.removeprefix('GPU time')}, us", us["fkdx"])
            yield from beside_copy(f"{name},{what.removeprefix('GPU time')}", us)
        elif "FKD" in us:
            yield Line(f"{name}, wall, FKD / fkdx", us["FKD"] / us["fkdx"], least=WALL.get(case))


def beside_copy(name: str, us: dict, most: float | None = None) -> Iterator[Line]:
    if COPY in us:
        yield Line(f"{name}, fkdx / copy", us["fkdx"] / us[COPY], most=most)


def batch_lines(rows: list[dict], card: str) -> Iterator[Line]:
    for row in rows:
        us = row["us"]
        yield Line(f"{row['what']}, us", us["fkdx"])
        yield from beside_copy(row["what"], us, MOST_COPY)
        for other in us:
            if other not in ("fkdx", COPY):
                yield Line(f"{row['what']}, {other} / fkdx", us[other] / us["fkdx"])


def generate_lines(numbers: dict, card: str) -> Iterator[Line]:
    yield Line("generate, crops/s of the job", numbers["job"])
    yield Line("generate, of the teacher alone", numbers["share"], least=0.95)


def train_lines(ways: dict, card: str) -> Iterator[Line]:
    yield Line("train, crops/s", ways["fkdx"]["crops_per_second"])
    yield Line("train, of resident data", ways["fkdx"]["of_resident"], least=0.97)
    yield Line("train, share of waiting", ways["fkdx"]["waits"], most=0.02)
    yield Line("train, fkdx / FKD", ways["fkdx"]["crops_per_second"] / ways["fkd"]["crops_per_second"])


def copy_rate(loss: list[dict]) -> float | None:
    """Gigabytes a second that the card reads and writes in the largest copy that was timed."""
    widths = {"torch.float32": 4, "torch.bfloat16": 2}
    rates = [
        2 * row["rows"] * row["classes"] * widths[row["dtype"]] / row["us"][COPY] / 1e3
        for row in loss
        if row["what"] == "GPU time" and COPY in row.get("us", {})
    ]
    return max(rates, default=None)


def main() -> int:
    out = Path(sys.argv[1])
    card = (out / "card.txt").read_text().strip() if (out / "card.txt").exists() else "card   unknown"
    paths = {part: out / f"{part}.json" for part in PARTS}
    numbers = {part: json.loads(path.read_text()) for part, path in paths.items() if path.exists()}
    readers = dict(zip(PARTS, (loss_lines, batch_lines, generate_lines, train_lines)))
    lines = [line for part, found in numbers.items() for line in readers[part](found, card)]
    for line in lines:
        print(f"{line.what:<58} {line.value:>10.3g}   {line.verdict}".rstrip())
    for part in PARTS:
        if part not in numbers:
            print(f"{part}: not measured")
    table = [asdict(line) for line in lines]
    rate = copy_rate(numbers.get("loss", []))
    facts = {"card": card.removeprefix("card").strip(), "copy_gb_per_s": rate}
    print(f"{card}" + (f", copies {rate:.0f} GB/s" if rate else ""))
    (out / "gpu.json").write_text(json.dumps({**facts, "table": table, **numbers}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
