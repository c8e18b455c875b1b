"""Recordings: what a terminal shows, what is masked in it, and the picture that comes of it."""

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from deploy.recording.__main__ import main
from deploy.recording.masks import Masks, essence
from deploy.recording.picture import LARGEST, TooLarge, draw, transcript
from deploy.recording.terminal import Line, Terminal, UnknownOutput, text_of

SIZE = (40, 5)
ID = "01a20edd-00f4-764a-942f-6a8982f8413"


def printed(*pieces: str, size: tuple[int, int] = SIZE) -> list[Line]:
    """What a terminal holds after this output."""
    terminal = Terminal(*size)
    for piece in pieces:
        terminal.feed(piece)
    return terminal.lines()


def texts(lines: list[Line]) -> list[str]:
    """Their texts."""
    return [text_of(line) for line in lines]


def masked(*rows: str) -> list[str]:
    """These lines, masked as one recording."""
    masks = Masks()
    return [text_of(masks.line(line)) for line in printed("\r\n".join(rows), size=(200, 50))]


class TestTerminal:
    """Bytes in, lines out."""

    @pytest.mark.parametrize(
        ("output", "lines"),
        [
            ("a\r\nb", ["a", "b"]),
            ("10 %\r90 %\r\x1b[2K100 %\r\n", ["100 %"]),
            ("one\r\ntwo\r\n\x1b[2A\x1b[2KONE\r\n\x1b[1B!", ["ONE", "two", "!"]),
            ("abcdef\x1b[3D\x1b[Kx", ["abcx"]),
            ("abc\r\x1b[1Kx", ["xbc"]),
            ("abc\b\bX", ["aXc"]),
            ("a\tb\x1b[2Cc\x1b[1Gd", ["d       b  c"]),
            ("x" * 45, ["x" * 40, "x" * 5]),
            ("\x1b[?25l\x1b[31mred\x1b[0m\x1b[?25h\a", ["red"]),
            ("one\x1b[?1049h\x1b[2J\x1b[3;4Hhidden\x1b[?1049l two", ["one two"]),
            ("top\r\nlow\x1b[1;1H\x1b[J!", ["!"]),
            ("日本", ["日本"]),
            ("", []),
            ("a   \r\n\r\n\r\n", ["a"]),
        ],
    )
    def test_what_is_drawn_is_what_a_person_would_see(self, output: str, lines: list[str]) -> None:
        """In one piece and character by character alike."""
        assert texts(printed(output)) == lines
        assert texts(printed(*output)) == lines

    def test_lines_that_scrolled_away_are_kept(self) -> None:
        """And the cursor cannot go back to them."""
        output = "\r\n".join(str(at) for at in range(20)) + "\x1b[99A!"
        rows = texts(printed(output))
        assert rows[:15] == [str(at) for at in range(15)]
        assert rows[15:] == ["15!", "16", "17", "18", "19"]

    def test_colours_are_kept(self) -> None:
        """The sixteen, the 256 and the sixteen million."""
        (line,) = printed("\x1b[1;32ma\x1b[0;38;5;200mb\x1b[38;2;1;2;3;7mc\x1b[md")
        styles = [str(cell.style) for cell in line]
        assert styles == ["bold color(2)", "color(200)", "reverse #010203", "none"]

    @pytest.mark.parametrize(
        "output",
        ["\x1b]0;title\a", "\x1b[5n", "\x1b(0", "\x1b[?7l", "\x0b", "\x1b[3J", "\x1b[38;9mx", "\x1b[73mx", "e\u0301"],
    )
    def test_what_is_not_known_is_refused(self, output: str) -> None:
        """A picture that guesses would show something nobody saw."""
        with pytest.raises(UnknownOutput):
            printed(output)


class TestMasks:
    """What differs from run to run."""

    def test_everything_that_differs_is_masked(self) -> None:
        """Ids, times, durations, ports, digests, tokens, temporary folders and process ids."""
        token = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJkb3JhIn0.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
        assert masked(
            f"call {ID}9 took 12.3 ms",
            "at 2026-03-02T10:00:00.123Z, or 10:00:00",
            f"root {'a' * 43}= and {'0f' * 32}",
            f"token {token} at http://127.0.0.1:40123/mcp",
            "in /tmp/ostiary-demo-x1/state by process 4711",
            "waited 3 s",
        ) == [
            "call (id-1) took # ms",
            "at (time), or (time)",
            "root (digest) and (digest)",
            "token (token) at http://127.0.0.1:#/mcp",
            "in /tmp/#/state by process #",
            "waited # s",
        ]

    def test_what_says_something_stays(self) -> None:
        """Amounts, counts, names and numbers of orders."""
        row = "PO-1001: 5,000.00 EUR, 8 intents, status 404, IBAN AT611904300234573201, 20 calls a run"
        assert masked(row) == [row]

    def test_one_can_see_which_ids_are_the_same(self) -> None:
        """They are numbered as they appear."""
        assert masked(f"{ID}1 {ID}2", f"{ID}1") == ["(id-1) (id-2)", "(id-1)"]

    def test_columns_stay_where_they_were(self) -> None:
        """The gap after a masked word gives or takes."""
        rows = masked(f"{ID}1   end", "9.25 ms   end", "10.25 ms  end", "name      end")
        assert [row.index("end") for row in rows[1:]] == [10, 10, 10]

    def test_the_width_of_a_frame_is_no_difference(self) -> None:
        """Only words are compared."""
        assert essence("│ a    b │") == essence("│ a  b        │") == "a b"
        assert essence("────") == ""

    def test_colours_stay_on_what_is_masked(self) -> None:
        """In the style the masked words began with."""
        (line,) = printed("\x1b[31m12 ms\x1b[0m")
        assert str(Masks().line(line)[0].style) == "color(1)"


class TestPicture:
    """The SVG."""

    def test_it_stands_alone_and_moves(self) -> None:
        """Well-formed, no script, nothing from outside, endless, still for who wants it still; each line drawn once."""
        lines = printed("\r\n".join(f"\x1b[3{at % 8}mline <{at}> & more" for at in range(60)))
        picture = draw(lines, SIZE, "a <title>")
        root = ET.fromstring(picture)
        names = {node.tag.rpartition("}")[2] for node in root.iter()}
        assert names == {"svg", "title", "desc", "style", "rect", "circle", "text", "g"}
        assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")
        assert "infinite" in picture
        assert "prefers-reduced-motion" in picture
        drawn = picture.partition("</style>")[2]
        assert all(drawn.count(f"line\u00a0&lt;{at}&gt;") == 1 for at in range(60))

    def test_its_text_can_be_read_back(self) -> None:
        """Exactly, for --check and for whoever cannot see."""
        lines = printed("a <b> & c\r\n\r\n  \u2713 d")
        assert transcript(draw(lines, SIZE, "t")) == ["a <b> & c", "", "  \u2713 d"]
        assert transcript("<svg/>") == []

    def test_a_picture_too_heavy_is_refused(self) -> None:
        """A first screen loads at once."""
        lines = printed("\r\n".join("\x1b[31ma\x1b[32mb" * 20 for _ in range(400)))
        with pytest.raises(TooLarge, match=str(LARGEST)):
            draw(lines, SIZE, "t")


PROGRAM = """
import sys, time, uuid
from rich.console import Console
from rich.progress import track
console = Console(highlight=False)
console.print("[bold]starting[/bold]", uuid.uuid4())
for _ in track(range(30), description="working", console=console, transient=True):
    pass
console.print(f"took {time.time() % 1 * 1000:.3f} ms on {console.width}x{console.height}")
console.print(sys.argv[1])
"""


class TestCommand:
    """``python -m deploy.recording``."""

    def record(self, picture: Path, *options: str, word: str = "done") -> int:
        """Record a small program with a progress bar."""
        return main([str(picture), *options, "--", sys.executable, "-c", PROGRAM, word])

    def test_two_recordings_of_the_same_are_the_same_file(self, tmp_path: Path) -> None:
        """Whatever the ids and durations were; and the asciicast beside it, too."""
        for name in ("a", "b"):
            assert self.record(tmp_path / f"{name}.svg") == 0
        for ending in ("svg", "cast"):
            assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
        shown = transcript((tmp_path / "a.svg").read_text("utf-8"))
        assert shown == ["starting (id-1)", "took # ms on 100x30", "done"]
        header, *events = [json.loads(line) for line in (tmp_path / "a.cast").read_text("utf-8").splitlines()]
        assert (header["version"], header["width"], header["height"]) == (2, 100, 30)
        assert [event[2] for event in events][1:] == ["took # ms on 100x30\r\n", "done\r\n"]
        assert [event[0] for event in events] == sorted(event[0] for event in events)

    def test_check_finds_what_truly_changed(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """It names the lines and the fix, and writes nothing."""
        picture = tmp_path / "a.svg"
        assert self.record(picture, "--check") == 1
        assert not picture.exists()
        assert self.record(picture) == 0
        before = picture.read_bytes()
        assert self.record(picture, "--check") == 0
        capsys.readouterr()
        assert self.record(picture, "--check", word="other") == 1
        told = capsys.readouterr().err
        assert "-done" in told
        assert "+other" in told
        assert "make recording" in told
        assert picture.read_bytes() == before

    def test_a_mask_of_ones_own(self, tmp_path: Path) -> None:
        """Given as REGEX=TEXT; one that is no expression is wrong usage."""
        assert self.record(tmp_path / "a.svg", "--mask", "do.e=(word)") == 0
        assert transcript((tmp_path / "a.svg").read_text("utf-8"))[-1] == "(word)"
        assert self.record(tmp_path / "b.svg", "--mask", "(=x") == 2

    @pytest.mark.parametrize(
        "program",
        ["raise SystemExit(3)", "print('\\x1b]0;t\\a')", "import time; time.sleep(600)"],
        ids=["code", "odd", "long"],
    )
    def test_what_did_not_go_well_leaves_no_picture(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], program: str
    ) -> None:
        """A failing, an undrawable and an endless command each are one line."""
        picture = tmp_path / "a.svg"
        assert main([str(picture), "--seconds", "2", "--", sys.executable, "-c", program]) == 1
        assert capsys.readouterr().err.startswith("recording: ")
        assert not picture.exists()

    @pytest.mark.parametrize(
        "words", [["x.svg"], ["x.svg", "--size", "big", "--", "true"], ["x.svg", "--mask", "y", "--", "true"]]
    )
    def test_wrong_usage_is_exit_code_two(self, words: list[str]) -> None:
        """Before anything runs."""
        with pytest.raises(SystemExit) as refusal:
            main(words)
        assert refusal.value.code == 2
