"""Every public name has an example in its docstring, and the examples run."""

import doctest
import inspect
from pathlib import Path

import pytest

import fkdx

NAMES = [name for name in fkdx.__all__ if name not in ("__version__", "ImageError", "FormatError")]


@pytest.mark.parametrize("name", NAMES)
def test_the_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = inspect.getdoc(getattr(fkdx, name))
    example = doctest.DocTestParser().get_doctest(text, {}, f"fkdx.{name}", None, None)
    assert example.examples, "expected an example in the docstring"
    assert doctest.DocTestRunner().run(example).failed == 0, "see above"
