"""Operator logs: one JSON object a line on stderr, with every known secret taken out.

Nothing a caller or an upstream wrote is logged; that belongs sealed into the audit log.
"""

import logging
import sys
from collections.abc import Callable

import msgspec


class JsonLines(logging.Formatter):
    """Formats a record as one JSON line; ``redact`` sees the whole line, tracebacks included."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        """Keep the redaction of known values."""
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return self._redact(msgspec.json.encode(line).decode())


def configure(redact: Callable[[str], str], level: str = "WARNING") -> None:
    """Send all loggers of the process to stderr as JSON lines from ``level`` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(redact))
    logging.basicConfig(level=level, handlers=[handler], force=True)
