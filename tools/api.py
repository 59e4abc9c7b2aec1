#!/usr/bin/env python3
"""Write docs/api.md from the docstrings of the public names: `python tools/api.py`"""

import ast
import inspect
import re
import textwrap
from importlib import import_module
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs/api.md"
HEAD = """# Python API

Written by `tools/api.py` from the docstrings; the tests run every example. Names are imported on first use,
so `import fkdx` needs neither torch nor a GPU.
"""
CHAPTERS = {
    "Images and crops": [
        *("fkdx.decode_crops", "fkdx.resize_crops", "fkdx.validation_crop", "fkdx.image_size"),
        "fkdx.ImageError",
    ],
    "Labels": [
        *("fkdx.LabelFile", "fkdx.LabelWriter", "fkdx.labels.ImageLabels", "fkdx.labels.Mixes"),
        "fkdx.FormatError",
    ],
    "Loaders": ["fkdx.CropLoader", "fkdx.ValidationLoader", "fkdx.loader.Batch"],
    "Batches": ["fkdx.prepare", "fkdx.Mixer", "fkdx.batch.Mix", "fkdx.topk_probabilities"],
    "Targets and losses": [
        *("fkdx.SparseTarget", "fkdx.soft_cross_entropy", "fkdx.binary_cross_entropy", "fkdx.loss_and_grad"),
    ],
    "Calibration": ["fkdx.Calibration"],
}
ERRORS = {
    "fkdx.ImageError": "A ValueError: an image that cannot be decoded, or a box outside it, with its path.",
    "fkdx.FormatError": "A ValueError: a label file that is incomplete, damaged or of another format.",
}


def page() -> str:
    chapters = [
        f"## {title}\n\n" + "\n".join(entry(name) for name in names) for title, names in CHAPTERS.items()
    ]
    return HEAD + "\n" + "\n".join(chapters)


def entry(path: str) -> str:
    """Heading, signature and docstring of a public name, then those of its methods."""
    if path in ERRORS:
        return f"### {path}\n\n{textwrap.fill(ERRORS[path], 120)}\n"
    module, name = path.rsplit(".", 1)
    thing = getattr(import_module(module), name)
    definition = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
    parts = [f"### {path}\n", code(signature(path, definition)), prose(inspect.getdoc(thing))]
    for method in methods(definition):
        text = inspect.cleandoc(ast.get_docstring(method))
        parts += [f"#### {name}.{method.name}\n", code(signature(f".{method.name}", method)), prose(text)]
    return "\n".join(parts)


def methods(definition: ast.stmt) -> list[ast.FunctionDef]:
    """Public methods that have a docstring."""
    if not isinstance(definition, ast.ClassDef):
        return []
    found = [node for node in definition.body if isinstance(node, ast.FunctionDef)]
    return [node for node in found if not node.name.startswith("_") and ast.get_docstring(node)]


def signature(name: str, definition: ast.stmt) -> str:
    """As the source has it; one argument a line where it does not fit into 100 columns."""
    if isinstance(definition, ast.ClassDef):
        own = [n for n in definition.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        if not own:
            fields = [node for node in definition.body if isinstance(node, ast.AnnAssign)]
            return in_columns(name, [ast.unparse(field) for field in fields], "")
        definition = own[0]
    returns = f" -> {unquoted(ast.unparse(definition.returns))}" if definition.returns else ""
    if any(ast.unparse(one) == "property" for one in definition.decorator_list):
        return f"{name}{returns}"
    listed = [argument for argument in arguments(definition.args) if argument not in ("self", "cls")]
    return in_columns(name, listed, "" if definition.name == "__init__" else returns)


def arguments(given: ast.arguments) -> list[str]:
    """Each argument with its type and default; no public name takes *args or **kwargs."""
    missing = [None] * (len(given.args) - len(given.defaults))
    listed = [argument(a, default) for a, default in zip(given.args, missing + given.defaults)]
    keywords = [argument(a, default) for a, default in zip(given.kwonlyargs, given.kw_defaults)]
    return listed + ["*"] * bool(keywords) + keywords


def argument(given: ast.arg, default: ast.expr | None) -> str:
    kind = f": {unquoted(ast.unparse(given.annotation))}" if given.annotation else ""
    return f"{given.arg}{kind}" + (f" = {ast.unparse(default)}" if default else "")


def in_columns(name: str, arguments: list[str], returns: str) -> str:
    line = f"{name}({', '.join(arguments)}){returns}"
    if len(line) <= 100:
        return line
    return f"{name}(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){returns}"


def unquoted(text: str) -> str:
    """Without the quotes of an annotation that the source quotes."""
    return text.strip("'")


def prose(docstring: str) -> str:
    """Markdown of a docstring: lists for its sections, a block of code for its example."""
    blocks = re.split(r"^(Args|Returns|Raises|Attributes|Example):\n", docstring, flags=re.M)
    parts = [paragraphs(blocks[0])]
    for title, text in zip(blocks[1::2], blocks[2::2]):
        inside = re.match(r"(?:    .*\n?|\n)*", text)[0]
        parts.append(section(title, textwrap.dedent(inside).strip("\n")))
        parts.append(paragraphs(text[len(inside) :]))
    return "\n".join(part for part in parts if part)


def section(title: str, text: str) -> str:
    if title == "Example":
        return code(text, "pycon")
    entries = re.split(r"\n(?=\S)", text)
    if title == "Returns":
        return f"{wrapped(f'*Returns:* {text}')}\n"
    listed = []
    for one in entries:
        names, _, meaning = " ".join(one.split()).partition(": ")
        listed.append(wrapped(f"* `{names}`: {meaning}" if meaning else f"* {names}", "  "))
    return f"*{title}:*\n\n" + "\n".join(listed) + "\n"


def wrapped(text: str, indent: str = "") -> str:
    text = " ".join(text.split())
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def paragraphs(text: str) -> str:
    """Tables and aligned lists as blocks of code, all else as it is."""
    done = []
    for block in re.split(r"\n\n+", text.strip("\n")):
        aligned = re.search(r"^=====|^\w[\w, ]*: {2,}|^    ", block, re.M)
        done.append(code(block, "text") if aligned else f"{block}\n" if block else "")
    return "\n".join(part for part in done if part)


def code(text: str, language: str = "python") -> str:
    return f"```{language}\n{text}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page())
