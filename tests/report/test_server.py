"""The local server gives rows and images by number, to those who know its token, and nothing else."""

import socket

import pytest
from starlette.testclient import TestClient

from fkdx import LabelFile
from fkdx.commands.serve import listen, read_page
from fkdx.report.label_page import open_report
from fkdx.report.server import HOST, application
from fkdx.stores import open_store


@pytest.fixture(scope="module")
def client(labelled) -> TestClient:
    labels, images = labelled
    return TestClient(application(open_report(LabelFile(labels), open_store(images)), "labels", "token"))


def test_page_rows_and_image(client):
    assert "server\\u003c" not in client.get("/token/").text
    assert '"server": true' in client.get("/token/").text
    answer = client.get("/token/rows", params={"sort": "score", "descending": "1", "count": "4"}).json()
    assert answer["total"] == 9
    scores = [row["score"] for row in answer["rows"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 4
    detail = client.get("/token/image", params={"number": answer["rows"][0]["image"]}).json()
    assert len(detail["boxes"]) == detail["crops"] == 6
    assert detail["picture"]


def test_a_page_that_is_none(tmp_path):
    (tmp_path / "x.html").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"serve: report, got no text, expected a page that .*x.html"):
        read_page(str(tmp_path / "x.html"))


def test_search_and_class(client):
    found = client.get("/token/rows", params={"search": "BEE/"}).json()
    assert {row["folder"] for row in found["rows"]} == {"bee"}
    found = client.get("/token/rows", params={"class": "ant"}).json()
    assert all("ant" in (row["folder"], row["teacher"]) for row in found["rows"])
    assert client.get("/token/rows", params={"class": "nobody"}).json()["total"] == 0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/wrong/", 404),
        ("/wrong/rows", 404),
        ("/token/../../etc/passwd", 404),
        ("/token/%2e%2e/%2e%2e/etc/passwd", 404),
        ("/token/image?number=9", 400),
        ("/token/image?number=-1", 400),
        ("/token/image?number=ant/1.jpg", 400),
        ("/token/image?number=%C2%B2", 400),  # a digit to Unicode, no number to Python
        (f"/token/image?number={'9' * 5000}", 400),
        ("/token/rows?count=0", 400),
        ("/token/rows?sort=__class__", 400),
    ],
)
def test_anything_else_is_refused(client, path, status):
    assert client.get(path).status_code == status


def test_a_port_that_is_taken_is_named():
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} .*choose another --port"):
            listen(HOST, port)
