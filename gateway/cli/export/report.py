"""``report.html``: one page without scripts or anything from elsewhere, for people who read and print.

Names, goals and reasons in it were written by agents and upstreams. All text is escaped in one place (``_text``), with
what is invisible, bidirectional or confusable shown by its code, and cut where it is long.
"""

import base64
import hashlib
import html
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gateway.cli.export.story import RunTold, Story, Told, Word
from gateway.cli.export.verify import Result, Run, unchecked
from gateway.core.lookalikes import guarded

_MOST = 400
_MOST_LINES = 40
STYLE = """
:root { color-scheme: light; --ink: #1d232b; --dim: #5b6673; --line: #d9dee4; --good: #1b6e3c; --bad: #a3261d;
  --wait: #8a5a00; --paper: #fff; --shade: #f5f7f9 }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 2.5rem 1.5rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif }
h1 { margin: 0; font-size: 1.9rem; letter-spacing: -.01em } h2 { margin: 2.6rem 0 .8rem; font-size: 1.25rem }
h3 { margin: 1.8rem 0 .4rem; font-size: 1rem; overflow-wrap: anywhere } p { margin: .4rem 0; max-width: 48rem }
.lead { color: var(--dim); font-size: 1.05rem } code, .id { font: .85em/1.4 ui-monospace, Menlo, Consolas, monospace;
  overflow-wrap: anywhere }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 1.2rem; margin-top: 1.6rem }
.box { border: 1px solid var(--line); border-top: 4px solid var(--good); border-radius: 4px; padding: .9rem 1.1rem }
.box.not { border-top-color: var(--wait) } .box h2 { margin: 0 0 .4rem } .box ul { margin: 0; padding-left: 1.1rem }
.box li { margin: .3rem 0; overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: 1rem 0 }
dt { color: var(--dim) } dd { margin: 0; overflow-wrap: anywhere }
.sums { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.2rem, 1fr)); gap: .7rem }
.sums div { background: var(--shade); border-radius: 4px; padding: .6rem .8rem; color: var(--dim); font-size: .85rem }
.sums b { display: block; color: var(--ink); font-size: 1.45rem; line-height: 1.2; font-variant-numeric: tabular-nums }
table { width: 100%; border-collapse: collapse; font-size: .87rem; table-layout: fixed }
th { text-align: left; color: var(--dim); font-weight: 600; border-bottom: 2px solid var(--line); padding: .4rem .5rem }
.calls th:nth-child(3) { width: 27% } .calls th:nth-child(4) { width: 8.5rem } .calls th:nth-child(1) { width: 9rem }
.events th:nth-child(1) { width: 11rem } .events th:nth-child(2) { width: 13rem }
td { vertical-align: top; border-bottom: 1px solid var(--line); padding: .45rem .5rem; overflow-wrap: anywhere }
td.time { font-variant-numeric: tabular-nums } td .said { margin: .2rem 0 0; color: var(--dim) }
.mark { display: inline-block; border-radius: 3px; padding: 0 .4rem; font-weight: 600; border: 1px solid currentColor }
.allow { color: var(--good) } .deny { color: var(--bad) } .needs_approval { color: var(--wait) }
bdi { unicode-bidi: isolate }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--dim); font-size: .87rem }
@media (max-width: 46rem) { .two { grid-template-columns: 1fr } }
@media print { @page { margin: 14mm } body { max-width: none; padding: 0; font-size: 10pt }
  thead { display: table-header-group } tr, .box, .sums div, h2, h3 { break-inside: avoid }
  h2, h3 { break-after: avoid } .two { grid-template-columns: 1fr 1fr } }
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"
_TOTALS = (
    ("records", "records"),
    ("effect allow", "decisions: allowed"),
    ("effect deny", "decisions: denied"),
    ("effect needs_approval", "decisions: people asked"),
    ("verdict approve", "approving signatures"),
    ("verdict reject", "rejecting signatures"),
    ("tool.requested", "calls sent to tools"),
    ("tool.completed", "completed"),
    ("tool.failed", "failed"),
    ("tool.outcome_unknown", "outcome unknown"),
    ("redactions", "values redacted"),
)
_HEADS = ("Time (UTC)", "Agent", "Tool", "Decision", "Rule", "People", "Outcome")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the page is about.

    Attributes:
        title: what was chosen, in words.
        made_at: when the export was made.
        opened: whether payloads were asked for.
    """

    title: str
    made_at: str
    made_by: str
    opened: bool


def page(facts: Facts, story: Story, result: Result) -> Iterator[str]:
    """The page, piece by piece."""
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">'
    yield '<meta name="viewport" content="width=device-width"><meta name="referrer" content="no-referrer">'
    yield f"<title>Audit export: {html.escape(guarded(facts.title))}</title><style>{STYLE}</style></head><body>"
    yield from _head(facts, story, result)
    yield from _proven(result)
    yield '<h2>Totals</h2><div class="sums">'
    yield from (f"<div><b>{story.totals[name]:,}</b>{label}</div>" for name, label in _TOTALS)
    yield "</div><h2>Timeline</h2>"
    yield from _left_out(story)
    for run in story.runs.values():
        yield from _run(run, story.words, result.runs.get(run.id))
    yield from _events(story)
    yield (
        "<footer>Made by "
        f"{_text(facts.made_by)} on {_text(facts.made_at)}. This page is for reading and is not signed; what is signed "
        "are the records beside it. Check them with <code>python3 -I verify.py --vkey KEY</code>; README.txt says "
        "how.</footer></body></html>\n"
    )


def _head(facts: Facts, story: Story, result: Result) -> Iterator[str]:
    yield f'<header><h1>Audit export</h1><p class="lead">{_text(facts.title)}</p></header>'
    yield (
        "<p>A gateway stands between AI agents and the tools they use. It decides about every call, asks people where "
        "policy says so, and writes what happened to a signed log that can only grow. This is an extract of that log."
        "</p><dl>"
    )
    payloads = f"{result.payloads:,} opened, {result.sealed:,} sealed or erased"
    told = (
        ("Log", result.key.split("+")[0]),
        ("Signed with", result.key),
        ("Signed over", f"{result.size:,} records, root {result.root}"),
        ("Time of the records", f"{_moment(story.first_us)} to {_moment(story.last_us)}, by the gateway's clock"),
        ("Decided by policy", "; ".join(f"revision {name}" for name in story.revisions) or "-"),
        ("Payloads", payloads if facts.opened else f"{payloads}: goals, arguments and answers are not shown"),
    )
    for name, value in told:
        yield f"<dt>{name}</dt><dd>{_text(value)}</dd>"
    yield "</dl>"


def _proven(result: Result) -> Iterator[str]:
    whole = [name for name, run in result.runs.items() if run.whole]
    yield '<div class="two"><section class="box"><h2>What was proven</h2><ul>'
    yield f"<li>All {result.records:,} records are in the log that this key has signed, unaltered.</li>"
    yield f"<li>{result.payloads:,} opened payloads are what their records commit to.</li>"
    yield f"<li>{result.signatures:,} signatures by reviewers' keys are good, and each is of what it stands for.</li>"
    yield f"<li>{len(whole):,} of {len(result.runs):,} runs are whole: every record from start to end is here.</li>"
    yield "</ul><p>Checked when the export was made; check it again with a key you have from elsewhere.</p></section>"
    yield '<section class="box not"><h2>What was not</h2><ul>'
    yield "<li>that the key is the log's: whoever reads this must know it from elsewhere</li>"
    lines = unchecked(result)
    yield from (f"<li>{_text(line)}</li>" for line in lines[:_MOST_LINES])
    if len(lines) > _MOST_LINES:
        yield f"<li>{len(lines) - _MOST_LINES:,} more, which verify.py tells one by one</li>"
    yield "</ul></section></div>"


def _left_out(story: Story) -> Iterator[str]:
    more = [f"{count:,} more {what}" for what, count in sorted(story.left_out.items()) if count]
    if more:
        yield f"<p>This page shows the first of them only; {', '.join(more)} are in records.jsonl.</p>"


def _run(run: RunTold, words: dict[str, list[Word]], found: Run | None) -> Iterator[str]:
    yield f"<section><h3>Run <code>{_text(run.id)}</code></h3><dl>"
    ended = None if run.ended is None else f"{_moment(run.ended_us)} ({run.ended})"
    told = (
        ("Goal", run.goal or "sealed, not here, or none"),
        ("Started", _moment(run.started_us)),
        ("Ended", ended or "its end is not here"),
        ("Records", "-" if found is None else str(found)),
    )
    yield from (f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in told)
    yield "</dl>"
    if run.calls:
        yield '<table class="calls"><thead><tr>'
        yield from (f"<th>{head}</th>" for head in _HEADS)
        yield "</tr></thead><tbody>"
        yield from (_row(call, words.get(call.approval or "", [])) for call in run.calls.values())
        yield "</tbody></table>"
    yield "</section>"


def _row(call: Told, words: Iterable[Word]) -> str:
    effect = call.effect if call.effect in {"allow", "deny", "needs_approval"} else None
    mark = "-" if effect is None else f'<span class="mark {effect}">{effect.replace("_", " ")}</span>'
    people = [f"{word.who}: {word.verdict}, {_moment(word.at_us)}, key {word.key}" for word in words]
    cells = (
        f'<td class="time">{_text(_moment(call.at_us))}<p class="said id">{_text(call.call)}</p></td>',
        f"<td>{_text(call.agent or '-')}</td>",
        f"<td>{_text(call.tool or '-')}{_said(call)}</td>",
        f"<td>{mark}</td>",
        f"<td>{_lines(call.rules)}</td>",
        f"<td>{_lines(people)}</td>",
        f"<td>{_text(call.outcome or 'waits, or its end is not here')}{_notes(call.notes)}</td>",
    )
    return f"<tr>{''.join(cells)}</tr>\n"


def _said(call: Told) -> str:
    return "".join(f'<p class="said">{html.escape(what)}: {_text(text)}</p>' for what, text in call.said)


def _notes(notes: Iterable[str]) -> str:
    return "".join(f'<p class="said">{_text(note)}</p>' for note in notes)


def _lines(texts: Iterable[str]) -> str:
    return "<br>".join(map(_text, texts)) or "-"


def _events(story: Story) -> Iterator[str]:
    yield '<h2>Beside the runs</h2><table class="events"><thead><tr><th>Time (UTC)</th><th>What</th><th>Details</th>'
    yield "</tr></thead><tbody>"
    for at_us, kind, what in story.events:
        yield f'<tr><td class="time">{_text(_moment(at_us))}</td><td>{_text(kind)}</td><td>{_text(what)}</td></tr>'
    yield "</tbody></table>"


def _moment(at_us: Any) -> str:
    if not isinstance(at_us, int):
        return "-"
    try:
        return datetime.fromtimestamp(at_us / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return str(at_us)


def _text(text: str) -> str:
    """``text`` of anybody as HTML: nothing in it is markup, moves, hides or covers anything."""
    seen = guarded(text[:_MOST])
    more = f" \u2026 ({len(text):,} characters)" if len(text) > _MOST else ""
    return f"<bdi>{html.escape(seen)}</bdi>{more}"
