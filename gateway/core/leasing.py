"""Minted credentials: what a vault, a journal and the broker say to each other.

The order for one call, each step needing the one before: the intent is durable; a minting token of this run and
template exists and its accessor is durable; the login is minted; its lease id is handed to the journal and its password
is known to the redactor; only then does it leave the minting function. Whatever is revoked hangs off an accessor that
the journal holds, so a gateway that dies at any point can end it all at its next start, and the vault ends it after the
token's period even if there is no next start.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Protocol, assert_never

from msgspec import Struct

from gateway.core.call import Intent, Login
from gateway.core.errors import Unavailable

# Bytes: it must fit into a database role's name besides the vault role's, and never come twice.
_NAME = 10
_NAMED = re.compile(rf"v-[0-9a-f]{{{2 * _NAME}}}-")


class VaultCause(StrEnum):
    """Why there is no minted credential: the ``cause_code`` of the ``Unavailable`` that says so."""

    UNREACHABLE = "vault_unreachable"
    SLOW = "vault_slow"
    SEALED = "vault_sealed"
    DENIED = "vault_denied"
    NO_ROLE = "vault_no_role"
    FAILED = "vault_failed"
    UNFIT = "vault_unfit"
    BUSY = "vault_busy"
    LEFTOVERS = "vault_leftovers"


class VaultFault(Unavailable):
    """The vault cannot be used for this.

    Attributes:
        fix: what the operator does about it; may name paths and roles of the vault, so callers do not see it.
        undone: whether it is certain that the vault did nothing; where it is not, something may have been minted.
    """

    def __init__(self, cause: VaultCause, detail: str, *, fix: str, undone: bool = False) -> None:
        """``detail`` is safe to show to callers."""
        super().__init__(detail, retry_after=1, cause_code=cause)
        self.fix = fix
        self.undone = undone


class Provider(StrEnum):
    """What a template's credentials are."""

    DATABASE = "database"
    KV = "kv"
    OAUTH_USER = "oauth_user"
    PKI = "pki"


@dataclass(frozen=True, slots=True)
class Template:
    """One kind of minted credential; nobody can use a template for more than its own role.

    Attributes:
        name: as tools and upstreams name it.
        mount: where the vault has its engine.
        role: role that logins or certificates are minted by; of kv: path of the secret; of oauth_user: the connection.
        token_role: token role that minting tokens are made by.
        longest_s: a login or token that would outlive the gateway by more is refused.
        policy: the one policy of its minting tokens; None = it is named like the token role.
        header: header field that an HTTP upstream gets the login in, as ``user:password``, or the value read from kv;
            None = it gets none.
        provider: the kind of engine. A secret of kv is static: one call's reading of it ends, the secret goes on.
        member: of kv: which member of the secret.
        prefix: of kv: what stands before the value in the header field.
        common_name: of pki: the name certificates are issued for.
        must_revoke: of pki and oauth_user: what nothing could revoke after its call is not used.
        is_shared: a login may serve several reads of one tool in one run, one after the other.
        scopes: of oauth_user: what its access tokens are asked for, and no more.
        variable: environment variable in which the process of a call finds the credential; None = it finds none.
        in_file: the variable holds the path of a file with the credential.
        form: what it finds, ``{user}`` and ``{password}`` replaced.
    """

    name: str
    mount: str
    role: str
    token_role: str
    longest_s: int
    policy: str | None = None
    header: str | None = None
    provider: Provider = Provider.DATABASE
    member: str | None = None
    prefix: str = ""
    common_name: str | None = None
    must_revoke: bool = True
    is_shared: bool = False
    scopes: tuple[str, ...] = ()
    variable: str | None = None
    in_file: bool = False
    form: str = "{password}"

    @property
    def is_single(self) -> bool:
        """Whether each call needs a token of its own, as there is no lease that could be ended apart from it."""
        return self.provider is Provider.KV or not self.must_revoke

    @property
    def lease_prefix(self) -> str | None:
        """How the ids of its leases begin, without the last slash; None where the vault keeps no leases of it.

        Certificates that need not be revoked have leases all the same where their role says so.
        """
        match self.provider:
            case Provider.DATABASE:
                return f"{self.mount}/creds/{self.role}"
            case Provider.PKI:
                return f"{self.mount}/issue/{self.role}"
            case Provider.KV | Provider.OAUTH_USER:
                return None
        assert_never(self.provider)

    @property
    def reaper(self) -> str | None:
        """The role that drops what a lost minting left, by the name of its token; None where nothing can be lost."""
        return reaping(self.role) if self.provider is Provider.DATABASE else None

    @property
    def token_policy(self) -> str:
        """The policy its minting tokens have, and no other."""
        return self.policy or self.token_role


@dataclass(frozen=True, slots=True)
class MintingToken:
    """What logins of one template are minted with.

    Attributes:
        accessor: ends the token and all its logins; no secret.
        secret: the token itself.
        period_s: it ends by itself when it is not renewed for so long.
        request_id: the vault's own id of the request, as in the vault's audit log.
        name: what the gateway called it, which the database's roles that it mints begin with; no secret; may be none.
    """

    accessor: str
    secret: str = field(repr=False)
    period_s: int
    request_id: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class MintedLogin:
    """A database user, certificate or access token that exists because one call needs it, or a value read for one call.

    Attributes:
        lease_id: ends it; no secret. Where there is no lease it is a name only.
        login: user and password; of a value and of an access token the user is empty.
        ttl_s: it ends by itself after so long; of a value: the token it was read with.
        request_id: the vault's own id of the request.
        accessor: where the vault keeps no lease: the token it alone was minted with; None = there is a lease.
        serial: of a certificate, as the vault writes it.
        scopes: of a person's access token: what its issuer says that it may do.
    """

    lease_id: str
    login: Login
    ttl_s: int
    request_id: str
    accessor: str | None = None
    serial: str | None = None
    scopes: tuple[str, ...] = ()


class Vault(Protocol):
    """OpenBao or HashiCorp Vault. Closed: everything that is no clear yes raises ``VaultFault``."""

    async def open_token(self, template: Template, name: str = "") -> MintingToken:
        """A new orphan periodic token that can mint logins of this template and nothing else.

        ``name``: as ``name_of`` makes it; none = nothing it mints can be told by it.
        """

    async def renew_token(self, accessor: str) -> int:
        """Seconds until the token ends by itself, counted anew; less than its period near its end."""

    async def revoke_token(self, accessor: str) -> None:
        """End a token, and the vault its logins with it, at once but by itself; one that has ended already is fine."""

    async def mint(self, template: Template, token: MintingToken) -> MintedLogin:
        """A new login, or the value as it is now."""

    async def reap(self, template: Template, token: MintingToken) -> None:
        """No database role of this template is left, or will come, that a token of the same name was asked for.

        Never to be asked for a token that lives. ``NO_ROLE`` or ``DENIED``: the vault is not set up for it.
        """

    async def revoke_login(self, lease_id: str, *, wait: bool) -> None:
        """End a login. ``wait``: return when its user is gone; otherwise the vault goes on by itself."""

    async def login_exists(self, lease_id: str) -> bool:
        """Whether the vault still has the lease."""

    async def ping(self) -> None:
        """The vault answers, is unsealed and knows the gateway."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A minting token that the journal has opened and not closed.

    Attributes:
        accessor: None where the sealed payload cannot be opened any more.
        name: what it was called; None as well where its process gave it none.
    """

    run_id: str | None
    mark: str
    accessor: str | None
    template: str
    name: str | None = None


class Holder(Struct, frozen=True):
    """For whom something was minted: a call of a run, or the gateway itself (both None)."""

    run_id: str | None = None
    call_id: str | None = None
    agent: str | None = None
    user: str | None = None
    tool: str | None = None
    issuer: str | None = None
    delegation: tuple[str, ...] = ()


class LeaseJournal(Protocol):
    """What was minted and what was ended, in the signed log. Closed: what cannot be journalled is not minted."""

    async def opened(self, holder: Holder, template: Template, token: MintingToken) -> None:
        """A minting token exists; returns when that is durable.

        Raises:
            Unavailable: the log cannot be written.
        """

    def leased(self, holder: Holder, template: Template, token: MintingToken, minted: MintedLogin) -> None:
        """A login was minted; handed to the log, which keeps the order: it is durable before the call's ending is."""

    def reused(self, holder: Holder, template: Template, token: MintingToken, minted: MintedLogin) -> None:
        """A login minted for another call of the same run serves this one, too; handed to the log in the same way."""

    def pending(self, holder: Holder, template: Template, minted: MintedLogin, cause: str) -> None:
        """A login could not be ended with its call; it will be."""

    def revoked(self, holder: Holder, template: Template, minted: MintedLogin, cause: str) -> None:
        """A login is gone, by the vault's word."""

    def closed(self, holder: Holder, template: str, accessor: str, cause: str, *, reaped: bool = False) -> None:
        """A minting token is gone, by the vault's word; the vault ends its logins.

        ``reaped``: and nothing else of it is left in the database.
        """

    def doubted(self, holder: Holder, template: str, accessor: str, name: str, cause: str) -> None:
        """A minting token, called ``name``, is gone, but a database role of it may be left.

        ``closed`` or ``swept`` follows; until then this is said again, so that ``leftovers`` of a day find it.
        """

    async def leftovers(self, since_us: int) -> Sequence[Leftover]:
        """Minting tokens opened, or said to be in doubt, since then and never closed.

        Raises:
            Unavailable: the log cannot be read.
        """

    def swept(self, leftover: Leftover, *, reaped: bool = False) -> None:
        """A leftover is gone; the vault ends its logins. ``reaped``: as of ``closed``."""


class Step(StrEnum):
    """Where the vault failed a call, or the gateway after it."""

    MINT = "mint"
    REVOKE = "revoke"
    REAP = "reap"


class LeaseMeter(Protocol):
    """Counts for operators. Cannot fail."""

    def leases(self, live: int, pending: int) -> None:
        """How many logins there are now: used by a call, and waiting to be ended."""

    def lease_fault(self, step: Step, cause: str) -> None:
        """A credential could not be had, not be ended with its call, or what it left not be dropped; ``cause_code``."""


def correlation_of(name: str) -> str:
    """What requests to end ``name``, a lease id or accessor, are marked with: in the vault's audit log and in ours.

    A vault answers such requests without an id of its own. The names hold enough of chance that nobody guesses them.
    """
    return sha256(b"ostiary/ends/" + name.encode()).hexdigest()[:32]


def reaping(role: str) -> str:
    """The database role of the vault that makes nobody, and drops what lost mintings by ``role`` left."""
    return f"{role}-reap"


def name_of(chance: bytes) -> str:
    """The name of a minting token: hexadecimal, of one length, so that it can stand in a statement. ``chance``: 10."""
    return chance[:_NAME].hex()


def is_named(user: str) -> bool:
    """Whether a database role's name begins with the name of the token that asked for it."""
    return _NAMED.match(user) is not None


def crowded() -> VaultFault:
    """No more minted secrets can be kept out of outputs at a time; raised before anything is minted."""
    fix = "wait until calls have ended"
    return VaultFault(VaultCause.BUSY, "there are too many credentials at a time", fix=fix, undone=True)


def holder_of(intent: Intent) -> Holder:
    """Whom a call's credential is minted for."""
    caller = intent.quota.permit.target.caller
    return Holder(
        run_id=caller.run.id,
        call_id=intent.call.id,
        agent=caller.principal.agent,
        user=caller.principal.user,
        tool=intent.tool.fqn,
        issuer=caller.principal.issuer,
        delegation=caller.principal.delegation,
    )
