"""The page of a label file from a small local server, for sets too large for one file.

It answers this machine alone, under an address with a random token, and only reads: an image is asked for by
its number in the label file, never by a path.
"""

import secrets
import threading
from collections.abc import Callable
from functools import partial

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from fkdx.report.inspector import Columns, Row
from fkdx.report.label_page import LabelReport, label_page

MOST_ROWS = 5000  # of one answer
HOST = "127.0.0.1"


def application(report: LabelReport, title: str, token: str) -> Starlette:
    """The server's application: `/TOKEN/`, `/TOKEN/rows` and `/TOKEN/image`; anything else is not found."""
    page = label_page(report, title, server=True)
    table = Table(report)
    # LabelFile and decoder are safe from several threads; Pillow's thumbnails cost the most, one at a time.
    lock = threading.Lock()

    def image(request: Request) -> Row:
        number = _integer(request, "number", 0, len(report.labels) - 1)
        with lock:
            return report.inspector.detail(number)

    routes = [
        Route("/{token}/", partial(_guarded, token, lambda _: HTMLResponse(page))),
        Route("/{token}/rows", partial(_guarded, token, lambda request: JSONResponse(table.rows(request)))),
        Route("/{token}/image", partial(_guarded, token, lambda request: JSONResponse(image(request)))),
    ]
    return Starlette(routes=routes)


def page_application(page: str, token: str) -> Starlette:
    """A server of one page that needs nothing more, such as one of `fkdx report`."""
    return Starlette(routes=[Route("/{token}/", partial(_guarded, token, lambda _: HTMLResponse(page)))])


def new_token() -> str:
    return secrets.token_urlsafe(16)


class Table:
    """Rows of all images of a label file: sorted, searched and cut as asked for."""

    def __init__(self, report: LabelReport) -> None:
        self._report = report

    def rows(self, request: Request) -> Row:
        """`{"total": matching images, "rows": the first ones of them}`."""
        query = request.query_params
        sort = query.get("sort", "agreement")
        if sort not in ("key", "folder", "teacher", *vars(Columns())):
            raise HTTPException(400, f"sort, got '{sort}', expected a column of the table")
        count = _integer(request, "count", 1, MOST_ROWS, 100)
        chosen = self._matching(query.get("search", ""), query.get("class", ""))
        order = self._order(sort, chosen, query.get("descending") == "1")
        return {"total": len(chosen), "rows": [self._report.inspector.row(i) for i in order[:count].tolist()]}

    def _matching(self, search: str, name: str) -> np.ndarray:
        found = self._report.found
        chosen = np.arange(len(self._report.labels))
        if name:
            number = self._report.names.index(name) if name in self._report.names else -2
            chosen = chosen[(found.truth == number) | (found.per_image.majority == number)]
        if search:
            words, keys = search.lower(), self._report.labels.keys
            chosen = np.array([i for i in chosen.tolist() if words in keys[i].lower()], np.int64)
        return chosen

    def _order(self, sort: str, chosen: np.ndarray, descending: bool) -> np.ndarray:
        """`chosen` in the order of a column, images without the number last."""
        if sort == "key":  # the order of the file
            return chosen[::-1] if descending else chosen
        found = self._report.found
        columns = {"folder": found.truth, "teacher": found.per_image.majority}
        numbers = columns[sort] if sort in columns else getattr(found.per_image, sort)
        numbers = numbers[chosen].astype(np.float64)
        return chosen[np.argsort(-numbers if descending else numbers, kind="stable")]


async def _guarded(token: str, answer: Callable[[Request], Response], request: Request) -> Response:
    if not secrets.compare_digest(request.path_params["token"].encode(), token.encode()):
        raise HTTPException(404)
    response = answer(request)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _integer(request: Request, name: str, least: int, most: int, default: int | None = None) -> int:
    text = request.query_params.get(name, "" if default is None else str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20) or not least <= int(text) <= most:
        raise HTTPException(400, f"{name}, got '{text[:20]}', expected {least} to {most}")
    return int(text)
