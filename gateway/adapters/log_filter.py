"""Secrets out of the gateway's own log lines, by the engine that takes them out of results."""

import logging
from collections.abc import Callable


class SecretFilter(logging.Filter):
    """Rewrites every record before a handler sees it: message, arguments, exception and stack text."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        """``clean`` is ``Redactor.text``."""
        super().__init__()
        self._clean = clean
        self._formatter = logging.Formatter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Always keeps the record; its message is final and has no arguments left afterwards."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):  # wrong arguments for the format: a bug must not cost the line
            message = f"{record.msg!s} (unformatted)"
        record.msg, record.args = self._clean(message), None
        if record.exc_info:
            record.exc_text = self._clean(record.exc_text or self._formatter.formatException(record.exc_info))
            record.exc_info = None
        elif record.exc_text:
            record.exc_text = self._clean(record.exc_text)
        if record.stack_info:
            record.stack_info = self._clean(record.stack_info)
        return True
