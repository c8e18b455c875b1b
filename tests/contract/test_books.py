"""The real books as the service opens them: who asks the log much does not keep calls waiting."""

import threading
from contextlib import AsyncExitStack
from pathlib import Path

import anyio

from gateway.core.desk import RunRequest
from gateway.core.known import KnownValues
from gateway.parts import books
from gateway.settings import GatewaySettings
from tests.clock import StepClock
from tests.evidence import make_principal
from tests.ledgers import Tally

_PATIENCE_S = 20.0


async def test_no_call_waits_for_a_long_search(tmp_path: Path) -> None:
    """While a search holds its reader, a run that is not in memory is looked up all the same."""
    settings = GatewaySettings(state=tmp_path)
    means = books.Means(StepClock(), Tally(), str, "http://127.0.0.1", KnownValues())
    async with AsyncExitStack() as stack:
        before = await books.opened(settings, means, stack)
        run = await before.runs.start(make_principal(agent=None), RunRequest("a goal", "test-agent"))
    async with AsyncExitStack() as stack:
        again = await books.opened(settings, means, stack)
        searching, found = threading.Event(), threading.Event()

        def long(_: object) -> None:
            searching.set()
            assert found.wait(_PATIENCE_S)

        async with anyio.create_task_group() as group:
            group.start_soon(again.reader.ask, long)
            await anyio.to_thread.run_sync(searching.wait)
            with anyio.fail_after(_PATIENCE_S):
                assert await again.runs.show(run.id) is not None
            found.set()
