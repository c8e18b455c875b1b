"""Persons' connections in a kv engine, version 2: implements ``core.connections.Keeper``.

One secret for each person and connection, of which the vault has one version only: a refresh token that was replaced is
nowhere. Every write names the version it replaces.
"""

from dataclasses import replace
from typing import Any

import msgspec

from gateway.adapters.vault.client import VaultClient
from gateway.adapters.vault.wire import Ask, Reply
from gateway.core.connections import Kept
from gateway.core.leasing import MintingToken, Template, VaultCause, VaultFault

_BAD_REQUEST = 400
_FORBIDDEN = 403
_NOT_FOUND = 404
_LAST_OK = 299


class _Secret(msgspec.Struct, frozen=True):
    owner: str
    client: str
    refresh_token: str | None
    scopes: tuple[str, ...]
    since_us: int
    claimed_until_us: int = 0


class ConnectionKeeper:
    """Keeps connections below ``ostiary/connections/`` of a mount, by connection and the mark of their person.

    Failure mode, closed: whatever is no clear yes raises ``VaultFault``.
    """

    def __init__(self, client: VaultClient) -> None:
        """``client``: the vault; each request is made with the token that is handed in."""
        self._client = client

    async def read(self, template: Template, token: MintingToken, owner: str) -> Kept | None:
        """What is kept; see ``core.connections.Keeper``."""
        status, reply = await self._asked(Ask(_data(template, owner), None, ("read",)), template, token)
        if status == _NOT_FOUND and not reply.no_route:
            return None
        if status > _LAST_OK:
            raise _misplaced(template, status)
        return _kept(template, reply, owner)

    async def write(self, template: Template, token: MintingToken, kept: Kept) -> bool:
        """Replace a version; see ``core.connections.Keeper``."""
        if kept.version == 0:
            ask = Ask(_metadata(template, kept.owner), {"max_versions": 1, "cas_required": True}, ("create", "update"))
            status, _ = await self._asked(ask, template, token)
            if status > _LAST_OK:
                raise _misplaced(template, status)
        secret = _Secret(kept.owner, kept.client, kept.refresh, kept.scopes, kept.since_us, kept.claimed_until_us)
        body = {"options": {"cas": kept.version}, "data": msgspec.to_builtins(secret)}
        ask = Ask(_data(template, kept.owner), body, ("create", "update"))
        status, _ = await self._asked(ask, template, token)
        # The one thing that is wrong with a request of this form: another version is there than it names.
        if status == _BAD_REQUEST:
            return False
        if status > _LAST_OK:
            raise _misplaced(template, status)
        return True

    async def erase(self, template: Template, token: MintingToken, owner: str) -> None:
        """All versions are gone; see ``core.connections.Keeper``."""
        ask = replace(Ask(_metadata(template, owner), None, ("delete",)), method="delete")
        status, _ = await self._asked(ask, template, token)
        if status > _LAST_OK and status != _NOT_FOUND:
            raise _misplaced(template, status)

    async def _asked(self, ask: Ask, template: Template, token: MintingToken) -> tuple[int, Reply]:
        status, reply = await self._client.asked(ask, token.secret)
        if status == _FORBIDDEN:
            above = ask.path.rpartition("/")[0]
            line = replace(ask, path=f"{above}/+").policy_line
            fix = f"allow it in the policy {template.token_policy}: {line}; or correct `mount` of the connection"
            raise VaultFault(VaultCause.DENIED, "the vault refuses the gateway", fix=fix, undone=True)
        return status, reply


def _data(template: Template, owner: str) -> str:
    return f"{template.mount}/data/ostiary/connections/{template.role}/{owner}"


def _metadata(template: Template, owner: str) -> str:
    return f"{template.mount}/metadata/ostiary/connections/{template.role}/{owner}"


def _kept(template: Template, reply: Reply, owner: str) -> Kept:
    data: dict[str, Any] = reply.data or {}
    try:
        secret = msgspec.convert(data.get("data"), _Secret)
        version = msgspec.convert(data["metadata"]["version"], int)
    except (msgspec.ValidationError, KeyError, TypeError):
        raise _spoilt(template) from None
    # Somebody has copied it from another person's place: it is not looked at any further.
    if secret.owner != owner or reply.lease_id:
        raise _spoilt(template)
    return Kept(
        owner=secret.owner,
        client=secret.client,
        refresh=secret.refresh_token,
        scopes=secret.scopes,
        since_us=secret.since_us,
        claimed_until_us=secret.claimed_until_us,
        version=version,
    )


def _spoilt(template: Template) -> VaultFault:
    fix = f"something else wrote below {template.mount}/ostiary/connections/{template.role}/: the person connects anew"
    return VaultFault(VaultCause.UNFIT, "what the vault keeps of the connection cannot be used", fix=fix, undone=True)


def _misplaced(template: Template, status: int) -> VaultFault:
    if status in {_BAD_REQUEST, _NOT_FOUND}:
        fix = f"{template.mount}/ must be a kv engine of version 2: correct `mount` of [connections.{template.role}]"
        return VaultFault(VaultCause.NO_ROLE, "the vault keeps no connections there", fix=fix, undone=True)
    fix = f"the vault answered {status}; its log says why"
    return VaultFault(VaultCause.FAILED, "the vault could not do it", fix=fix)
