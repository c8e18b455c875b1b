"""What happened on the fakes, in order, and the one place to make something go wrong there."""

from collections.abc import Callable
from dataclasses import dataclass, field

from anyio.lowlevel import checkpoint


@dataclass(slots=True)
class Journal:
    """The ordered steps of every fake that shares it.

    Attributes:
        steps: names of the steps reached, such as ``limits.spend``.
        traps: what to do when a step is reached: raise an error, cancel the caller, let another call in.
    """

    steps: list[str] = field(default_factory=list)
    traps: dict[str, Callable[[], None]] = field(default_factory=dict)

    def note(self, step: str) -> None:
        """Reach a synchronous step."""
        self.steps.append(step)
        if step in self.traps:
            self.traps[step]()

    async def reach(self, step: str) -> None:
        """Reach a step that awaits: a cancellation arrives here unless it is shielded."""
        self.note(step)
        await checkpoint()

    def fail(self, step: str, error: BaseException) -> None:
        """Raise ``error`` whenever ``step`` is reached."""

        def trap() -> None:
            raise error

        self.traps[step] = trap

    def before(self, first: str, second: str) -> bool:
        """Whether both steps were reached, ``first`` before ``second``."""
        return first in self.steps and second in self.steps and self.steps.index(first) < self.steps.index(second)
