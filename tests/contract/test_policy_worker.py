"""What callers of the policy engine see when a worker hangs, dies, babbles or is overrun."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.adapters.rego.frames import bundle_frame, question_frame
from gateway.adapters.rego.progress import Progress
from gateway.adapters.rego.settings import worker_command
from gateway.core.bundle import BundleError
from gateway.core.decision import Effect
from gateway.core.errors import Unavailable
from tests.rego_demo import (
    RULES,
    SETTINGS,
    decide,
    demo,
    descriptors,
    environment,
    pids,
    refused,
    saying,
    serving,
    until,
)


async def test_slow_policy_is_killed_at_its_deadline() -> None:
    """Whoever asked gets Unavailable soon; the next question finds a new worker; those behind are asked again."""
    events: list[str] = []
    async with serving(settings=replace(SETTINGS, deadline_s=0.3), events=events) as engine:
        (before,) = pids(engine)
        started = time.monotonic()
        slow = asyncio.create_task(refused(engine, "loop"))
        await asyncio.sleep(0)
        behind = asyncio.create_task(decide(engine, saying("yes")))
        await slow
        assert time.monotonic() - started < 3
        (decision,) = await behind
        assert decision.effect is Effect.ALLOW
        assert "timeout" in events
        assert pids(engine) != [before]


async def test_worker_killed_in_the_middle_of_a_question() -> None:
    """Its question is Unavailable, the engine recovers."""
    events: list[str] = []
    async with serving(events=events) as engine:
        (pid,) = pids(engine)
        question = asyncio.create_task(refused(engine, "loop"))
        await until(lambda: sum(link.load for link in engine._running().pool._links) == 1)
        os.kill(pid, signal.SIGKILL)
        await question
        assert "died" in events
        (decision,) = await decide(engine, saying("yes"))
        assert decision.effect is Effect.ALLOW


@pytest.mark.parametrize("cause", ["timeout", "died"])
@pytest.mark.parametrize("before", [0, 1, 5, 11])
async def test_a_question_behind_held_replies_is_the_one_that_hangs(before: int, cause: str) -> None:
    """Only it is Unavailable: those before it, whose replies may still be held, and those behind are answered."""
    events: list[str] = []
    deadline_s = {"timeout": 0.3, "died": 20.0}[cause]
    async with serving(settings=replace(SETTINGS, deadline_s=deadline_s), events=events) as engine:
        await until(lambda: engine._running().pool.ready)
        (pid,), (link,) = pids(engine), engine._running().pool._links
        first = [asyncio.create_task(decide(engine, saying("yes", n=n))) for n in range(before)]
        culprit = asyncio.create_task(refused(engine, "loop"))
        behind = [asyncio.create_task(decide(engine, saying("yes", n=n))) for n in range(3)]
        if cause == "died":
            progress = link._progress
            assert progress is not None
            await until(lambda: progress.read()[0] == before + 1)
            os.kill(pid, signal.SIGKILL)
        await culprit
        for (decision,) in await asyncio.gather(*first, *behind):
            assert decision.effect is Effect.ALLOW
        assert [event for event in events if event != "started"] == [cause]


async def test_policy_that_eats_memory() -> None:
    """It ends its worker or becomes a fault, never an allow, and the engine goes on."""
    async with serving(settings=replace(SETTINGS, memory_bytes=160 * 1024 * 1024)) as engine:
        try:
            (decision,) = await decide(engine, saying("bomb"))
            assert decision.faulty
        except Unavailable:
            pass
        (decision,) = await decide(engine, saying("yes"))
        assert decision.effect is Effect.ALLOW


async def test_recursive_function_is_refused_at_load() -> None:
    """The engine would overflow its stack on it."""
    rules = RULES + "\nf(x) := g(x)\n\ng(x) := f(x)\n"
    with pytest.raises(BundleError, match="GW004"):
        async with serving(demo(rules)):
            pass


BAD_WORKER = """
import json, os, struct, sys
mode = sys.argv[1]
def read(n):
    data = b""
    while len(data) < n:
        block = os.read(0, n - len(data))
        if not block:
            sys.exit(0)
        data += block
    return data
def frame():
    return read(struct.unpack(">I", read(4))[0])
def send(data):
    os.write(1, struct.pack(">I", len(data)) + data)
frame()
send(json.dumps({"engine": "fake 1"}).encode())
import hashlib
asked = 0
answer = b'{"allow": {"x": [{"id": "x.y", "msg": "m"}]}, "deny": {}, "hint": {}, "require": {}, "oblige": {}}'
last = b""
while True:
    question = frame()
    asked += 1
    count = 2 if b"preflight" in question[:40] else 1
    good = question[:8] + hashlib.sha256(question).digest() + (struct.pack(">BII", 0, 0, len(answer)) + answer) * count
    if count == 2:
        send(good)
        last = good
    elif mode == "noise":
        os.write(1, b"\\xff" * 64)
    elif mode == "other":
        send(question[:8] + b"\\0" * 32 + struct.pack(">BII", 0, 0, len(answer)) + answer)
    elif mode == "short":
        send(good[:-3])
    elif mode == "extra":
        send(good + b"x")
    elif mode == "unasked":
        send(good); send(good)
    elif mode == "status":
        send(good[:40] + b"\\x09" + good[41:])
    elif mode == "silent":
        pass
    else:
        sys.exit(3)
"""


@pytest.mark.parametrize("mode", ["noise", "other", "short", "extra", "status", "silent", "exit"])
async def test_worker_that_babbles_is_killed(tmp_path: Path, mode: str) -> None:
    """A reply that is not exactly the answer to this question decides nothing."""
    script = tmp_path / "worker.py"
    script.write_text(BAD_WORKER, "utf-8")
    events: list[str] = []
    command = (sys.executable, "-I", str(script), mode)
    async with serving(settings=replace(SETTINGS, command=command, deadline_s=0.5), events=events) as engine:
        await refused(engine, "yes")
        expected = {"silent": "timeout", "exit": "died", "noise": "died"}.get(mode, "garbage")
        assert [event for event in events if event != "started"] == [expected]


async def test_reply_nobody_asked_for(tmp_path: Path) -> None:
    """The honest answer counts, the worker that goes on talking is killed."""
    script = tmp_path / "worker.py"
    script.write_text(BAD_WORKER, "utf-8")
    events: list[str] = []
    settings = replace(SETTINGS, command=(sys.executable, "-I", str(script), "unasked"))
    async with serving(settings=settings, events=events) as engine:
        (decision,) = await decide(engine, saying("yes"))
        assert decision.effect is Effect.ALLOW
        await until(lambda: "garbage" in events)


async def test_full_queue_is_unavailable() -> None:
    """What does not fit is refused at once, and the caller may come again."""
    events: list[str] = []
    settings = replace(SETTINGS, queue=20, deadline_s=0.5)
    async with serving(settings=settings, events=events) as engine:
        results = await asyncio.gather(
            *(engine.evaluate("d", [saying("yes")]) for _ in range(100)), return_exceptions=True
        )
        full = [result for result in results if isinstance(result, Unavailable)]
        assert full
        assert all(error.retry_after == 1 for error in full)
        assert "queue_full" in events
        (decision,) = await decide(engine, saying("yes"))
        assert decision.effect is Effect.ALLOW


async def test_no_worker_in_time_is_unavailable() -> None:
    """A question does not wait for ever for a worker that cannot be started again."""
    settings = replace(SETTINGS, queue_wait_s=0.2)
    async with serving(settings=settings) as engine:
        engine._running().pool.settings = replace(engine._running().pool.settings, command=("/nonexistent/worker",))
        os.kill(pids(engine)[0], signal.SIGKILL)
        await until(lambda: not engine._running().pool.ready)
        await refused(engine, "yes")
        with pytest.raises(Unavailable):
            await engine.ping()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
async def test_worker_has_no_environment_and_inherits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets of the gateway's environment and its open files are out of a policy's reach."""
    monkeypatch.setenv("OSTIARY_SECRET", "hunter2")
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)  # noqa: FBT003
    try:
        async with serving() as engine:
            (pid,) = pids(engine)
            assert environment(pid) == b""
            page = {"3": "/memfd:ostiary-policy-progress (deleted)"}
            assert descriptors(pid) == {"0": "socket:", "1": "socket:", "2": "/dev/null"} | page
    finally:
        os.close(reader)
        os.close(writer)


async def test_caller_that_leaves_does_not_disturb_others() -> None:
    """A cancelled question's reply is dropped."""
    async with serving() as engine:
        tasks = [asyncio.create_task(decide(engine, saying("yes"))) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        kept = [result for result in results if isinstance(result, list)]
        assert len(kept) == 10
        assert all(result[0].effect is Effect.ALLOW for result in kept)


def test_orphan_in_an_endless_loop_ends_itself() -> None:
    """A worker whose gateway was killed while it evaluated does not run for ever."""
    ours, theirs = socket.socketpair()
    progress = Progress.made()
    command = [*worker_command(256 * 1024 * 1024, 0.3), str(progress.descriptor)]
    end, page = theirs.fileno(), (progress.descriptor,)
    with (
        ours,
        subprocess.Popen(command, stdin=end, stdout=end, stderr=subprocess.DEVNULL, env={}, pass_fds=page) as process,
    ):
        theirs.close()
        progress.shared()
        ours.sendall(bundle_frame(demo()))
        assert b"regorus" in ours.recv(1000)
        ours.sendall(question_frame(1, "d", [(b"", saying("loop"))])[0])
        assert process.wait(timeout=20) == -signal.SIGVTALRM
        assert progress.read()[0] == 1
    progress.close()
