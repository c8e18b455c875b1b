"""Reads and writes what a vault must hold, with an operator's token. Everything here blocks."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from gateway.adapters.vault.wire import Address, Ask, Wire
from gateway.core.leasing import VaultCause, VaultFault
from gateway.core.vault_plan import Piece

_LAST_OK = 299
_BAD_REQUEST = 400
_FORBIDDEN = 403
_NOT_FOUND = 404


class Provisioner:
    """One vault, as an operator sees it; a context manager. The token is not kept beyond it, and never shown.

    Failure mode, closed: what cannot be read is no absence but a ``VaultFault``.
    """

    def __init__(self, address: Address, token: str) -> None:
        self._wire = Wire(address)
        self._token = token

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wire.close()

    def read(self, path: str) -> Mapping[str, Any] | None:
        """What is there; None = nothing.

        Raises:
            VaultFault: the vault does not answer, or refuses.
        """
        status, reply = self._wire.ask(Ask(path, None, ("read",)), self._token)
        if status in {_BAD_REQUEST, _NOT_FOUND}:  # 400: nothing is mounted there
            return None
        if status > _LAST_OK:
            raise _refused(status, path, "read")
        return reply.data or {}

    def write(self, piece: Piece) -> None:
        """Put a piece there.

        Raises:
            VaultFault: the vault does not answer, or refuses.
        """
        status, _ = self._wire.ask(Ask(piece.path, dict(piece.body), ("create", "update")), self._token)
        if status > _LAST_OK:
            raise _refused(status, piece.path, "write")


def _refused(status: int, path: str, what: str) -> VaultFault:
    if status == _FORBIDDEN:
        fix = (
            "the token must have the policy that `ostiary vault policy admin` prints, written anew whenever the "
            "settings change; or it has ended"
        )
        return VaultFault(VaultCause.DENIED, f"the vault does not let this token {what} {path}", fix=fix, undone=True)
    fix = f"the vault answered {status}; its log says why"
    return VaultFault(VaultCause.FAILED, f"the vault could not {what} {path}", fix=fix)
