"""The ``Broker`` port for upstream credentials an operator keeps in the environment or in files.

Nothing is minted and nothing revoked. The value is read for each call, so a rotated file is used from the next call on,
and it is made known to the redactor before it leaves this module.
"""

import os
import stat
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.core.call import Intent, Lease
from gateway.core.errors import Unavailable
from gateway.core.known import MAX_LENGTH, KnownValues, UnfitSecret
from gateway.core.tool import Tool


@dataclass(frozen=True, slots=True)
class StaticCredential:
    """Where a credential is kept and how it is sent; exactly one of ``env`` and ``file`` is given.

    Attributes:
        header: header field it is sent in.
        env: environment variable that holds the value.
        file: file that holds the value; white space around it is ignored.
        prefix: what stands before the value in the header field, e.g. ``Bearer ``.
    """

    header: str = "Authorization"
    env: str | None = None
    file: Path | None = None
    prefix: str = ""


class StaticBroker:
    """Leases from static credentials; the only maker of ``Lease``.

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
        self._environment = environment

    @asynccontextmanager
    async def lease(self, intent: Intent) -> AsyncIterator[Lease]:
        """The credential the tool names, as header fields; none for a tool that names none.

        Raises:
            Unavailable: ``cause_code`` is ``credential``.
        """
        yield Lease(intent, self._headers(intent.tool.credential))

    async def ping(self) -> None:
        """All configured credentials can be read now.

        Raises:
            Unavailable: naming the first that cannot.
        """
        for name in self._credentials:
            self._headers(name)

    def missing(self, tools: Iterable[Tool]) -> list[str]:
        """Tools whose credential is not configured, as sentences for ``ostiary check``."""
        return [
            f"{tool.fqn}: no credential {tool.credential!r} is configured"
            for tool in tools
            if tool.credential is not None and tool.credential not in self._credentials
        ]

    def _headers(self, name: str | None) -> dict[str, str]:
        if name is None:
            return {}
        credential = self._credentials.get(name)
        if credential is None:
            raise _unavailable(name, "is not configured")
        value = _read(name, credential, self._environment)
        if not value.isascii() or not value.isprintable():
            raise _unavailable(name, "holds characters no header field may have")
        if value not in self._known.needles.values:
            try:
                self._known.add(value)
            except UnfitSecret as error:
                raise _unavailable(name, f"cannot be kept out of outputs: {error}") from None
        return {credential.header: credential.prefix + value}


def _read(name: str, credential: StaticCredential, environment: Mapping[str, str]) -> str:
    value = environment.get(credential.env, "") if credential.env is not None else _file(name, credential.file)
    if not value.strip():
        raise _unavailable(name, "is missing or empty")
    return value.strip()


def _file(name: str, path: Path | None) -> str:
    if path is None:
        return ""
    try:
        # Without O_NONBLOCK a pipe in its place would hold the whole gateway.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _unavailable(name, "is no regular file")
            return stream.read(MAX_LENGTH + 1).decode()
    except (OSError, UnicodeDecodeError):
        raise _unavailable(name, "cannot be read") from None


def _unavailable(name: str, why: str) -> Unavailable:
    return Unavailable(f"credential {name!r} {why}", cause_code="credential")
