"""One thing that is wrong with a bundle."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """What is wrong, and where.

    Attributes:
        file: name of the module, or empty where it concerns the bundle as a whole.
        line: from 1; 0 where there is none.
        rule: ``GW001`` ...
        message: what is wrong and what to write instead.
    """

    file: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        """``file:line: rule message``."""
        return f"{self.file or 'bundle'}:{self.line}: {self.rule} {self.message}"
