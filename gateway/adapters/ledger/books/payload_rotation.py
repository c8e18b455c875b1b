"""Another key for payloads where it lies in its file: every data key is wrapped anew while the log is written.

The new key is on disk beside the old one before it wraps anything, and takes the old one's name once it has wrapped
all. Until then both are there and both open, in every process that reads the folder: whoever is killed at any point has
what it needs, and the next start goes on. The payloads themselves stay as they are, as do the data keys.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from anyio import to_thread

from gateway.adapters.ledger.database import FAULTS, Database
from gateway.adapters.ledger.keyring.key_files import StateRefused, sync_folder, write_durably
from gateway.adapters.ledger.keyring.keys import KEY_SIZE, NEXT_KEK, PAYLOAD_KEK
from gateway.adapters.ledger.keyring.ring import Learn, nothing
from gateway.adapters.ledger.keyring.sealing import NONCE_SIZE, PayloadKey
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.storage import files
from gateway.core.errors import Unavailable
from gateway.core.ports import Clock
from gateway.core.rotation import KeyKind

# Calls wait for one such transaction at the most.
_MOST = 200


@dataclass(frozen=True, slots=True)
class PayloadKeyRotation:
    """Implements ``core.rotation.Rotatable`` for a log in one folder.

    Attributes:
        state: the state folder.
        kek: the key, as all that open payloads share it.
        learn: is told of a new key before it is written.
    """

    state: Path
    kek: PayloadKey
    ledger: Ledger
    clock: Clock
    every_h: int = 0
    learn: Learn = field(default=nothing, repr=False)
    kind: KeyKind = KeyKind.PAYLOAD_KEY
    subject: str = ""

    async def since_us(self) -> int | None:
        """The log of rotations knows."""
        return None

    async def settle(self) -> None:
        """End a rotation that was broken off.

        Raises:
            Unavailable: it cannot be ended now.
        """
        if not self.kek.is_settled:
            await self._go_on()

    async def rotate(self) -> None:
        """Another key, or the end of a rotation that was broken off.

        Raises:
            Unavailable: it was not replaced; both keys are there.
        """
        if self.kek.is_settled:
            key = self.clock.random(KEY_SIZE)
            self.learn(key)
            try:
                await to_thread.run_sync(self._begin, key)
            except (OSError, StateRefused) as error:
                raise _failed(error) from None
        await self._go_on()

    def _begin(self, key: bytes) -> None:
        keys = self.state / "keys"
        # Not under its name at once: half a key must never be taken for one.
        beside = keys / f"{NEXT_KEK}.part"
        write_durably(beside, key, 0o600)
        beside.rename(keys / NEXT_KEK)
        sync_folder(keys)
        self.kek.succeed(key)

    async def _go_on(self) -> None:
        # What is being written at this moment may have a data key under the former key: it is on disk before it is
        # looked for.
        await self.ledger.append(())
        try:
            with self.ledger.beside():
                await to_thread.run_sync(self._wrap_all)
            await to_thread.run_sync(self._end)
        except (*FAULTS, OSError, StateRefused) as error:
            raise _failed(error) from None

    def _wrap_all(self) -> None:
        with closing(files.connect_beside(self.state)) as db:
            for rows in _pages(db):
                renewed = [
                    (wrapped, dek_id, before)
                    for dek_id, before in rows
                    if (wrapped := self.kek.renewed(dek_id, before, self.clock.random(NONCE_SIZE))) is not None
                ]
                if renewed:
                    db.begin()
                    # One that was destroyed meanwhile stays destroyed.
                    db.executemany("update deks set wrapped = ? where id = ? and wrapped = ?", renewed)
                    db.commit()

    def _end(self) -> None:
        keys = self.state / "keys"
        (keys / NEXT_KEK).rename(keys / PAYLOAD_KEK)
        sync_folder(keys)
        self.kek.settle()


def _pages(db: Database) -> Iterator[list[tuple[str, bytes]]]:
    last = ""
    while rows := db.execute("select id, wrapped from deks where id > ? order by id limit ?", (last, _MOST)).fetchall():
        yield rows
        last = rows[-1][0]


def _failed(error: Exception) -> Unavailable:
    return Unavailable(f"the key of payloads could not be replaced: {error}", cause_code="payload_key")
