"""The watch as a conversation: keys and events in, wishes and a screen out, without any terminal."""

import re
from dataclasses import replace
from typing import Any

import pytest

from gateway.cli.watch import view
from gateway.cli.watch.events import (
    Approve,
    Arrived,
    Explain,
    Explained,
    Link,
    Opened,
    Quit,
    Reject,
    Said,
    Show,
    Waiting,
)
from gateway.cli.watch.keys import PASTE, Decoder
from gateway.cli.watch.state import KEEP, Mode, Watch
from tests.fakes.reviewing import ASKED_US, pending
from tests.log_lines import completed, denied, entry

CODES = re.compile(r"\x1b\[[0-9;]*m")


def watching(*records: tuple[int, dict[str, Any]], columns: int = 120, lines: int = 20) -> Watch:
    """A watch that has read these records."""
    watch = Watch(columns, lines)
    watch.tell(Arrived(records))
    return watch


def screen(watch: Watch, now_us: int = ASKED_US) -> list[str]:
    """What a person sees; from then on it was seen."""
    lines = [CODES.sub("", line) for line in view.frame(watch, now_us)]
    assert len(lines) == watch.size[1]
    watch.painted()
    return lines


def press(watch: Watch, *keys: str) -> Any:
    """Press keys; the last one's wish."""
    wish = None
    for key in keys:
        wish = watch.press(key)
    return wish


class TestList:
    """The live table."""

    def test_calls_stand_newest_first_with_all_that_matters(self) -> None:
        """Agent, tool, decision, end, rule, redactions, duration."""
        lines = screen(watching(*completed(0, "c-1", redactions=3), denied(3, "c-2")))
        assert re.search(r"ap-agent +erp.purge +deny +denied +scope.not_granted +800 us", lines[2])
        assert re.search(r"ap-agent +erp.find_order +allow +completed +scope.allowed +3 +5.0 ms", lines[3])

    def test_the_selection_stays_on_its_call_while_others_come(self) -> None:
        """Without a choice it stays on the newest; what was chosen is explained, wherever it moved to."""
        watch = watching(denied(0, "c-1"), denied(1, "c-2"))
        assert press(watch, "e") == Explain("c-2")
        assert press(watch, "down", "e") == Explain("c-1")
        watch.tell(Arrived([denied(2, "c-3")]))
        assert press(watch, "enter") == Explain("c-1")
        assert press(watch, "k", "k", "k", "e") == Explain("c-3")
        watch.tell(Arrived([denied(3, "c-4")]))
        assert press(watch, "e") == Explain("c-4")

    @pytest.mark.parametrize("keys", [["end"], ["pgdn"] * 20, ["j"] * 200, [" "] * 30])
    def test_moving_far_ends_at_the_last_row(self, keys: list[str]) -> None:
        """And the selected row is on the screen."""
        watch = watching(*(denied(at, f"c-{at}", f"erp.t{at}") for at in range(100)))
        assert press(watch, *keys, "e") == Explain("c-0")
        assert any("erp.t0 " in line for line in screen(watch))

    def test_pause_holds_the_list_and_loses_nothing(self) -> None:
        """What comes meanwhile is there when it goes on."""
        watch = watching(denied(0, "c-1"))
        press(watch, "p")
        watch.tell(Arrived([denied(1, "c-2")]))
        assert "paused" in screen(watch)[0]
        assert [row.call_id for row in watch.rows()] == ["c-1"]
        press(watch, "p")
        assert [row.call_id for row in watch.rows()] == ["c-2", "c-1"]

    def test_a_filter_finds_tools_and_agents(self) -> None:
        """As it is typed; Enter keeps it, Esc lets it go; letters are letters meanwhile."""
        watch = watching(denied(0, "c-1", "pay.transfer"), entry(1, "decision", "c-2", agent="Paula", tool="erp.x"))
        assert press(watch, "/", "p", "a", "q") is None
        assert watch.rows() == ()
        press(watch, "backspace", "enter")
        assert [row.call_id for row in watch.rows()] == ["c-2", "c-1"]
        press(watch, "/", "y")
        assert [row.call_id for row in watch.rows()] == ["c-1"]
        assert "/pay_" in screen(watch)[-2]
        press(watch, "esc")
        assert len(watch.rows()) == 2

    def test_nothing_yet_is_said(self) -> None:
        """An empty list has no selection, and keys on it do nothing."""
        watch = watching()
        assert "no call passed yet" in screen(watch)[1]
        assert press(watch, "down", "e") is None
        assert press(watch, "/", "x", "enter") is None
        assert "no call like that" in screen(watch)[1]

    def test_help_names_every_key(self) -> None:
        """Any key goes back; q quits from the list only."""
        watch = watching()
        press(watch, "?")
        words = "\n".join(screen(watch))
        assert (
            all(name in words for name in ("explain", "sign", "reject", "hold", "quit")) or "why the selected" in words
        )
        assert press(watch, "q") is None
        assert press(watch, "q") == Quit()

    def test_a_gateway_that_is_gone_is_said_until_it_is_back(self) -> None:
        """The list stays meanwhile."""
        watch = watching(denied(0, "c-1"))
        watch.tell(Link("no gateway answers at x"))
        assert "gateway gone, waiting (no gateway answers at x)" in screen(watch)[0]
        assert "erp.purge" in screen(watch)[2]
        watch.tell(Link(None))
        assert "live" in screen(watch)[0]

    def test_another_log_begins_anew(self) -> None:
        """Rows of the old one go, and it is said."""
        watch = watching(denied(0, "c-1"))
        watch.tell(Arrived([denied(0, "d-1")], fresh=True))
        assert [row.call_id for row in watch.rows()] == ["d-1"]
        assert "another log" in screen(watch)[-2]

    def test_memory_is_bounded(self) -> None:
        """Ten thousand calls leave the newest."""
        watch = watching(*(denied(at, f"c-{at}") for at in range(10_000)))
        assert len(watch.rows()) == KEEP
        assert watch.rows()[0].call_id == "c-9999"

    @pytest.mark.parametrize(("columns", "lines"), [(20, 6), (80, 24), (300, 100), (95, 7)])
    def test_every_size_has_its_screen(self, columns: int, lines: int) -> None:
        """Exactly as many lines as the terminal has, none wider than it."""
        watch = watching(*(denied(at, f"c-{at}") for at in range(200)))
        watch.resize(columns, lines)
        watch.tell(Waiting([pending(f"ap-{at}") for at in range(30)]))
        for keys in (["end"], ["?"], ["x", "home"]):
            press(watch, *keys)
            assert max(len(line) for line in screen(watch)) <= columns

    def test_what_others_wrote_cannot_move_the_cursor(self) -> None:
        """Names come escaped: no control, no bidirectional and no foreign character reaches the terminal."""
        evil = "x\x1b[2J\u202e\u200b\u0440"
        records = [entry(0, "decision", "c", agent=evil, tool=evil, effect=evil, code="c", reasons=[evil], took_us=1)]
        watch = watching(*records, columns=300)
        watch.tell(Link(evil))
        raw = "\n".join(view.frame(watch, ASKED_US))
        assert "\x1b[2J" not in raw
        assert not {"\u202e", "\u200b"} & set(raw)
        assert "x\\x1b[2J\\u202e\\u200b\\u0440" in CODES.sub("", raw)


class TestPages:
    """Explaining a call."""

    def test_a_long_page_scrolls_and_goes_back(self) -> None:
        """Every line can be reached; q goes back to the list."""
        watch = watching(denied(0, "c-1"), lines=10)
        watch.tell(Explained("c-1", [f"line {at}" for at in range(30)]))
        assert screen(watch)[1] == "line 0"
        press(watch, "end")
        assert screen(watch)[7] == "line 29"
        assert press(watch, "q") is None
        assert watch.mode is Mode.LIST

    def test_an_answer_that_comes_late_does_not_take_the_keyboard(self) -> None:
        """Who types a filter keeps typing."""
        watch = watching(denied(0, "c-1"))
        press(watch, "e", "/", "x")
        watch.tell(Explained("c-1", ["words"]))
        assert watch.mode is Mode.FILTER


class TestSigning:
    """An approver sees what they sign."""

    def test_what_waits_is_pinned_with_age_and_missing_signatures(self) -> None:
        """Above every call, however many come."""
        watch = watching(*(denied(at, f"c-{at}") for at in range(50)))
        watch.tell(Waiting([pending(needed=2)]))
        line = screen(watch, ASKED_US + 133_000_000)[1]
        for words in (
            "pay.transfer",
            "ap-agent for clerk",
            "waits 2 min",
            "needs 2 more signatures",
            "expires in 12 min",
        ):
            assert words in line

    def test_a_shows_everything_and_only_y_signs(self) -> None:
        """Nothing is signed before the arguments stood on the screen."""
        watch = watching(lines=40)
        view_ = pending(arguments={"iban": "AT61", "lines": [1, 2.50, {}], "to": "Alpine"})
        watch.tell(Waiting([view_]))
        assert press(watch, "a") == Show("ap-1")
        assert press(watch, "y") is None
        watch.tell(Opened(view_))
        assert press(watch, "y") is None  # typed before anybody could read
        words = "\n".join(screen(watch))
        for part in (
            "pay.transfer",
            "clerk",
            "money.second_person: a person signs",
            '"iban": "AT61"',
            "2.5",
            "{}",
            "c0ffee",
        ):
            assert part in words
        for other in ("e", "enter", "x", PASTE + "y"):
            assert press(watch, other) is None
        assert press(watch, "y") == Approve(view_)
        assert press(watch, "y") is None
        assert watch.mode is Mode.LIST

    def test_long_arguments_are_scrolled_to_their_end_first(self) -> None:
        """Jumping to the end has not shown the middle; each line must have stood on the screen."""
        watch = watching(lines=12)
        view_ = pending(arguments=[f"item {at}" for at in range(40)])
        watch.tell(Opened(view_))
        seen: list[str] = []
        press(watch, "end")
        seen += screen(watch)
        assert press(watch, "y") is None
        assert "lines were not shown yet" in screen(watch)[-2]
        press(watch, "home")
        for _ in range(10):
            seen += screen(watch)
            press(watch, "pgdn")
        assert all(any(f'"item {at}"' in line for line in seen) for at in range(40))
        assert press(watch, "y") == Approve(view_)

    def test_a_resized_page_must_be_seen_anew(self) -> None:
        """Other lines are other lines."""
        watch = watching(lines=60)
        watch.tell(Opened(pending(arguments=[f"item {at}" for at in range(30)])))
        screen(watch)
        watch.resize(80, 10)
        screen(watch)
        assert press(watch, "y") is None

    def test_nothing_is_cut_off_at_the_edge(self) -> None:
        """A value wider than the terminal goes on in the next lines, marked."""
        watch = watching(columns=40, lines=60)
        watch.tell(Opened(pending(arguments={"text": "0123456789" * 20})))
        joined = "".join(line.strip().removeprefix("\u21b3 ") for line in screen(watch))
        assert "0123456789" * 20 in joined

    def test_the_numbers_are_those_of_the_request(self) -> None:
        """No float stands between what is shown and what is signed."""
        watch = watching(lines=40)
        numbers = '{"a":1.10,"b":1E400,"c":123456789012345678901234567890}'
        watch.tell(Opened(replace(pending(), arguments=numbers)))
        words = "\n".join(screen(watch))
        for lexeme in ("1.10", "1E400", "123456789012345678901234567890"):
            assert lexeme in words

    def test_an_imitated_payee_is_seen_through(self) -> None:
        """Confusable, invisible and reordering characters of the arguments stand there as codes."""
        watch = watching(lines=40)
        watch.tell(Opened(pending(arguments={"payee": "Alpin\u0435 P\u200bap\u202eer", "town": "M\u00fcnchen"})))
        words = "\n".join(screen(watch))
        assert "Alpin\\u0435 P\\u200bap\\u202eer" in words
        assert "M\u00fcnchen" in words

    def test_rejecting_needs_a_reason(self) -> None:
        """An empty one is not sent; pasted text is text; Esc leaves it."""
        watch = watching()
        watch.tell(Waiting([pending()]))
        press(watch, "r", "enter")
        assert "a reason is needed" in screen(watch)[-2]
        press(watch, "n", "o", " ", PASTE + " wrong\npayee")
        assert screen(watch)[-2] == "reason: no wrong payee_"
        assert press(watch, "enter") == Reject("ap-1", "no wrong payee")
        press(watch, "r", "x")
        assert press(watch, "esc") is None
        assert watch.mode is Mode.LIST

    def test_an_action_is_rejected_from_its_page_too(self) -> None:
        """After having read it."""
        watch = watching()
        watch.tell(Opened(pending()))
        assert press(watch, "r", "n", "o", "enter") == Reject("ap-1", "no")

    def test_only_what_waits_can_be_signed_or_rejected(self) -> None:
        """On a call, a and r say so."""
        watch = watching(denied(0, "c-1"))
        for key in ("a", "r"):
            assert press(watch, key) is None
            assert "select a pending approval first" in screen(watch)[-2]

    def test_a_second_answer_does_not_change_what_is_signed(self) -> None:
        """What stands on the screen is what y signs, whatever arrives meanwhile."""
        watch = watching()
        first, second = pending("ap-1"), pending("ap-2")
        watch.tell(Opened(first))
        screen(watch)
        watch.tell(Opened(second))
        assert press(watch, "y") == Approve(first)

    def test_a_failure_is_said(self) -> None:
        """In the notice line, until the next key."""
        watch = watching()
        watch.tell(Said("it expired", bad=True))
        assert "it expired" in screen(watch)[-2]
        press(watch, "down")
        assert screen(watch)[-2] == ""


class TestKeys:
    """Bytes of a terminal as keys."""

    @pytest.mark.parametrize(
        ("sent", "keys"),
        [
            (b"jk", ["j", "k"]),
            (b"\x1b[A\x1b[B\x1bOA", ["up", "down", "up"]),
            (b"\x1b[5~\x1b[6~\x1b[H\x1b[4~", ["pgup", "pgdn", "home", "end"]),
            (b"\r\n\x7f\x15", ["enter", "enter", "backspace", "clear"]),
            ("ü\u20ac\U0001f600".encode(), ["ü", "\u20ac", "\U0001f600"]),
            (b"\x1b[1;5C\x1b[99~x", ["x"]),
            (b"\x00\x01y", ["y"]),
            (b"\x80\xc3(y", ["(", "y"]),
            (b"\x1bq", ["esc", "q"]),
            (b"\x1b[200~y\x1b[A\ry\x1b[201~n", [PASTE + "y\x1b[A\ry", "n"]),
        ],
    )
    def test_keys_come_out_however_the_bytes_are_cut(self, sent: bytes, keys: list[str]) -> None:
        """In one piece and byte by byte alike."""
        assert Decoder().feed(sent) == keys
        decoder = Decoder()
        assert [key for at in range(len(sent)) for key in decoder.feed(sent[at : at + 1])] == keys

    def test_a_lone_escape_is_a_key_after_a_while(self) -> None:
        """It could be the beginning of a longer one."""
        decoder = Decoder()
        assert decoder.feed(b"\x1b") == []
        assert decoder.is_open
        assert decoder.rest() == ["esc"]
        assert decoder.rest() == []

    def test_an_endless_paste_does_not_lock_the_keyboard(self) -> None:
        """It is dropped at a bound."""
        decoder = Decoder()
        assert decoder.feed(b"\x1b[200~" + b"y" * 70_000) == []
        assert decoder.feed(b"q") == ["q"]
