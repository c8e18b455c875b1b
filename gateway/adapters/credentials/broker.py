"""The ``Broker`` port: the one maker of ``Lease``. The tool's credential decides: header fields, or a minted login."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from gateway.adapters.credentials.leases import Leases
from gateway.adapters.credentials.static import StaticCredentials
from gateway.core.call import Intent, Lease
from gateway.core.leasing import holder_of
from gateway.core.tool import EffectClass


class CredentialBroker:
    """Credentials for one call each.

    Failure mode, closed: a credential that is unknown, cannot be read, minted, journalled or kept out of outputs is
    ``Unavailable``, before anything is sent. A revocation that fails never loses the answer.
    """

    def __init__(self, static: StaticCredentials, leases: Leases | None = None) -> None:
        """``leases``: None where no lease template is configured."""
        self._static = static
        self._leases = leases

    def lease(self, intent: Intent) -> AbstractAsyncContextManager[Lease]:
        """The credential the tool names; see ``core.ports.Broker``.

        Raises:
            Unavailable: at once or on entry; ``cause_code`` is ``credential``, or one of ``core.leasing.VaultCause``.
        """
        name = intent.tool.credential
        if name is None or self._leases is None or name not in self._leases:
            return nullcontext(Lease(intent, self._static.headers(name)))  # nothing is to be ended
        return _minted(intent, name, self._leases)

    async def ping(self) -> None:
        """All static credentials can be read. The vault is the business of the upstreams that need it.

        Raises:
            Unavailable: naming the first that cannot.
        """
        self._static.check()


@asynccontextmanager
async def _minted(intent: Intent, name: str, leases: Leases) -> AsyncIterator[Lease]:
    # Only a read may get a login that another call of its run has had.
    reads = intent.tool.effect is EffectClass.READ
    async with leases.login(name, holder_of(intent), intent.timeout_s, reads=reads) as login:
        got = leases.injected(name, login)
        yield Lease(intent, got.headers, got.login, is_passing=True, handout=got.handout)
