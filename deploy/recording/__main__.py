"""``python -m deploy.recording PICTURE [--check] [--title TEXT] [--mask REGEX=TEXT] -- COMMAND``: record a command.

Writes PICTURE (SVG) and an asciicast beside it. With ``--check`` it writes nothing: it runs the command and fails where
the lines, masked, differ from those of PICTURE.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.recording import picture
from deploy.recording.masks import Masks, essence
from deploy.recording.performance import Failed, perform
from deploy.recording.picture import TooLarge
from deploy.recording.terminal import Line, Terminal, UnknownOutput, text_of


def main(words: Sequence[str] | None = None) -> int:
    """Record or check; 0 = done, 1 = the command failed or the picture is stale, 2 = wrong usage."""
    asked = _parser().parse_args(words)
    try:
        lines = record(asked)
    except (Failed, UnknownOutput, TooLarge, OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"recording: {error}\n")
        return 1
    except re.error as error:
        sys.stderr.write(f"recording: --mask: {error}\n")
        return 2
    return check(asked.picture, lines) if asked.check else write(asked, lines)


def record(asked: argparse.Namespace) -> list[Line]:
    """Run the command; its lines, masked. What it prints is passed on, so that one sees it go on.

    Raises:
        Failed: it did not end well.
        UnknownOutput: it printed what cannot be drawn.
    """
    terminal = Terminal(*asked.size)
    for text in perform(asked.command, asked.size, asked.seconds):
        sys.stdout.write(text.replace("\r\n", "\n"))
        sys.stdout.flush()
        terminal.feed(text)
    masks = Masks(asked.mask)
    return [masks.line(line) for line in terminal.lines()]


def write(asked: argparse.Namespace, lines: Sequence[Line]) -> int:
    """Write the picture and the asciicast."""
    try:
        drawn = picture.draw(lines, asked.size, asked.title)
    except TooLarge as error:
        sys.stderr.write(f"recording: {error}\n")
        return 1
    asked.picture.parent.mkdir(parents=True, exist_ok=True)
    asked.picture.write_text(drawn, "utf-8")
    asked.picture.with_suffix(".cast").write_text(picture.cast(lines, asked.size, asked.title), "utf-8")
    sys.stdout.write(f"recording: {asked.picture}: {len(lines)} lines, {len(drawn.encode())} bytes\n")
    return 0


def check(path: Path, lines: Sequence[Line]) -> int:
    """Whether the committed picture shows these lines."""
    try:
        before = picture.transcript(path.read_text("utf-8"))
    except FileNotFoundError:
        before = []
    old, new = [essence(text) for text in before], [essence(text_of(line)) for line in lines]
    if old == new:
        sys.stdout.write(f"recording: {path} shows what the command prints\n")
        return 0
    sys.stderr.write("\n".join(difflib.unified_diff(old, new, str(path), "now", lineterm="", n=1)) + "\n")
    sys.stderr.write(f"recording: {path} is stale; fix: make recording\n")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.recording", description=__doc__)
    parser.add_argument("picture", type=Path, help="SVG file")
    parser.add_argument("--check", action="store_true", help="compare only")
    parser.add_argument("--title", default="ostiary", help="of the window (%(default)s)")
    parser.add_argument("--size", type=_size, default=(100, 30), metavar="100x30", help="columns and rows")
    parser.add_argument("--seconds", type=float, default=600.0, help="longest run (%(default)s)")
    parser.add_argument("--mask", type=_mask, action="append", default=[], metavar="REGEX=TEXT", help="again for more")
    parser.add_argument("command", nargs="+", help="after --")
    return parser


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{2,3})x(\d{1,3})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 100x30")
    return int(match[1]), int(match[2])


def _mask(text: str) -> tuple[str, str]:
    pattern, separator, instead = text.rpartition("=")
    if not separator or not pattern:
        raise argparse.ArgumentTypeError(f"{text!r} is not REGEX=TEXT")
    return pattern, instead


if __name__ == "__main__":
    sys.exit(main())
