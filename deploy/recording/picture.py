"""Lines of a terminal as an animated SVG: no script, no font, no outside; and the same as an asciicast.

Each line is drawn once. Two stepping animations do the rest: a curtain that goes down line by line, and the whole text
going up once the screen is full. Who prefers no motion sees the end. The text stands in ``<desc>``, for readers without
eyes and for ``--check``.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from xml.sax.saxutils import escape, unescape

from rich.cells import cell_len
from rich.color import Color, ColorSystem, parse_rgb_hex
from rich.style import Style
from rich.terminal_theme import TerminalTheme

from deploy.recording.terminal import Line, text_of

LARGEST = 300_000
STEP_S = 0.15
PAUSE_S = 0.75  # at an empty line a reader may catch up
HOLD_S = 8.0
_CELL, _LINE, _FONT = 8.4, 18, 14
_EDGE, _HEAD = 12, 34
_DULL = ("#282a36", "#f06262", "#76c87a", "#e8be60", "#6aa0fa", "#c882e6", "#56c4cc", "#c8ccd4")
_BRIGHT = ("#787c88", "#ff8282", "#96e298", "#fad682", "#8cbaff", "#dea0fa", "#7adee6", "#f0f2f6")
_THEME = TerminalTheme(
    parse_rgb_hex("161821"),
    parse_rgb_hex("d6d9e0"),
    [parse_rgb_hex(colour[1:]) for colour in _DULL],
    [parse_rgb_hex(colour[1:]) for colour in _BRIGHT],
)
_FIRM = "\u00a0"
_DESC = re.compile(r"<desc>\n(.*?)\n</desc>", re.DOTALL)


class TooLarge(ValueError):
    """The picture would be too heavy for a first screen."""


def draw(lines: Sequence[Line], size: tuple[int, int], title: str) -> str:
    """The picture of ``lines`` on a terminal of ``size`` (columns, rows).

    Raises:
        TooLarge: more than ``LARGEST`` bytes.
    """
    styles: dict[str, str] = {}
    body = "\n".join(_drawn(line, at, styles) for at, line in enumerate(lines))
    width, height = round(size[0] * _CELL), size[1] * _LINE
    times = list(moments(lines))
    picture = f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 2 * _EDGE} {height + _HEAD + _EDGE}" role="img">
<title>{escape(title)}</title>
<desc>
{escape(chr(10).join(map(text_of, lines)))}
</desc>
<style>
text{{font:{_FONT}px ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;fill:{_hex(None)}}}
{"".join(f".{name}{{{css}}}" for css, name in styles.items())}
{_motion(times, len(lines), size[1])}
</style>
<rect width="100%" height="100%" rx="8" fill="{_THEME.background_color.hex}"/>
<circle cx="20" cy="17" r="5" fill="#f06262"/><circle cx="38" cy="17" r="5" fill="#e8be60"/>
<circle cx="56" cy="17" r="5" fill="#76c87a"/>
<text x="50%" y="22" text-anchor="middle" opacity=".6">{escape(title)}</text>
<svg x="{_EDGE}" y="{_HEAD}" width="{width}" height="{height}">
<g class="up">
{body}
<rect class="down" width="100%" height="{height + _LINE}" fill="{_THEME.background_color.hex}"/>
</g>
</svg>
</svg>
"""
    if len(picture.encode()) > LARGEST:
        raise TooLarge(f"the picture would have {len(picture.encode())} bytes; {LARGEST} are the most")
    return picture


def transcript(picture: str) -> list[str]:
    """The lines a picture was drawn from; empty where it is none of ours."""
    found = _DESC.search(picture)
    return unescape(found[1]).split("\n") if found else []


def cast(lines: Sequence[Line], size: tuple[int, int], title: str) -> str:
    """The same as an asciicast, version 2."""
    header = {"version": 2, "width": size[0], "height": size[1], "title": title, "env": {"TERM": "xterm-256color"}}
    events = zip(moments(lines), lines, strict=False)
    return "".join(f"{json.dumps(part)}\n" for part in (header, *(_event(at, line) for at, line in events)))


def _event(at: float, line: Line) -> list[object]:
    text = "".join(style.render(text, color_system=ColorSystem.TRUECOLOR) for text, style in runs(line))
    return [round(at, 2), "o", f"{text}\r\n"]


def moments(lines: Sequence[Line]) -> Iterator[float]:
    """When each line appears, seconds; one more for the end."""
    now = STEP_S
    for line in lines:
        yield now
        now += STEP_S if line else PAUSE_S
    yield now + HOLD_S


def runs(line: Line) -> Iterator[tuple[str, Style]]:
    """Neighbouring cells of one style, together."""
    for style, cells in groupby(line, key=lambda cell: cell.style):
        yield "".join(cell.text for cell in cells), style


def _motion(times: Sequence[float], count: int, rows: int) -> str:
    whole = times[-1]
    down = "".join(
        f"{100 * at / whole:.2f}%{{transform:translateY({line * _LINE}px)}}" for at, line in _steps(times, 1)
    )
    up = "".join(
        f"{100 * at / whole:.2f}%{{transform:translateY({-(line - rows) * _LINE}px)}}"
        for at, line in _steps(times, rows + 1)
    )
    end = max(0, count - rows)
    return (
        f".down{{transform:translateY({count * _LINE}px);animation:down {whole:.2f}s step-end infinite}}"
        f".up{{transform:translateY({-end * _LINE}px);animation:up {whole:.2f}s step-end infinite}}"
        f"@keyframes down{{0%{{transform:none}}{down}}}"
        f"@keyframes up{{0%{{transform:none}}{up}}}"
        "@media (prefers-reduced-motion:reduce){.up,.down{animation:none}}"
    )


def _steps(times: Sequence[float], first: int) -> Iterator[tuple[float, int]]:
    """From the line ``first`` on (counted from 1): when it appears, and its number."""
    for line in range(first, len(times)):
        yield times[line - 1], line


def _drawn(line: Line, at: int, styles: dict[str, str]) -> str:
    parts, column, y = [], 0, at * _LINE
    for text, style in runs(line):
        width = cell_len(text)
        if style.bgcolor is not None or style.reverse:
            box = f'x="{_x(column)}" y="{y}" width="{_x(width)}" height="{_LINE}"'
            parts.append(f'<rect {box} fill="{_behind(style)}"/>')
        words = text.strip()
        if words:
            x = column + len(text) - len(text.lstrip())
            # The length is said, so that every font keeps the columns; blanks that collapse would spoil it.
            place = f'x="{_x(x)}" y="{y + _FONT}" textLength="{_x(cell_len(words))}"{_class(style, styles)}'
            parts.append(f"<text {place}>{escape(words.replace(' ', _FIRM))}</text>")
        column += width
    return "".join(parts)


def _x(columns: int) -> str:
    return f"{round(columns * _CELL, 1):g}"


def _class(style: Style, styles: dict[str, str]) -> str:
    css = _css(style)
    return f' class="{styles.setdefault(css, f"c{len(styles)}")}"' if css else ""


def _css(style: Style) -> str:
    colour = style.bgcolor if style.reverse else style.color
    found = []
    if style.reverse or colour is not None:
        found.append(f"fill:{_THEME.background_color.hex if style.reverse and colour is None else _hex(colour)}")
    found += [css for on, css in ((style.bold, "font-weight:700"), (style.italic, "font-style:italic")) if on]
    found += [css for on, css in ((style.dim, "opacity:.65"), (style.underline, "text-decoration:underline")) if on]
    return ";".join(found)


def _behind(style: Style) -> str:
    return _hex(style.color) if style.reverse else _hex(style.bgcolor)


def _hex(colour: Color | None) -> str:
    return _THEME.foreground_color.hex if colour is None else colour.get_truecolor(_THEME).hex
