"""``report.html``: whatever agents and upstreams write, it stays text on one page that loads nothing."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from gateway.cli.export.collecting import Opened, Row
from gateway.cli.export.report import STYLE, Facts, page
from gateway.cli.export.story import MAX_CALLS, MAX_EVENTS, MAX_RUNS, Story
from gateway.cli.export.verify import Result, Run

FACTS = Facts("The run r1", "2026-03-02T10:00:00+00:00", "ostiary 1", opened=True)
TAGS = set("html head meta title style body header h1 h2 h3 p dl dt dd code div section ul li b".split())  # noqa: SIM905
TAGS |= {"table", "thead", "tbody", "tr", "th", "td", "span", "br", "bdi", "footer"}
ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "class"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></p><iframe src=//evil.test>",
    "pay \u202e001\u202c EUR",
    "in\u200bvis\u2066ible\u2069 \u115f\ufeff",
    "\x1b[2J\x00\n\r\u2028",
    "z\u0335\u0336\u0337\u0338alg\u0489o",
    "&lt;b&gt; &amp;",
)


class Page(HTMLParser):
    """What a browser makes of it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: dict[str, set[str]] = {}
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value or "")
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """It closes what was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note it."""
        self.words.append(data)


def row(index: int, kind: str, body: dict[str, Any], *payloads: tuple[str, Any], **more: Any) -> Row:
    """A record of the run."""
    record = {
        "type": kind,
        "ts": 1_750_000_000_000_000 + index,
        "run_id": "r1",
        "call_id": "c1",
        "actor": {"agent": "ap-agent", "authn": "local", "user": None},
        "body": body,
        **more,
    }
    opened = tuple(Opened(role, json.dumps(said).encode(), "r1", "00" * 32) for role, said in payloads)
    return Row(index, "", (), opened, record)


def told(*rows: Row, result: Result | None = None) -> Page:
    """The page of these records."""
    story = Story()
    for one in rows:
        story.add(one)
    text = "".join(page(FACTS, story, result or Result(key="log.test+00000000+AA", records=len(rows))))
    return Page(text)


DECISION = {"effect": "deny", "reasons": ["authz.no"], "requirements": [], "revision": "", "tool": "bank.pay"}


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_anybody_wrote_is_markup(text: str) -> None:
    """Goal, arguments, reasons, errors, names, ids: only our own elements, and nothing invisible or bidirectional."""
    found = told(
        row(0, "run.started", {}, ("run", {"goal": text}), call_id=None),
        row(1, "decision", {**DECISION, "tool": text, "reasons": [text], "code": text}),
        row(
            2, "decision", DECISION, ("reasons", {"reasons": [{"id": text, "msg": text}]}), ("request", {"tool": text})
        ),
        row(3, "tool.failed", {"code": text, "tool": text}, ("error", {"detail": text, "because": text}), call_id=text),
        row(4, "reviewer.enrolled", {"key": text, "person": text}, ("change", {"person": text}), run_id=None),
        row(5, "approval.decided", {"approval": text, "verdict": text, "key": text, "person": text}, run_id=text),
        row(6, text, {"action": text}, run_id=None),
        row(7, "run.ended", {"reason": text, "count": 5}, call_id=None),
        result=Result(key=f"{text}+00+AA", runs={text: Run(0, 1)}, unchecked=[text]),
    )
    assert set(found.tags) <= TAGS
    assert set(found.attributes) <= ATTRIBUTES
    assert found.open == []
    shown = "".join(found.words)
    assert not re.search(r"[\u0300-\u036f\u0489\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\u115f\x00\x1b\r]", shown)


def test_the_page_may_load_nothing() -> None:
    """Its policy allows one style, by its hash, and nothing else."""
    found = told(row(0, "run.started", {}))
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert policy in found.attributes["content"]
    assert found.words.count(STYLE) == 1
    assert not re.search(r"url\(|@import|https?:", STYLE)


def test_long_text_is_cut_and_counted() -> None:
    """A goal of a megabyte takes a few lines."""
    found = told(row(0, "run.started", {}, ("run", {"goal": "x" * 1_000_000}), call_id=None))
    words = "".join(found.words)
    assert "(1,000,000 characters)" in words
    assert "x" * 401 not in words


def test_too_many_calls_are_left_out_and_said() -> None:
    """Totals are over all of them."""
    rows = [row(at, "decision", DECISION, call_id=f"c{at}") for at in range(MAX_CALLS + 7)]
    words = "".join(told(*rows).words)
    assert "7 more calls are in records.jsonl" in words
    assert f"{MAX_CALLS + 7:,}decisions: denied" in words


def test_too_many_runs_and_events_are_left_out_and_said() -> None:
    """The page stays one that somebody can read, and totals are over all; so is the list of what was not checked."""
    rows = [
        one
        for at in range(MAX_RUNS + 3)
        for one in (
            row(2 * at, "run.started", {}, run_id=f"r{at}", call_id=None),
            row(2 * at + 1, "decision", DECISION, run_id=f"r{at}", call_id=f"c{at}"),
        )
    ]
    rows += [row(9_000 + at, "key", {}, run_id=None, call_id=None) for at in range(MAX_EVENTS + 2)]
    result = Result(key="log.test+00000000+AA", unchecked=[f"line {at}" for at in range(100)])
    found = told(*rows, result=result)
    words = "".join(found.words)
    assert "3 more calls, 2 more events, 3 more runs are in records.jsonl" in words
    assert f"{MAX_RUNS + 3:,}decisions: denied" in words
    assert found.tags.count("h3") == MAX_RUNS
    assert "64 more, which verify.py tells one by one" in words


def test_what_tools_answered_is_shown_where_it_was_opened() -> None:
    """In their words, or as JSON where there are none."""
    said = {"content": [{"type": "text", "text": "no such zone"}, {"type": "image"}], "isError": True}
    rows = [
        row(0, "tool.completed", {}, ("result", said)),
        row(1, "tool.completed", {}, ("result", {"content": [], "structuredContent": {"a": 1}}), call_id="c2"),
        row(2, "tool.completed", {}, ("result", ["odd"]), call_id="c3"),
    ]
    words = "".join(told(*rows).words)
    assert "answer: no such zone" in words
    assert 'answer: {"a": 1}' in words
    assert "another form" in words


def test_a_call_is_told_in_one_line() -> None:
    """Which rule, who approved, what came of it; persons by name where the enrolment was opened, else by a mark."""
    enrolled = {"key": "k1", "person": "00ff00ff00ff", "roles": ["treasurer"], "enrolled_by": None}
    said = {"approval": "a1", "verdict": "approve", "key": "k1", "person": "00ff00ff00ff"}
    rows = [
        row(
            0, "decision", {**DECISION, "effect": "needs_approval", "requirements": ["money.person"], "code": "pending"}
        ),
        row(1, "approval.requested", {"approval": "a1", "tool": "bank.pay"}),
        row(2, "approval.decided", said),
        row(3, "decision", {**DECISION, "effect": "allow", "reasons": []}, call_id="c2"),
        row(4, "tool.requested", {"approval": "a1", "tool": "bank.pay"}, call_id="c2"),
        row(5, "tool.completed", {"approval": "a1", "is_error": True}, call_id="c2"),
    ]
    named = told(row(9, "reviewer.enrolled", enrolled, ("change", {"person": "Vera"}), run_id=None), *rows)
    words = "|".join(named.words)
    for part in ("money.person", "person", "Vera: approve, 2025-06-15", "the tool said it failed"):
        assert part in words
    assert "person 00ff00ff: approve" in "".join(told(row(9, "reviewer.enrolled", enrolled, run_id=None), *rows).words)


def test_advice_to_an_agent_is_told_as_no_call() -> None:
    """What it was told, and that nothing was carried out; it is not counted among decisions on calls."""
    advice = {**DECISION, "effect": "allow", "tool": "coder.hooks/Bash", "answer": "allow"}
    words = "|".join(told(row(0, "decision.advisory", advice)).words)
    assert "no call: its agent asked before acting itself, and was told allow" in words
    for part in ("0|decisions: allowed", "0|calls sent to tools", "0|completed"):
        assert part in words
