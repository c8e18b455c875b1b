"""What was minted and ended, as records of the same log: implements ``core.leasing.LeaseJournal``.

The leaf holds keyed marks of lease ids and accessors; the ids themselves are sealed beside it, for the one who has to
end them. No secret is in either.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.handing import Durable
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.reading import LogReader
from gateway.core.canonical import encode
from gateway.core.leasing import Holder, Leftover, MintedLogin, MintingToken, Provider, Template, correlation_of
from gateway.core.ports import Clock
from gateway.core.records import SYSTEM, Draft, EventType, Payload, Role, identifier

_LOG = logging.getLogger("gateway.ledger")


class SignedLeaseJournal:
    """The journal of one gateway process on its ledger."""

    def __init__(self, ledger: Ledger, reader: LogReader, keys: LogKeys, clock: Clock) -> None:
        self._ledger = ledger
        self._reader = reader
        self._keys = keys
        self._scribe = Scribe(clock, keys)
        # Marks that are this process's business, or were swept by it: no leftovers.
        self._own: set[str] = set()

    async def opened(self, holder: Holder, template: Template, token: MintingToken) -> None:
        """A minting token exists; see ``core.leasing.LeaseJournal``."""
        mark = self._mark("accessor", token.accessor)
        body = {
            "kind": "token",
            "mark": mark,
            "provider": str(template.provider),
            "request": identifier(token.request_id),
            "role": identifier(template.token_role),
            "template": identifier(template.name),
            "ttl_s": token.period_s,
        }
        if self._ledger.replica:
            body["replica"] = self._ledger.replica
        self._own.add(mark)
        await self._ledger.append(
            [self._draft(EventType.CREDENTIAL_LEASED, holder, body, {"accessor": token.accessor, "name": token.name})]
        )

    def leased(self, holder: Holder, template: Template, token: MintingToken, minted: MintedLogin) -> None:
        """A login was minted; see ``core.leasing.LeaseJournal``."""
        self._submit(self._lease(holder, minted, self._lease_body(template, token, minted)))

    def reused(self, holder: Holder, template: Template, token: MintingToken, minted: MintedLogin) -> None:
        """A login serves another call; see ``core.leasing.LeaseJournal``."""
        body = self._lease_body(template, token, minted) | {"reused": True}
        self._submit(self._lease(holder, minted, body))

    def _lease_body(self, template: Template, token: MintingToken, minted: MintedLogin) -> dict[str, Any]:
        body: dict[str, Any] = {
            "kind": _kind(template, minted),
            "mark": self._mark("lease", minted.lease_id),
            "provider": str(template.provider),
            "request": identifier(minted.request_id),
            "role": identifier(template.role),
            "template": identifier(template.name),
            "token": self._mark("accessor", token.accessor),
            "ttl_s": minted.ttl_s,
        }
        if template.provider is Provider.OAUTH_USER:
            body["scopes"] = [identifier(scope) for scope in minted.scopes]
        if minted.serial is not None:
            body["serial"] = identifier(minted.serial)
        return body

    def _lease(self, holder: Holder, minted: MintedLogin, body: Mapping[str, Any]) -> Draft:
        said = {"lease_id": minted.lease_id}
        if minted.login.user:
            said["user"] = minted.login.user
        return self._draft(EventType.CREDENTIAL_LEASED, holder, body, said)

    def pending(self, holder: Holder, template: Template, minted: MintedLogin, cause: str) -> None:
        """A login could not be ended with its call; see ``core.leasing.LeaseJournal``."""
        body = self._login_ending(template, minted, cause)
        said = {"lease_id": minted.lease_id}
        self._submit(self._draft(EventType.CREDENTIAL_REVOKE_PENDING, holder, body, said))

    def revoked(self, holder: Holder, template: Template, minted: MintedLogin, cause: str) -> None:
        """A login is gone; see ``core.leasing.LeaseJournal``."""
        body = self._login_ending(template, minted, cause)
        self._submit(self._draft(EventType.CREDENTIAL_REVOKED, holder, body))

    def closed(self, holder: Holder, template: str, accessor: str, cause: str, *, reaped: bool = False) -> None:
        """A minting token is gone; see ``core.leasing.LeaseJournal``."""
        body = self._token_ending(template, accessor, cause) | _reaped(reaped)
        self._submit(self._draft(EventType.CREDENTIAL_REVOKED, holder, body))

    def doubted(self, holder: Holder, template: str, accessor: str, name: str, cause: str) -> None:
        """A database role of a minting token may be left; see ``core.leasing.LeaseJournal``."""
        body = self._token_ending(template, accessor, cause)
        if self._ledger.replica:
            body["replica"] = self._ledger.replica
        said = {"accessor": accessor, "name": name}
        self._submit(self._draft(EventType.CREDENTIAL_REVOKE_PENDING, holder, body, said))

    async def leftovers(self, since_us: int) -> Sequence[Leftover]:
        """Minting tokens of earlier processes that were never closed; see ``core.leasing.LeaseJournal``."""
        found = await self._reader.open_tokens(since_us)
        return [leftover for leftover in found if leftover.mark not in self._own]

    def swept(self, leftover: Leftover, *, reaped: bool = False) -> None:
        """A leftover is gone; see ``core.leasing.LeaseJournal``."""
        self._own.add(leftover.mark)
        body = self._ending("token", leftover.template, leftover.mark, "swept") | _reaped(reaped)
        if leftover.accessor is not None:
            body["correlation"] = correlation_of(leftover.accessor)
        self._submit(self._draft(EventType.CREDENTIAL_REVOKED, Holder(leftover.run_id), body))

    def _login_ending(self, template: Template, minted: MintedLogin, cause: str) -> dict[str, Any]:
        body = self._ending(_kind(template, minted), template.name, self._mark("lease", minted.lease_id), cause)
        return body | {"correlation": correlation_of(minted.accessor or minted.lease_id)}

    def _token_ending(self, template: str, accessor: str, cause: str) -> dict[str, Any]:
        body = self._ending("token", template, self._mark("accessor", accessor), cause)
        return body | {"correlation": correlation_of(accessor)}

    def _ending(self, kind: str, template: str, mark: str, cause: str) -> dict[str, Any]:
        return {"cause": identifier(cause), "kind": kind, "mark": mark, "template": identifier(template)}

    def _draft(
        self, kind: EventType, holder: Holder, body: Mapping[str, Any], said: Mapping[str, str] | None = None
    ) -> Draft:
        payloads = () if said is None else (Payload(Role.LEASE, encode(dict(said))),)
        return self._scribe.draft(kind, Subject(SYSTEM, holder.run_id, holder.call_id), body, *payloads)

    def _submit(self, draft: Draft) -> None:
        # In order with all other records, so it is durable before the ending of its call is; nobody waits for it.
        def settle(durable: Durable) -> None:
            if durable.exception() is not None:
                _LOG.warning("a credential's record could not be written yet: %s", draft.type)
                self._ledger.owe([draft])

        self._ledger.submit([draft]).add_done_callback(settle)

    def _mark(self, kind: str, value: str) -> str:
        return self._keys.mark(kind, value)


def _reaped(reaped: bool) -> dict[str, Any]:
    return {"reaped": True} if reaped else {}


def _kind(template: Template, minted: MintedLogin) -> str:
    # That the reading of a static secret is over says nothing about the secret, which nobody revoked; nor does the end
    # of what issued a certificate that cannot be revoked.
    if template.provider is Provider.KV:
        return "read"
    if template.provider is Provider.OAUTH_USER:
        return "access" if minted.accessor is None else "unrevocable"
    if template.provider is Provider.PKI:
        return "certificate" if minted.accessor is None else "unrevocable"
    return "login"
