"""Workers that redact large bodies: they do what the redactor does, and whatever goes wrong withholds the body."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from gateway.adapters.redaction import Options, Scrubbers
from gateway.core.errors import Tainted
from gateway.core.needles import Needles
from gateway.core.redact import Bounds, Clean, cleaned, holding
from tests.contract.test_mcp_connector_stdio import alive, until
from tests.gateways import ROOT

SECRET, TOKEN, LATER = "s3cret-of-the-gateway", "token-of-a-caller", "minted-for-another-call"
KNOWN = Needles((SECRET,))
BODIES = {
    "clean": b'{"content":[{"type":"text","text":"nothing"}]}',
    "known": f'{{"content":[{{"type":"text","text":"it is {SECRET}"}}]}}'.encode(),
    "escaped": b'{"a":"' + b"".join(b"\\u%04x" % ord(letter) for letter in SECRET) + b'"}',
    "secret key": b'{"content":[],"structuredContent":{"password":"x"}}',
    "key twice": b'{"password":"x","password":"y"}',
    "not JSON": b'{"token":',
    "large": b'{"a":"' + SECRET.encode() + b"%41" * 20_000 + b'"}',
}
# A worker that reads its job and then does as it is told: ``python -c MISBEHAVING WORD GATEWAY``.
MISBEHAVING = """
import os, socket, struct, sys, time
channel = socket.socket(fileno=os.dup(0))
size, = struct.unpack(">I", channel.recv(4, socket.MSG_WAITALL))
channel.recv(size, socket.MSG_WAITALL)
if sys.argv[1] == "talks":
    channel.sendall(struct.pack(">I", 3) + b"abc")
elif sys.argv[1] == "boasts":
    channel.sendall(struct.pack(">I", 1 << 31))
elif sys.argv[1] == "other":
    channel.sendall(struct.pack(">I", 9) + bytes([0x81, 0xA6]) + b"number" + bytes([7]))
elif sys.argv[1] == "dies":
    sys.exit(1)
time.sleep(600)
"""
# A gateway that is killed while a worker is at work for it.
GATEWAY = """
import anyio
from gateway.adapters.redaction import Scrubbers
from gateway.core.needles import Needles
from gateway.core.redact import Bounds

async def main():
    async with Scrubbers() as scrubbers, anyio.create_task_group() as tasks:
        body = b'{"a":"' + b"%41" * 1_300_000 + b"s3cret-of-the-gateway" + b'"}'
        tasks.start_soon(scrubbers.cleaned, body, (Needles(("s3cret-of-the-gateway",)),), Bounds())
        while not scrubbers._all:
            await anyio.sleep(0)
        print(next(iter(scrubbers._all)).process.pid, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


def misbehaving(way: str) -> tuple[str, ...]:
    """The command line of a worker that is none."""
    return (sys.executable, "-I", "-S", "-c", MISBEHAVING, way)


@asynccontextmanager
async def open_(**options: Any) -> AsyncIterator[Scrubbers]:
    """Workers; all are gone afterwards."""
    async with Scrubbers(Options(**options)) as scrubbers:
        yield scrubbers
        pids = [link.process.pid for link in scrubbers._all]
    assert not [pid for pid in pids if alive(pid)]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop for what the module shares."""
    return "asyncio"


@pytest.fixture(scope="module")
async def scrubbers(anyio_backend: str) -> AsyncIterator[Scrubbers]:
    """Workers that behave."""
    async with open_(workers=1) as shared:
        yield shared


async def taken(scrubbers: Scrubbers, body: bytes, *needles: Needles, **bounds: int) -> str:
    """Why a body is withheld."""
    with pytest.raises(Tainted) as caught:
        await scrubbers.cleaned(body, needles or (KNOWN,), Bounds(**bounds))
    return str(caught.value.cause_code)


def here(body: bytes) -> Clean | str:
    """What becomes of a body in this process, or why it is withheld."""
    try:
        return cleaned(body, (KNOWN,), Bounds())
    except Tainted as error:
        return str(error.cause_code)


@pytest.mark.requirement("REDACT-1")
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_a_worker_does_what_the_redactor_does(body: bytes, scrubbers: Scrubbers) -> None:
    """The same text, counts and refusals; the very same bytes where nothing was taken out."""
    assert await scrubbers.holding(body, (KNOWN,), Bounds()) is holding(body, (KNOWN,), Bounds())
    expected = here(body)
    if isinstance(expected, str):
        assert await taken(scrubbers, body) == expected
        return
    found = await scrubbers.cleaned(body, (KNOWN,), Bounds())
    assert found == expected
    assert (found[0] is body) is (expected[0] is body)


async def test_bounds_go_along(scrubbers: Scrubbers) -> None:
    """A body over them is withheld, and counts as holding a value."""
    assert await taken(scrubbers, BODIES["known"], nodes=1) == "redaction_bound"
    assert await scrubbers.holding(BODIES["known"], (KNOWN,), Bounds(nodes=1)) is True


async def test_values_come_and_go(scrubbers: Scrubbers) -> None:
    """What was minted meanwhile is looked for, what is gone is not; nothing that is known is told again."""
    later, token = Needles((LATER,)), Needles((TOKEN,))
    body = f'{{"a":["{SECRET}","{LATER}","{TOKEN}"]}}'.encode()
    sets = {"all": (KNOWN, later, token), "one": (KNOWN,), "other": (later,), "again": (token, KNOWN)}
    found = {}
    for name, needles in sets.items():
        text, counts = await scrubbers.cleaned(body, needles, Bounds())
        found[name] = counts["known_value"], SECRET.encode() in text, LATER.encode() in text
    assert found["all"] == (3, False, False)
    assert (found["one"], found["other"]) == ((1, False, True), (1, True, False))
    assert found["again"] == (2, False, True)
    (link,) = scrubbers._all
    assert set(link._told) == {token, KNOWN}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_a_worker_has_nothing_but_its_socket(scrubbers: Scrubbers) -> None:
    """No environment, no open file of the gateway's, no secret on its command line, and it steps back for others."""
    await scrubbers.cleaned(BODIES["known"], (KNOWN,), Bounds())
    (link,) = scrubbers._all
    place = Path("/proc", str(link.process.pid))
    assert (place / "environ").read_bytes() == b""
    assert SECRET.encode() not in (place / "cmdline").read_bytes()
    opened = {str(one.readlink()).partition(":")[0] for one in (place / "fd").iterdir()}
    assert opened <= {"socket", "/dev/null"}
    assert os.getpriority(os.PRIO_PROCESS, link.process.pid) > os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.parametrize("way", ["talks", "boasts", "other", "dies"])
async def test_a_worker_that_is_of_no_use_withholds_its_body(way: str) -> None:
    """It is killed, nothing is let through, and the next body gets another one."""
    async with open_(command=misbehaving(way)) as scrubbers:
        assert await taken(scrubbers, BODIES["clean"]) == "redaction_failed"
        assert await scrubbers.holding(BODIES["clean"], (KNOWN,), Bounds()) is True
        assert not scrubbers._all


async def test_a_worker_that_takes_too_long_is_killed() -> None:
    """Its body is withheld."""
    async with open_(command=misbehaving("hangs"), deadline_s=0.3) as scrubbers:
        assert await taken(scrubbers, BODIES["clean"]) == "redaction_bound"
        assert not scrubbers._all


async def test_no_worker_at_all_withholds_the_body(tmp_path: Path) -> None:
    """What cannot be started lets nothing through."""
    async with open_(command=(str(tmp_path / "nowhere"),)) as scrubbers:
        assert await taken(scrubbers, BODIES["clean"]) == "redaction_failed"


async def test_the_queue_is_bounded() -> None:
    """Who comes when too many wait is withheld at once; who waited has his turn."""
    async with open_(command=misbehaving("hangs"), workers=1, waiting=1) as scrubbers:
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(scrubbers.cleaned, BODIES["clean"], (KNOWN,), Bounds())
            await until(lambda: len(scrubbers._all) == scrubbers._queued == 1)
            assert await taken(scrubbers, BODIES["clean"]) == "redaction_busy"
            tasks.cancel_scope.cancel()
        assert not scrubbers._all
        assert scrubbers._places.value == 1


async def test_the_end_waits_for_workers_that_were_killed_before() -> None:
    """They know secrets: when the gateway says that it is gone, so are they."""
    async with open_(command=misbehaving("hangs"), workers=1) as scrubbers, anyio.create_task_group() as tasks:
        tasks.start_soon(scrubbers.cleaned, BODIES["clean"], (KNOWN,), Bounds())
        await until(lambda: len(scrubbers._all) == 1)
        (link,) = scrubbers._all
        tasks.cancel_scope.cancel()
    assert link.process.returncode is not None


async def test_nobody_waits_for_ever_behind_others() -> None:
    """A body whose turn does not come is withheld, and its call ends; nothing is left in the queue."""
    async with open_(command=misbehaving("hangs"), workers=1, waiting_s=0.05) as scrubbers:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scrubbers.cleaned, BODIES["clean"], (KNOWN,), Bounds())
            await until(lambda: len(scrubbers._all) == 1)
            with anyio.fail_after(15):
                assert await taken(scrubbers, BODIES["clean"]) == "redaction_busy"
                assert await scrubbers.holding(BODIES["clean"], (KNOWN,), Bounds()) is True
            tasks.cancel_scope.cancel()
        assert (scrubbers._queued, scrubbers._places.value) == (0, 1)


async def test_a_caller_who_leaves_takes_the_worker_along() -> None:
    """What was half done for one call is never taken for another's; the next one is served."""
    async with open_(workers=1) as scrubbers:
        await scrubbers.cleaned(BODIES["clean"], (KNOWN,), Bounds())
        ((link, _),) = scrubbers._idle
        os.kill(link.process.pid, signal.SIGSTOP)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scrubbers.cleaned, BODIES["known"], (KNOWN,), Bounds())
            await until(lambda: not scrubbers._idle)
            tasks.cancel_scope.cancel()
        await until(lambda: not alive(link.process.pid))
        text, _ = await scrubbers.cleaned(BODIES["known"], (KNOWN,), Bounds())
        assert SECRET.encode() not in text


async def test_an_idle_worker_ends_and_forgets() -> None:
    """Secrets do not lie in a process that has nothing to do."""
    async with open_(idle_s=0.05) as scrubbers:
        await scrubbers.cleaned(BODIES["clean"], (KNOWN,), Bounds())
        await until(lambda: not scrubbers._all)
        text, _ = await scrubbers.cleaned(BODIES["known"], (KNOWN,), Bounds())
        assert SECRET.encode() not in text


async def test_a_worker_that_died_idle_is_replaced() -> None:
    """Before its next body, which notices nothing."""
    async with open_(workers=1) as scrubbers:
        await scrubbers.cleaned(BODIES["clean"], (KNOWN,), Bounds())
        ((link, _),) = scrubbers._idle
        link.process.kill()
        await link.process.wait()
        text, _ = await scrubbers.cleaned(BODIES["known"], (KNOWN,), Bounds())
        assert SECRET.encode() not in text
    gc.collect()  # an unclosed socket would be warned of here


async def test_a_worker_dies_with_a_gateway_that_is_killed() -> None:
    """Also in the middle of its work."""
    gateway = await anyio.to_thread.run_sync(
        lambda: subprocess.Popen([sys.executable, "-c", GATEWAY], cwd=ROOT, stdout=subprocess.PIPE)
    )
    with gateway:
        assert gateway.stdout is not None
        pid = int(await anyio.to_thread.run_sync(gateway.stdout.readline))
        gateway.kill()
    await until(lambda: not alive(pid))
