"""One HTML file with everything in it: text, numbers, charts, pictures and the programs that show them."""

import json
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from fkdx._version import __version__

TEMPLATE = Path(__file__).parent / "template"


def render(template: str, charts: dict[str, Any], data: dict[str, Any], **values: Any) -> str:
    """A page of its own.

    Args:
        template: file name in `fkdx/report/template`.
        charts: Vega-Lite specifications by the id of the element that shows them.
        data: what the page's own script reads.
        values: what the template names. All of it is escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment.get_template(template).render(
        **values,
        version=__version__,
        chart_ids=list(charts),
        style=Markup((TEMPLATE / "page.css").read_text()),
        script=Markup((TEMPLATE / "page.js").read_text()),
        library=library(),
        embedded=embedded({"charts": charts, **data}),
    )


def embedded(data: dict[str, Any]) -> Markup:
    """JSON for a script element: no text in it can end the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


@cache
def library() -> Markup:
    """Vega-Lite with all that it needs, from the vl-convert package; kept in the user's cache, for it takes
    seconds to put together."""
    kept = _cache_folder() / f"vega-lite-{vl_convert.__version__}.js"
    with suppress(OSError):  # not there, or in a home that is another user's
        return Markup(kept.read_text())
    text = vl_convert.javascript_bundle().replace("</script", "<\\/script")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_name(f"{kept.name}.{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(kept)
    except OSError:
        pass  # a home that cannot be written: made anew each time
    return Markup(text)


def as_text(value: Any) -> str:
    """A value of a header or recipe, for a reader: lists without brackets, a dash for None."""
    if isinstance(value, list):
        return ", ".join(map(as_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "–" if value is None else str(value)


def listed(facts: dict[str, Any], before: str = "") -> dict[str, str]:
    """Facts of a header by their names in words; those of a group inside it, such as a teacher's, follow its
    name one by one."""
    words: dict[str, str] = {}
    for name, value in facts.items():
        title = f"{before}{name.replace('_', ' ')}"
        groups = value if isinstance(value, list) else [value]
        if groups and all(isinstance(group, dict) for group in groups):
            for place, group in enumerate(groups, 1):
                words |= listed(group, f"{title} {place}, " if len(groups) > 1 else f"{title}, ")
        else:
            words[title] = as_text(value)
    return words


def number(value: float | int | None) -> str:
    """1,281,167 or 0.1234; a dash for nothing."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fkdx"
