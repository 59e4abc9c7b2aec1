"""`fkdx doctor`: show what was built, which CPU variant runs, and what this machine offers."""

import argparse
import platform
import re
from importlib import metadata

from PIL import features

from fkdx._version import __version__
from fkdx.commands.options import purpose
from fkdx.facts import Facts, add_json
from fkdx.system import available_cores


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fkdx doctor", description=purpose(__doc__))
    parser.add_argument(
        "--report", action="store_true", help="print one block for an issue, without paths or names of yours"
    )
    add_json(parser)
    args = parser.parse_args(argv)
    found = report()
    if args.report:
        found = [(name, public(value)) for name, value in found]
    width = max(len(name) for name, _ in found)
    lines = "\n".join(f"{name:<{width}}  {value}" for name, value in found)
    with Facts(args.json) as facts:
        facts.say(f"```text\n{lines}\n```" if args.report else lines, **dict(found))
    return 0


def public(text: str) -> str:
    """The text with every path cut down to its last part, and without the name of the machine."""
    text = re.sub(r"(?:/[^/\s:;,'\"()]+)+/([^/\s:;,'\"()]+)", r".../\1", text)
    return text.replace(platform.node(), "...") if platform.node() else text


def report() -> list[tuple[str, str]]:
    """The lines of the report as (name, value)."""
    return [
        ("fkdx", __version__),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("cores", str(available_cores())),
        ("loader memory", loader_memory()),
        *_extension(),
        ("pillow", pillow()),
        *((name, _installed(name)) for name in ("numpy", "torch", "torchvision", "timm")),
        ("gpu", _gpu()),
    ]


def loader_memory(crops: int = 256, size: int = 224, prefetch: int = 2) -> str:
    """Memory of a CropLoader: its slots (batches on the way, one in use, one spare), and one image per
    thread."""
    slots = (prefetch + 2) * crops * size * size * 3
    threads = available_cores()
    image = 500 * 375 * 4  # pixels are decoded as RGBX
    return (
        f"{slots / 1e6:.0f} MB in {prefetch + 2} slots of {crops} crops of {size} px, and for each of "
        f"{threads} threads one decoded image ({image / 1e6:.2f} MB at 500 x 375)"
    )


def _extension() -> list[tuple[str, str]]:
    try:
        from fkdx import _C
    except ImportError as error:
        return [("extension", f"missing ({error}); build it with `pip install .` or `make build`")]
    info = _C.build_info()
    targets = info["cuda_targets"]
    return [
        ("extension", f"{info['version']}, compiler {info['compiler']}"),
        ("libjpeg-turbo", libjpeg(info)),
        ("cpu variant", f"{_C.selected_cpu()} (this machine can: {', '.join(_C.supported_cpus())})"),
        (
            "cuda part",
            f"{cuda_state()}, built for {targets}" if targets else "not built (no nvcc, or FKDX_CUDA=0)",
        ),
    ]


def libjpeg(info: dict) -> str:
    """Which decoder this build has."""
    origin = "bundled" if info["jpeg_bundled"] else "the system's"
    simd = "with SIMD" if info["jpeg_simd"] else "without SIMD (slow; install nasm and build again)"
    huffman = "our Huffman decoder" if info["jpeg_huffman"] else "its own Huffman decoder (slower)"
    return f"{info['jpeg']}, {origin}, {simd}, {huffman}"


def pillow() -> str:
    """What decodes everything but JPEG, and with which library it would decode that."""
    return f"{_installed('pillow')}, with libjpeg-turbo {features.version('libjpeg_turbo') or '(none)'}"


def cuda_state() -> str:
    """Whether the CUDA part works here: it computes one loss, which must be that of the CPU."""
    try:
        import torch

        from fkdx import _C
        from fkdx.loss import SparseTarget, loss_and_grad

        if not _C.cuda_device_count():
            return "idle (no GPU)"
        logits = torch.arange(8.0).reshape(2, 4)
        target = SparseTarget.from_classes(torch.tensor([1, 3]), 4)
        for got, want in zip(loss_and_grad(logits.cuda(), target.to("cuda")), loss_and_grad(logits, target)):
            torch.testing.assert_close(got.cpu(), want)
    except ImportError as error:
        return f"not tried ({error})"
    except Exception as error:  # whatever a driver or a GPU does, the report goes on
        return f"does not run here ({str(error).splitlines()[0]})"
    return "works"


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _gpu() -> str:
    try:
        import torch
    except ImportError:
        return "unknown (torch is not installed)"
    if not torch.cuda.is_available():
        return "none seen by torch"
    count = torch.cuda.device_count()
    names = {torch.cuda.get_device_name(i) for i in range(count)}
    return f"{count} x {', '.join(sorted(names))}, CUDA {torch.version.cuda}"
