"""`fkdx serve`: the page of a label file with all its images, from a local server."""

import argparse
import socket
import sys
from pathlib import Path

from tqdm import tqdm

from fkdx.commands.options import DATA_HELP, add_classes, at_least
from fkdx.errors import refuse
from fkdx.facts import Facts, add_json
from fkdx.labels import LabelFile
from fkdx.stores import open_store


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fkdx serve", description=__doc__.split(": ", 1)[1])
    parser.add_argument(
        "labels", help="a label file or folder of shards, or a report that `fkdx report` wrote"
    )
    parser.add_argument("--images", metavar="DATA", help=f"images of the labels, for pictures; {DATA_HELP}")
    add_classes(parser)
    parser.add_argument("--against", metavar="LABELS", help="labels of another teacher over the same crops")
    parser.add_argument(
        "--port", type=at_least(0, 65535), default=0, help="port on this machine (default: any free one)"
    )
    add_json(parser)
    args = parser.parse_args(argv)
    import uvicorn

    from fkdx.report.server import HOST, application, new_token, page_application

    listening = listen(HOST, args.port)
    token = new_token()
    if args.labels.endswith(".html"):
        app = page_application(read_page(args.labels), token)
    else:
        app = application(open_labels(args), Path(args.labels).name, token)
    address = f"http://{HOST}:{listening.getsockname()[1]}/{token}/"
    with Facts(args.json) as facts:
        facts.say(f"{address}  (Ctrl-C ends it)", address=address)
    sys.stdout.flush()
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listening])
    return 0


def read_page(path: str) -> str:
    """The text of a page. ValueError where it is none."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        refuse("serve", "report", "no text", "a page that `fkdx report` wrote", path)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; OSError in one line where the port is taken."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise OSError(
            f"serve: port {port} cannot be used ({error.strerror}); choose another --port"
        ) from None
    return listening


def open_labels(args: argparse.Namespace):
    from fkdx.report.label_page import open_report

    labels = LabelFile(args.labels)
    source = open_store(args.images, args.classes) if args.images else None
    other = LabelFile(args.against) if args.against else None
    with tqdm(total=len(labels), desc="reading", unit="image", disable=None, file=sys.stderr) as bar:
        return open_report(labels, source, other, advance=bar.update)
