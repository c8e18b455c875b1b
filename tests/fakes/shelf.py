"""A vault's place for keys that are handed over, in memory, which can be stopped at any step."""

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.core.errors import Unavailable


def _nothing(step: str) -> None:
    """Nothing happens."""


@dataclass(slots=True)
class FakeShelf:
    """Implements ``core.key_sharing.KeyShelf``.

    Attributes:
        kept: what lies there.
        before: is told of each step before it is done, and may raise.
        is_down: nothing can be asked.
    """

    kept: dict[bytes, str] = field(default_factory=dict)
    before: Callable[[str], None] = _nothing
    is_down: bool = False

    async def put(self, public: bytes, sealed: str) -> None:
        """Lay it there."""
        self._ask("put")
        assert public not in self.kept
        self.kept[public] = sealed

    async def get(self, public: bytes) -> str | None:
        """What lies there."""
        self._ask("get")
        return self.kept.get(public)

    async def clear(self, public: bytes) -> None:
        """Remove it."""
        self._ask("clear")
        self.kept.pop(public, None)

    def _ask(self, step: str) -> None:
        if self.is_down:
            raise Unavailable("the vault cannot be reached", cause_code="vault_unreachable")
        self.before(step)
