"""The gateway's own secret id, replaced while it is used: asked for wrapped, proven, put in place; the old one goes.

Whoever is killed on the way leaves the file with a secret id that works, and beside it what is still to be destroyed:
``FILE.next`` (never in use) or ``FILE.old``. The next rotation, or the next start, destroys it.
"""

import os
from contextlib import suppress
from pathlib import Path

from anyio import to_thread

from gateway.adapters.vault.client import VaultClient
from gateway.adapters.vault.wire import Ask
from gateway.core.errors import Unavailable
from gateway.core.leasing import VaultCause, VaultFault
from gateway.core.rotation import KeyKind

_UPDATE = ("update",)
_WRAP = "60s"
_MICRO = 1_000_000


class SecretIdRotation:
    """Implements ``core.rotation.Rotatable`` for the secret id in a file."""

    kind = KeyKind.SECRET_ID
    subject = ""

    def __init__(self, client: VaultClient, role: str, file: Path, every_h: int) -> None:
        """``role``: ``MOUNT/role/NAME`` of the AppRole, below ``auth/``."""
        self._client = client
        self._path = f"auth/{role}/secret-id"
        self._file = file
        self._next = file.with_name(f"{file.name}.next")
        self._old = file.with_name(f"{file.name}.old")
        self.every_h = every_h

    async def since_us(self) -> int | None:
        """When its file was written: each gateway has its own."""
        try:
            return int(self._file.stat().st_mtime * _MICRO)
        except OSError:
            return None

    async def settle(self) -> None:
        """Destroy what a rotation left that was broken off; see ``core.rotation.Rotatable``."""
        await self._finish()

    async def rotate(self) -> None:
        """Replace it; see ``core.rotation.Rotatable``."""
        await self._finish()
        fresh = await self._asked()
        try:
            await to_thread.run_sync(_write, self._next, fresh)
        except Unavailable:
            await self._destroy(fresh)
            raise
        await self._client.prove_secret(fresh)
        # Nobody logs in between: a login by the old one could meet its end.
        await self._client.change_secret(self._swap)
        await self._finish()

    async def _asked(self) -> str:
        wrapped = await self._client.request(Ask(self._path, {}, _UPDATE, wrap=_WRAP))
        if wrapped.wrap_info is None:
            raise VaultFault(VaultCause.FAILED, "the vault gave no wrapped secret id", fix="see the vault's log")
        # Once only: where somebody else was faster this fails, and the secret id of theirs is never used here.
        found = await self._client.request_with(Ask("sys/wrapping/unwrap", {}, _UPDATE), wrapped.wrap_info.token)
        secret = (found.data or {}).get("secret_id")
        if not isinstance(secret, str) or not secret:
            raise VaultFault(VaultCause.FAILED, "the vault gave no secret id", fix="see the vault's log")
        return secret

    def _swap(self) -> None:
        # Its old content has another name before it loses this one: it can be destroyed whenever this ends.
        try:
            self._old.unlink(missing_ok=True)
            os.link(self._file, self._old)
            self._next.replace(self._file)
            _sync(self._file.parent)
        except OSError as error:
            raise Unavailable(f"{self._file} cannot be replaced: {error.strerror}", cause_code="file") from None

    async def _finish(self) -> None:
        # What a rotation left that was broken off, or this one's old secret id.
        present = await to_thread.run_sync(_read, self._file)
        for path in (self._next, self._old):
            left = await to_thread.run_sync(_read, path)
            if left is not None and left != present:
                await self._destroy(left)
            path.unlink(missing_ok=True)

    async def _destroy(self, secret: str) -> None:
        await self._client.request(Ask(f"{self._path}/destroy", {"secret_id": secret}, _UPDATE))


def _read(path: Path) -> str | None:
    with suppress(FileNotFoundError):
        return path.read_text("utf-8").strip() or None
    return None


def _write(path: Path, secret: str) -> None:
    try:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secret)
            file.flush()
            os.fsync(descriptor)
        _sync(path.parent)
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror}", cause_code="file") from None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
