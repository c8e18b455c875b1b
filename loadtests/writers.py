"""How fast many callers at once have their records made durable: each waits for its own before it goes on."""

import asyncio
import random
import time
from pathlib import Path
from typing import Final

from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.core.call import RunKind
from gateway.core.records import Actor, EventType
from loadtests.big_log import AGENTS, call_records

CALLERS: Final = 64
_WARM: Final = 20


async def written(folder: Path, keys: LogKeys, calls: int, seed: int) -> dict[str, float]:
    """``CALLERS`` callers make ``calls`` calls in all, as the gateway records them: an intent, then how it ended.

    Records a second by the wall, and microseconds of CPU time a record, the callers' own included.

    Raises:
        GatewayError: the log refused a record.
    """
    clock = SystemClock()
    scribe, chance = Scribe(clock, keys), random.Random(seed)
    made = 0
    async with Ledger(folder, keys, clock) as ledger:

        async def caller(subject: Subject, calls: int) -> None:
            nonlocal made
            for _ in range(calls):
                drafts = call_records(scribe, Subject(subject.actor, subject.run_id, clock.uuid()), chance)
                for part in (drafts[:-1], drafts[-1:]):  # before the effect, and before the answer
                    if part:
                        await ledger.hand_in(part).recorded()
                        made += len(part)

        subjects = []
        for number in range(CALLERS):
            subject = Subject(Actor(AGENTS[number % len(AGENTS)], "local", f"{number:032x}"), clock.uuid())
            body = {"binding": None, "expires_us": clock.now_us() + 3_600_000_000, "kind": RunKind.OPENED}
            await ledger.append([scribe.draft(EventType.RUN_STARTED, subject, body)])
            subjects.append(subject)
        await asyncio.gather(*(caller(subject, _WARM) for subject in subjects))
        made, cpu, began = 0, time.process_time(), time.perf_counter()
        await asyncio.gather(*(caller(subject, calls // CALLERS) for subject in subjects))
        seconds, used = time.perf_counter() - began, time.process_time() - cpu
    return {"records": made, "seconds": seconds, "per_second": made / seconds, "cpu_us": used / made * 1e6}
