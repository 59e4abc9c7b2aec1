"""`fkdx completion`: print a script that completes verbs and flags with the Tab key."""

import argparse
from contextlib import suppress
from importlib import import_module

from fkdx.cli.verbs import VERBS

HELP = """To switch it on for good:

  bash   fkdx completion bash > ~/.local/share/bash-completion/completions/fkdx
  zsh    fkdx completion zsh > "${fpath[1]}/_fkdx"
  fish   fkdx completion fish > ~/.config/fish/completions/fkdx.fish
"""


class _Found(BaseException):
    """Ends a verb where it would have read its command line."""


def main(argv: list[str] | None = None) -> int:
    import shtab

    parser = argparse.ArgumentParser(
        prog="fkdx completion",
        description="Print a script that completes verbs and flags with the Tab key.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS, help="the shell that reads the script")
    args = parser.parse_args(argv)
    print(shtab.complete(all_verbs(), args.shell))
    return 0


def all_verbs() -> argparse.ArgumentParser:
    """One parser of the whole command; verbs whose packages are not installed are in it without flags."""
    whole = argparse.ArgumentParser(prog="fkdx")
    verbs = whole.add_subparsers(dest="verb")
    for verb, (_, text) in VERBS.items():
        verbs.add_parser(verb, help=text)
        with suppress(ModuleNotFoundError):
            verbs.choices[verb] = parser_of(verb)
    return whole


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The parser of a verb, caught where the verb uses it."""
    found: list[argparse.ArgumentParser] = []

    def catch(parser: argparse.ArgumentParser, *_: object) -> None:
        found.append(parser)
        raise _Found

    kept = argparse.ArgumentParser.parse_known_args
    argparse.ArgumentParser.parse_known_args = catch
    try:
        with suppress(_Found):
            import_module(VERBS[verb][0]).main([])
    finally:
        argparse.ArgumentParser.parse_known_args = kept
    return found[0]
