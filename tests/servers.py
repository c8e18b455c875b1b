"""The real PostgreSQL and OpenBao that tests share: started once a session, when the first test asks for them."""

from collections.abc import Iterator

import pytest

from deploy.servers.erp import Erp, erp
from deploy.servers.openbao import Request

# What a killed gateway leaves is gone after so long; short, so that a test can wait for it.
PERIOD_S = 4
_SEALER = '{"path": {"sys/seal": {"capabilities": ["sudo", "update"]}}}'


@pytest.fixture(scope="session")
def real_erp() -> Iterator[Erp]:
    """One pair of servers for all tests that leave them as they are."""
    with erp(PERIOD_S) as both:
        yield both


def sealer(secret: str) -> list[Request]:
    """Lets the AppRole ``sealer`` seal the vault."""
    role = {"token_policies": ["sealer"], "token_no_default_policy": True}
    return [
        Request("sealer-policy", "sys/policies/acl/sealer", {"policy": _SEALER}),
        Request("sealer", "auth/approle/role/sealer", role),
        Request("sealer-id", "auth/approle/role/sealer/role-id", {"role_id": "sealer"}),
        Request("sealer-key", "auth/approle/role/sealer/custom-secret-id", {"secret_id": secret}),
    ]
