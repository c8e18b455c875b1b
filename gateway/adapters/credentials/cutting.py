"""Ends the minted credentials of those whom a kill stops, the ones being minted too, and counts what is left."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from gateway.core.errors import Unavailable
from gateway.core.kills import Cut
from gateway.core.leasing import Holder, MintedLogin, Vault

# A frozen vault keeps nobody waiting for longer; what it has not ended by then is tried again, and said.
_PATIENCE_S = 5.0


class Ended(Protocol):
    """A credential in use."""

    @property
    def holder(self) -> Holder: ...  # noqa: D102

    @property
    def minted(self) -> MintedLogin: ...  # noqa: D102


E = TypeVar("E", bound=Ended)


def _nobody(holder: Holder) -> None:
    """Nobody is stopped."""


@dataclass(slots=True)
class Cutting(Generic[E]):
    """What is in use and what is being minted.

    Attributes:
        in_use: by lease id.
        end: ends one, once; done with whether the vault says that it is gone.
        stop: raises for whom nothing may be minted.
    """

    vault: Vault
    in_use: Mapping[str, E]
    end: "Callable[[E], asyncio.Task[bool]]"
    stop: Callable[[Holder], None] = _nobody
    _minting: "dict[asyncio.Task[E], Holder]" = field(default_factory=dict)

    def minting(self, holder: Holder, task: "asyncio.Task[E]") -> "asyncio.Task[E]":
        """Note what is being minted, until it is."""
        self._minting[task] = holder
        task.add_done_callback(lambda done: self._minting.pop(done, None))
        return task

    async def cut(self, meant: Callable[[Holder], bool]) -> Cut:
        """End all of those who are meant; what could not be ended is tried again by whoever tries such things."""
        ends: dict[str, tuple[E, asyncio.Task[bool]]] = {}
        minting: set[asyncio.Task[E]] = set()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while True:
                    new = [held for name, held in self.in_use.items() if name not in ends and meant(held.holder)]
                    ends |= {held.minted.lease_id: (held, self.end(held)) for held in new}
                    minting = {task for task, holder in self._minting.items() if meant(holder)}
                    waiting = minting | {task for _, task in ends.values() if not task.done()}
                    if not waiting:
                        break
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass  # said below
        return await self._counted(ends, len(minting))

    async def _counted(self, ends: "Mapping[str, tuple[E, asyncio.Task[bool]]]", minting: int) -> Cut:
        cut = Cut(unverifiable=minting)
        for held, task in ends.values():
            if not task.done():
                cut += Cut(unverifiable=1)
            elif not task.cancelled() and task.exception() is None and task.result():
                cut += Cut(ended=1)
            else:
                cut += await self._asked(held.minted)
        return cut

    async def _asked(self, minted: MintedLogin) -> Cut:
        if minted.accessor is not None:
            return Cut(unverifiable=1)
        try:
            is_there = await self.vault.login_exists(minted.lease_id)
        except Unavailable:
            return Cut(unverifiable=1)
        return Cut(not_ended=1) if is_there else Cut(ended=1)
