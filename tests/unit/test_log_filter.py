"""Secrets out of the gateway's own log lines."""

import io
import logging

from gateway.adapters.log_filter import SecretFilter
from gateway.core.known import KnownValues
from gateway.core.redact import KNOWN_VALUE, Redactor

SECRET = "Kx7-Qw9-Zp3-Vb5"


def logged(message: object, *args: object, exc: bool = False, stack: bool = False) -> str:
    """What a handler with the filter writes for one record."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(SecretFilter(Redactor(KnownValues([SECRET])).text))
    logger = logging.Logger("test")  # noqa: LOG001 - not in the tree, so nobody else hears it
    logger.addHandler(handler)
    logger.error(message, *args, exc_info=exc, stack_info=stack)
    return stream.getvalue()


def test_messages_and_arguments_are_cleaned() -> None:
    """The formatted message counts, not its parts."""
    assert logged("key %s of %d", SECRET, 3) == f"key {KNOWN_VALUE} of 3\n"
    assert logged("Kx7-%s", "Qw9-Zp3-Vb5") == f"{KNOWN_VALUE}\n"
    assert logged("plain %s", "line") == "plain line\n"


def test_exceptions_and_stacks_are_cleaned() -> None:
    """A traceback that quotes a secret does not."""
    try:
        raise RuntimeError(SECRET)
    except RuntimeError:
        text = logged("failed", exc=True, stack=True)
    assert SECRET not in text
    assert f"RuntimeError: {KNOWN_VALUE}" in text
    assert "Stack (most recent call last)" in text


def test_text_of_an_exception_formatted_before_is_cleaned() -> None:
    """A handler that came earlier may have cached the traceback."""
    record = logging.LogRecord("test", logging.ERROR, __file__, 1, "failed", None, None)
    record.exc_text = f"RuntimeError: {SECRET}"
    assert SecretFilter(Redactor(KnownValues([SECRET])).text).filter(record)
    assert record.exc_text == f"RuntimeError: {KNOWN_VALUE}"


def test_a_wrong_format_does_not_cost_the_line() -> None:
    """The unformatted message is kept and cleaned."""
    assert logged("key %d " + SECRET, "x") == f"key %d {KNOWN_VALUE} (unformatted)\n"
