"""``ostiary watch`` at a terminal and in a pipe, before real gateways."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import House
from tests.gateways import OSTIARY, ROOT, until
from tests.processes import FIXTURES
from tests.terminals import sitting

WATCH = (*OSTIARY, "watch")


@contextlib.contextmanager
def gateway(state: Path) -> Iterator[dict[str, Any]]:
    """A development gateway on ``state``; what it says of itself."""
    command = [*OSTIARY, "up", "--state", str(state), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


def knock(said: dict[str, Any], state: Path, tool: str = "no.such") -> str:
    """Call a tool that does not exist; the call's id."""
    words = ["tool", "call", tool, "--token", said["token"], "--state", str(state), "--json"]
    done = subprocess.run([*OSTIARY, *words], capture_output=True, text=True, check=False, cwd=ROOT)
    return str(json.loads(done.stdout.splitlines()[-1])["call_id"])


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """One such gateway for the tests that leave it alone."""
    state = tmp_path_factory.mktemp("w") / "s"
    with gateway(state) as said:
        yield state, said


def test_a_call_appears_and_is_explained_and_the_terminal_is_given_back(house: House) -> None:
    """The row comes by itself; e tells why, with arguments and answer; q leaves the terminal as it was."""
    with sitting(WATCH, (140, 40), OSTIARY_STATE=str(house.gateway.state)) as seat:
        seat.see("ostiary watch", "live")
        token = house.gateway.token(agent="watched-agent")
        assert house.gateway.call(token, "erp.find_order", {"number": "PO-1"}).status_code == 200
        seat.see("watched-agent", "erp.find_order", "allow", "completed")
        seat.press("/watched\r")
        seat.see("only watched")
        seat.press("e")
        screen = seat.see("outcome", "completed", '"number": "PO-1"', "tool.requested")
        assert "watched-agent" not in screen
        seat.press("q")
        assert house.gateway.call(token, "erp.purge_orders").status_code == 404
        seat.see("unknown_tool", "deny", "TOOK")
        seat.press("q")
        assert seat.end() == 0
        assert seat.is_restored
    assert b"Traceback" not in seat.raw


def test_an_approval_is_read_to_its_end_before_it_is_signed(up: tuple[Path, dict[str, Any]]) -> None:
    """Pinned on top; a shows it, y signs nothing before the last line was seen; r rejects with a reason."""
    command = [sys.executable, str(FIXTURES / "watch_approvals.py"), str(up[0])]
    with sitting(command, (100, 20), PYTHONPATH=str(ROOT)) as seat:
        seat.see("pay.transfer", "pay.refund", "needs 1 more signature")
        seat.press("ay")
        seat.see("sign pay.transfer", '"iban": "AT61"')
        seat.press("y")
        seat.see("lines were not shown yet")
        for first in (18, 35, 52, 60):
            seat.press(" ")
            seat.see(f"lines {first} to")
        seat.see("position 59")
        seat.press("y")
        seat.see_when(lambda screen: "approved pay.transfer" in screen and "ap-agent for clerk" in screen)
        seat.press("rwrong payee\r")
        seat.see_when(lambda screen: "ap-agent for clerk" not in screen)
        seat.press("q")
        assert seat.end() == 0
        assert seat.is_restored
    said = json.loads(seat.raw.rpartition(b"\x1b[?1049l")[2])
    assert said == {"signed": ["ap-1"], "refused": {"ap-2": "wrong payee"}}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_terminal_back(up: tuple[Path, dict[str, Any]], number: signal.Signals) -> None:
    """Being told to end is no failure, and nothing is left of the other screen."""
    with sitting(WATCH, OSTIARY_STATE=str(up[0])) as seat:
        seat.see("live")
        seat.process.send_signal(number)
        assert seat.end() == 0
        assert seat.is_restored
    assert b"Traceback" not in seat.raw


def test_a_failure_gives_the_terminal_back_before_it_is_told(tmp_path: Path) -> None:
    """No gateway: the words stand on the person's own screen, with the fix."""
    with sitting(WATCH, OSTIARY_STATE=str(tmp_path)) as seat:
        assert seat.end() == 1
        assert seat.is_restored
        assert "no gateway answers at" in seat.raw.rpartition(b"\x1b[?1049l")[2].decode()


def test_another_size_is_drawn_anew(up: tuple[Path, dict[str, Any]]) -> None:
    """Down to one that leaves columns out."""
    knock(up[1], up[0])
    with sitting(WATCH, OSTIARY_STATE=str(up[0])) as seat:
        seat.see("TOOK")
        seat.resize(70, 10)
        screen = seat.see("DECISION", "q")
        assert "TOOK" not in screen
        seat.press("q")
        assert seat.end() == 0


def test_a_restart_of_the_gateway_is_survived(tmp_path: Path) -> None:
    """At the terminal it is said, then the next call appears; in the pipe each call comes once, before and after."""
    state = tmp_path / "s"
    lines = tmp_path / "lines"
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        said = first.enter_context(gateway(state))
        expected = [knock(said, state)]
        seat = stack.enter_context(sitting(WATCH, OSTIARY_STATE=str(state)))
        pipe = stack.enter_context(_piped(state, lines))
        until(lambda: len(_calls(lines)) == 1)
        seat.see("live", "dev-agent")  # however it ends: a machine under load has its policy's deadline pass
        first.close()
        seat.see("gateway gone, waiting")
        said = stack.enter_context(gateway(state))
        expected += [knock(said, state) for _ in range(3)]
        seat.see_when(lambda screen: "live" in screen and screen.count("dev-agent") == 4)
        until(lambda: len(_calls(lines)) == 4)
        pipe.send_signal(signal.SIGTERM)
        assert pipe.wait(30) == 0
        seat.press("q")
        assert seat.end() == 0
    assert _calls(lines) == expected


@contextlib.contextmanager
def _piped(state: Path, into: Path) -> "Iterator[subprocess.Popen[bytes]]":
    environment = {**os.environ, "OSTIARY_STATE": str(state)}
    with (
        into.open("wb") as file,
        subprocess.Popen(
            [*WATCH, "--json"], stdout=file, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment, cwd=ROOT
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _calls(lines: Path) -> list[str]:
    documents = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    return [document["call_id"] for document in documents if document["event"] == "ended"]
