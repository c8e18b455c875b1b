"""Implements ``core.leasing.Vault`` on OpenBao or HashiCorp Vault.

hvac blocks, so it works in threads of its own, no more of them than connections. A vault that does not answer is left
alone for a while (``core/breaker.py``). A request that was sent is never abandoned by its caller: its end is known.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from anyio import CancelScope, fail_after

from gateway.adapters.vault import database, kv, opening, pki
from gateway.adapters.vault.wire import Address, Ask, Reply, Wire
from gateway.core.breaker import Breaker
from gateway.core.call import Login
from gateway.core.errors import Unavailable
from gateway.core.known import KnownValues
from gateway.core.leasing import MintedLogin, MintingToken, Provider, Template, VaultCause, VaultFault, correlation_of
from gateway.core.needles import UnfitSecret
from gateway.core.ports import Clock

__all__ = ["Access", "Address", "VaultClient"]

_BAD_REQUEST = 400
_FORBIDDEN = 403
_TOO_MANY = 429
_NOT_FOUND = 404
_LAST_REFUSAL = 499
_LAST_OK = 299
_UPDATE = ("update",)
_MARGIN_S = 5
# Vaults lock a role for 15 minutes after five refused logins in as many minutes, also for those who then do it right.
_REFUSED_S = 900
_SILENT = frozenset({VaultCause.UNREACHABLE, VaultCause.SLOW, VaultCause.SEALED})
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Access:
    """How the gateway says who it is: by AppRole, or by a token.

    Attributes:
        secret: reads the secret id at each login, or the token, where there is no role id, at each request: either may
            be rotated.
        role_id: of the AppRole; None = ``secret`` is a token.
        mount: where AppRole is mounted.
    """

    secret: Callable[[], str] = field(repr=False)
    role_id: str | None = None
    mount: str = "approle"


class VaultClient:
    """One vault; an async context manager.

    Failure mode, closed: whatever is no clear yes raises ``VaultFault``.
    """

    def __init__(self, address: Address, access: Access, known: KnownValues, clock: Clock) -> None:
        self._address = address
        self._access = access
        self._known = known
        self._clock = clock
        self._wire = Wire(address)
        self._threads = ThreadPoolExecutor(address.connections, "vault")
        self._places = asyncio.Semaphore(address.connections)
        self._breaker = Breaker()
        self._silence: VaultFault | None = None
        self._login = asyncio.Lock()
        self._secret: str | None = None
        self._token: str | None = None
        self._token_until = 0.0
        self._refused: tuple[str, float] = ("", 0.0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with CancelScope(shield=True):
            if self._token is not None and self._access.role_id is not None:
                await self._forget_token()
        self._threads.shutdown(wait=False)
        self._wire.close()

    async def open_token(self, template: Template, name: str = "") -> MintingToken:
        """A new minting token; see ``core.leasing.Vault``."""
        ask = Ask(f"auth/token/create/{template.token_role}", opening.creation(template, name), ("create", "update"))
        try:
            reply = await self._as_gateway(ask)
        except VaultFault as fault:
            raise opening.no_token_role(template, fault) if fault.cause_code == VaultCause.NO_ROLE else fault from None
        auth = reply.auth
        if auth is None:
            raise opening.unfit(template, "the vault gave no token")
        problem = opening.misfit(auth, template)
        if problem is not None:
            await self._as_gateway(Ask("auth/token/revoke-accessor", {"accessor": auth.accessor}, _UPDATE))
            raise opening.unfit(template, problem)
        return MintingToken(auth.accessor, auth.client_token, auth.lease_duration, reply.request_id, name)

    async def renew_token(self, accessor: str) -> int:
        """Renew a minting token; see ``core.leasing.Vault``."""
        reply = await self._as_gateway(Ask("auth/token/renew-accessor", {"accessor": accessor}, _UPDATE))
        return 0 if reply.auth is None else reply.auth.lease_duration

    async def revoke_token(self, accessor: str) -> None:
        """End a minting token and its logins; see ``core.leasing.Vault``."""
        ask = Ask("auth/token/revoke-accessor", {"accessor": accessor}, _UPDATE, correlation=correlation_of(accessor))
        await self._as_gateway(ask, fine=(_BAD_REQUEST, _NOT_FOUND))

    async def mint(self, template: Template, token: MintingToken) -> MintedLogin:
        """A new login or a value; see ``core.leasing.Vault``."""
        if template.provider is Provider.KV:
            return await self._value(template, token)
        if template.provider is Provider.PKI:
            return await self._certificate(template, token)
        ask = database.question(template)
        status, reply = await self._guarded(lambda: self._wire.ask(ask, token.secret))
        if status > _LAST_OK:
            raise database.refusal(template, status, reply) or _refused(ask, status)
        user, password = (reply.data or {}).get("username"), (reply.data or {}).get("password")
        if not reply.lease_id or not isinstance(user, str) or not isinstance(password, str):
            if reply.lease_id:  # a key or certificate, and it works: nobody else knows of it
                await self.revoke_login(reply.lease_id, wait=True)
            raise database.no_login(template)
        return MintedLogin(reply.lease_id, Login(user, password), reply.lease_duration, reply.request_id)

    async def reap(self, template: Template, token: MintingToken) -> None:
        """Drop what a token of the same name has left; see ``core.leasing.Vault``."""
        ask = database.reaping(template)
        status, reply = await self._guarded(lambda: self._wire.ask(ask, token.secret))
        if status > _LAST_OK:
            raise database.no_reaping(template, status, reply) or _refused(ask, status)

    async def _value(self, template: Template, token: MintingToken) -> MintedLogin:
        ask = kv.question(template)
        status, reply = await self._guarded(lambda: self._wire.ask(ask, token.secret))
        if status == _FORBIDDEN:
            raise kv.denied(template)
        if status > _LAST_OK and status != _NOT_FOUND:
            raise _refused(ask, status)
        return kv.value(template, token, status, reply)

    async def _certificate(self, template: Template, token: MintingToken) -> MintedLogin:
        ask = pki.question(template)
        status, reply = await self._guarded(lambda: self._wire.ask(ask, token.secret))
        if status > _LAST_OK:
            raise pki.refusal(template, status, reply) or _refused(ask, status)
        minted = pki.certificate(template, token, reply, self._clock.now_us() // 1_000_000)
        if minted is None:
            if reply.lease_id:
                await self.revoke_login(reply.lease_id, wait=True)
            fix = f"bao read {template.mount}/roles/{template.role} must show a role of a pki engine"
            raise VaultFault(VaultCause.NO_ROLE, f"the vault issues no certificate for {template.name!r}", fix=fix)
        return minted

    async def revoke_login(self, lease_id: str, *, wait: bool) -> None:
        """End a login; see ``core.leasing.Vault``."""
        body = {"lease_id": lease_id, "sync": wait}
        try:
            await self._as_gateway(Ask("sys/leases/revoke", body, _UPDATE, correlation=correlation_of(lease_id)))
        except VaultFault as fault:
            if fault.cause_code != VaultCause.NO_ROLE:
                raise
            # A lease that is not there is fine to a vault: what it calls a bad request is its engine failing to end it.
            fix = "the vault's log says why it could not end the login (is the database behind it up?)"
            raise VaultFault(VaultCause.FAILED, "the vault could not do it", fix=fix) from None

    async def login_exists(self, lease_id: str) -> bool:
        """Whether the lease is there; see ``core.leasing.Vault``."""
        ask = Ask("sys/leases/lookup", {"lease_id": lease_id}, _UPDATE)
        return bool((await self._as_gateway(ask, fine=(_BAD_REQUEST, _NOT_FOUND))).data)

    async def update(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """What the vault answers to ``body`` at ``path``.

        Raises:
            VaultFault: it does not, or refuses.
        """
        return (await self._as_gateway(Ask(path, dict(body), _UPDATE))).data or {}

    async def request(self, ask: Ask) -> Reply:
        """What the vault answers the gateway.

        Raises:
            VaultFault: it does not, or refuses.
        """
        return await self._as_gateway(ask)

    async def request_with(self, ask: Ask, token: str) -> Reply:
        """The same with another token, such as a wrapping."""
        return await self._answered(ask, token, ())

    async def request_alone(self, ask: Ask) -> Reply:
        """The same while nothing else is under way: what was asked before ends first, what comes meanwhile waits.

        A database's connection that is replaced under a minting makes that fail.
        """
        await self._as_gateway(Ask("sys/capabilities-self", {"paths": [ask.path]}, _UPDATE))  # the token is good
        token, taken = await self._own_token(), 0
        try:
            with fail_after(self._address.timeout_s):
                while taken < self._address.connections:
                    await self._places.acquire()
                    taken += 1
            question = partial(self._wire.ask, ask, token)
            status, reply = await asyncio.get_running_loop().run_in_executor(self._threads, question)
        except TimeoutError:
            raise self._busy() from None
        finally:
            for _ in range(taken):
                self._places.release()
        if status > _LAST_OK:
            raise _refused(ask, status)
        return reply

    async def prove_secret(self, secret: str) -> None:
        """Log in with a secret id that is not in use yet, and out again; nothing of it is shown from now on.

        Raises:
            VaultFault: that cannot be done.
        """
        self._learn(secret, instead_of=None)
        ask = Ask(f"auth/{self._access.mount}/login", {"role_id": self._access.role_id, "secret_id": secret}, _UPDATE)
        reply = await self._answered(ask, None, ())
        if reply.auth is None:
            raise _refused(ask, _BAD_REQUEST)
        await self._answered(Ask("auth/token/revoke-self", {}, _UPDATE), reply.auth.client_token, ())

    async def change_secret(self, put: Callable[[], None]) -> None:
        """Let ``put`` replace what the secret id is read from, and log in with that; nobody logs in meanwhile.

        Raises:
            VaultFault: the vault does not let the gateway in now.
        """
        async with self._login:
            await asyncio.to_thread(put)
            token, lasts_s = await self._logged_in()
            self._learn(token, instead_of=self._token)
            self._token, self._token_until = token, self._clock.monotonic() + lasts_s

    async def asked(self, ask: Ask, secret: str) -> tuple[int, Reply]:
        """Status and answer to a request with the token ``secret``.

        Raises:
            VaultFault: there is no answer, or the vault is sealed.
        """
        return await self._guarded(lambda: self._wire.ask(ask, secret))

    async def ping(self) -> None:
        """The vault is well and lets the gateway in; see ``core.leasing.Vault``."""
        await self._guarded(self._wire.health)
        await self._own_token()

    async def _as_gateway(self, ask: Ask, fine: tuple[int, ...] = ()) -> Reply:
        # An expired token and a policy that says no look alike: log in anew once, then it is the policy.
        token = await self._own_token()
        try:
            return await self._answered(ask, token, fine)
        except VaultFault as fault:
            if fault.cause_code != VaultCause.DENIED or self._access.role_id is None:
                raise
        self._token_until = 0.0 if self._token == token else self._token_until
        return await self._answered(ask, await self._own_token(), fine)

    async def _answered(self, ask: Ask, token: str | None, fine: tuple[int, ...]) -> Reply:
        status, reply = await self._guarded(lambda: self._wire.ask(ask, token))
        if status <= _LAST_OK or status in fine:
            return reply
        raise _refused(ask, status)

    async def _own_token(self) -> str:
        async with self._login:
            if self._token is not None and self._clock.monotonic() < self._token_until:
                return self._token
            token, lasts_s = await self._logged_in()
            self._learn(token, instead_of=self._token)
            self._token, self._token_until = token, self._clock.monotonic() + lasts_s
            return token

    async def _logged_in(self) -> tuple[str, float]:
        try:
            secret = self._access.secret()
        except Unavailable as error:
            fix = "set [vault] secret_id or token to an environment variable or a file that can be read"
            raise VaultFault(VaultCause.DENIED, error.detail, fix=fix) from None
        self._learn(secret, instead_of=self._secret)
        self._secret = secret
        if self._access.role_id is None:
            return secret, 0.0
        if secret == self._refused[0] and self._clock.monotonic() < self._refused[1]:
            raise self._locked_out()
        ask = Ask(f"auth/{self._access.mount}/login", {"role_id": self._access.role_id, "secret_id": secret}, _UPDATE)
        status, reply = await self._guarded(lambda: self._wire.ask(ask, None))
        if _BAD_REQUEST <= status <= _LAST_REFUSAL and status != _TOO_MANY:
            self._refused = (secret, self._clock.monotonic() + _REFUSED_S)
            raise self._locked_out()
        if status > _LAST_OK or reply.auth is None:
            raise _refused(ask, status)
        return reply.auth.client_token, max(1, reply.auth.lease_duration - _MARGIN_S)

    def _locked_out(self) -> VaultFault:
        fix = (
            f"check role_id and secret_id of [vault]: the login at auth/{self._access.mount} was refused; "
            "a new secret id is tried at once, the same one after 15 minutes or a restart"
        )
        return VaultFault(VaultCause.DENIED, "the vault does not let the gateway in", fix=fix, undone=True)

    def _learn(self, secret: str, *, instead_of: str | None) -> None:
        try:
            self._known.lend(secret)
        except UnfitSecret as error:
            fix = "use a longer one"
            raise VaultFault(VaultCause.UNFIT, f"the vault's secret cannot be kept secret: {error}", fix=fix) from None
        if instead_of is not None and instead_of != secret:
            self._known.retire(instead_of)

    async def _guarded(self, question: Callable[[], T]) -> T:
        if self._breaker.wait(self._clock.monotonic()) > 0:
            raise self._still()
        try:
            answer = await self._in_thread(question)
        except VaultFault as fault:
            if fault.cause_code in _SILENT:
                self._silence = fault
                self._breaker.failed(self._clock.monotonic())
            else:
                self._breaker.gave_up()
            raise
        except BaseException:
            self._breaker.gave_up()
            raise
        self._breaker.succeeded()
        return answer

    def _still(self) -> VaultFault:
        # Not asked: as it was a moment ago, and for the same reason.
        was = self._silence
        assert was is not None  # nothing else opens the breaker
        return VaultFault(VaultCause(was.cause_code), f"{was.detail} (a moment ago)", fix=was.fix, undone=True)

    async def _in_thread(self, question: Callable[[], T]) -> T:
        try:
            with fail_after(self._address.timeout_s):
                await self._places.acquire()
        except TimeoutError:
            raise self._busy() from None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, question)
        finally:
            self._places.release()

    @staticmethod
    def _busy() -> VaultFault:
        fix = "raise [vault] connections"
        return VaultFault(VaultCause.BUSY, "the vault is asked too much at a time", fix=fix, undone=True)

    async def _forget_token(self) -> None:
        token, self._token = self._token, None
        ask = Ask("auth/token/revoke-self", {}, _UPDATE)
        try:
            await self._in_thread(lambda: self._wire.ask(ask, token))
        except VaultFault:
            return  # it ends by itself


def _refused(ask: Ask, status: int) -> VaultFault:
    # A refusal did nothing. After anything else something may exist: a server error can come after the minting.
    undone = status <= _LAST_REFUSAL
    if status == _FORBIDDEN:
        return VaultFault(
            VaultCause.DENIED, "the vault refuses the gateway", fix=f"allow it: {ask.policy_line}", undone=undone
        )
    if status in {_BAD_REQUEST, _NOT_FOUND}:
        fix = f"the vault has no such path or role: {ask.path}"
        return VaultFault(VaultCause.NO_ROLE, "the vault does not know what it is asked for", fix=fix, undone=undone)
    if status == _TOO_MANY:
        fix = f"raise the rate limit quota of the vault that covers {ask.path}: bao list sys/quotas/rate-limit"
        return VaultFault(VaultCause.BUSY, "the vault is asked too much at a time", fix=fix, undone=True)
    fix = f"the vault answered {status} to {ask.path}; its log says why (is the database behind it up?)"
    return VaultFault(VaultCause.FAILED, "the vault could not do it", fix=fix, undone=undone)
