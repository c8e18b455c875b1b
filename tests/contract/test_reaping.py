"""What a cut-off minting left is dropped at once: real OpenBao and PostgreSQL, whose commits are held up."""

from collections.abc import Iterator

import pytest

from deploy.servers import warden
from deploy.servers.erp import READ as ROLE
from deploy.servers.erp import WRITE as OTHER
from deploy.servers.erp import Erp, erp
from deploy.servers.warden import Warden
from gateway.adapters.vault import VaultClient
from gateway.core.leasing import MintingToken, VaultCause, VaultFault, reaping
from tests.contract.test_lost_logins import ask, commits_held
from tests.contract.test_vault import client
from tests.fakes.leases import READ, WRITE
from tests.waiting import until

_WARDEN = "the-wardens-own-secret"
_HELD = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
_NAME = "00112233445566778899"
_NEXT = "ffeeddccbbaa99887766"


@pytest.fixture(scope="module")
def servers() -> Iterator[Erp]:
    """Servers of their own: nothing ends by its age here, and commits are held up."""
    with erp(60, warden.requests(_WARDEN)) as both:
        yield both


async def reaped(vault: VaultClient, token: MintingToken) -> None:
    """As the gateway does it: the token ends first."""
    await vault.revoke_token(token.accessor)
    again = await vault.open_token(READ, token.name)
    try:
        await vault.reap(READ, again)
    finally:
        await vault.revoke_token(again.accessor)


@pytest.mark.requirement("CRED-2")
async def test_what_a_minting_that_was_broken_off_left_is_dropped_at_once(servers: Erp) -> None:
    """The connection closes while the database commits; the vault has no lease of the role, and yet it is gone."""
    seen = Warden(servers.openbao, _WARDEN)
    async with client(servers) as vault:
        token = await vault.open_token(READ, _NAME)
        with commits_held(servers.postgres):
            asking = ask(servers, token.secret)
            await until(lambda: servers.postgres.run(_HELD)[0][0][0] == 1)
            asking.close()  # as where a gateway is killed
            await until(lambda: len(servers.minted()) == 1)
        (lost,) = servers.minted()
        assert lost.startswith(f"v-{_NAME}-erp-read-")
        assert seen.leases(ROLE) == []
        await reaped(vault, token)
        assert servers.minted() == []
    await until(lambda: seen.leases(ROLE, OTHER, reaping(ROLE)) == [])
