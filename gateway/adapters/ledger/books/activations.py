"""Which policy was in force when, in the same log as what it decided."""

from collections.abc import Sequence

from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.reading import LogReader
from gateway.core.canonical import encode
from gateway.core.ports import Clock
from gateway.core.records import EventType, Payload, Role, identifier


class Activations:
    """Writes ``policy.activated`` records."""

    def __init__(self, ledger: Ledger, reader: LogReader, keys: LogKeys, clock: Clock) -> None:
        self._ledger = ledger
        self._reader = reader
        self._scribe = Scribe(clock, keys)

    async def record(self, revision: str, engine: str, origin: Sequence[str]) -> None:
        """Write durably that ``revision`` comes into force, unless it was the last one to.

        Raises:
            Unavailable: the log cannot be written or read.
        """
        before = await self._reader.newest(EventType.POLICY_ACTIVATED)
        previous = None if before is None else before.body["body"]["revision"]
        if previous == revision:
            return
        body = {"engine": identifier(engine), "previous": previous, "revision": identifier(revision)}
        payload = Payload(Role.CHANGE, encode({"origin": list(origin)}))
        await self._ledger.append([self._scribe.draft(EventType.POLICY_ACTIVATED, Subject(), body, payload)])
