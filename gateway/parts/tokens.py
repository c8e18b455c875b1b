"""Bearer tokens the gateway itself shows to servers of policy."""

import os

from gateway.adapters.credentials import SecretSource, read_secret
from gateway.core.errors import Unavailable
from gateway.core.known import KnownValues
from gateway.core.needles import UnfitSecret
from gateway.settings.sections import SecretReference


class Token:
    """Reads a token each time, so that it may be rotated, and makes it known to the redactor before it is used."""

    def __init__(self, what: str, given: SecretReference, known: KnownValues) -> None:
        """``what`` is its key in the settings."""
        self._what = what
        self._source = SecretSource(env=given.env, file=given.file)
        self._known = known
        self._last: str | None = None

    def __call__(self) -> str:
        """The token as of now.

        Raises:
            Unavailable: it cannot be read, or not be kept secret.
        """
        value = read_secret(self._what, self._source, os.environ)
        if value == self._last:
            return value
        try:
            self._known.lend(value)
        except UnfitSecret as error:
            raise Unavailable(f"{self._what} cannot be kept secret: {error}", cause_code="credential") from None
        if self._last is not None:
            self._known.retire(self._last)
        self._last = value
        return value
