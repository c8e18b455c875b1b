"""Upstream credentials an operator keeps in the environment or in files.

Nothing is minted and nothing revoked. A file is read for each call, so a rotated one is used from the next call on, and
the value is made known to the redactor before it leaves this module.
"""

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from gateway.core.errors import Unavailable
from gateway.core.known import KnownValues
from gateway.core.needles import MAX_LENGTH, UnfitSecret


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSource:
    """Where a secret is kept; exactly one is given.

    Attributes:
        env: environment variable that holds the value.
        file: file that holds the value; white space around it is ignored.
    """

    env: str | None = None
    file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticCredential(SecretSource):
    """A secret that is sent upstream in a header field.

    Attributes:
        header: header field it is sent in.
        prefix: what stands before the value in the header field, e.g. ``Bearer ``.
    """

    header: str = "Authorization"
    prefix: str = ""


class StaticCredentials:
    """Header fields from static credentials.

    Failure mode, closed: a credential that is unknown, missing, empty, unreadable or too short to be kept out of
    outputs is ``Unavailable``, before anything is sent.
    """

    def __init__(
        self,
        credentials: Mapping[str, StaticCredential],
        known: KnownValues,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """``credentials`` by the name that tools use (``Tool.credential``)."""
        self._credentials = dict(credentials)
        self._known = known
        # A file may be rotated; an environment stays as the process was started with it.
        named = {source.env for source in credentials.values() if source.env is not None}
        self._environment = {name: environment[name] for name in named if name in environment}
        # Those from the environment, once they were found good: the value, and the fields it is sent in.
        self._standing: dict[str, tuple[str, Mapping[str, str]]] = {}

    def headers(self, name: str | None) -> Mapping[str, str]:
        """The header fields of the credential ``name`` as of now, known to the redactor; none where none is named.

        Raises:
            Unavailable: ``cause_code`` is ``credential``.
        """
        if name is None:
            return {}
        standing = self._standing.get(name)
        if standing is not None and standing[0] in self._known.needles.values:
            return standing[1]
        credential = self._credentials.get(name)
        if credential is None:
            raise _unavailable(f"credential {name!r}", "is not configured")
        value = read_secret(f"credential {name!r}", credential, self._environment)
        if not value.isascii() or not value.isprintable():
            raise _unavailable(f"credential {name!r}", "holds characters no header field may have")
        if value not in self._known.needles.values:
            try:
                self._known.add(value)
            except UnfitSecret as error:
                raise _unavailable(f"credential {name!r}", f"cannot be kept out of outputs: {error}") from None
        fields = MappingProxyType({credential.header: credential.prefix + value})
        if credential.env is not None:
            self._standing[name] = value, fields
        return fields

    def acquaint(self) -> None:
        """Make every credential that can be read now known to the redactor; the others are ``ping``'s business.

        Before any call, as an upstream that echoes another one's credential must not be the first to say it.
        """
        for name in self._credentials:
            with suppress(Unavailable):
                self.headers(name)

    def check(self) -> None:
        """All configured credentials can be read now.

        Raises:
            Unavailable: naming the first that cannot.
        """
        for name in self._credentials:
            self.headers(name)


def read_secret(what: str, source: SecretSource, environment: Mapping[str, str]) -> str:
    """The value at ``source``; ``what`` names it in errors.

    Raises:
        Unavailable: missing, empty or unreadable.
    """
    value = environment.get(source.env, "") if source.env is not None else _file(what, source.file)
    if not value.strip():
        raise _unavailable(what, "is missing or empty")
    return value.strip()


def _file(what: str, path: Path | None) -> str:
    if path is None:
        return ""
    try:
        # Without O_NONBLOCK a pipe in its place would hold the whole gateway.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _unavailable(what, "is no regular file")
            return stream.read(MAX_LENGTH + 1).decode()
    except (OSError, UnicodeDecodeError):
        raise _unavailable(what, "cannot be read") from None


def _unavailable(what: str, why: str) -> Unavailable:
    return Unavailable(f"{what} {why}", cause_code="credential")
