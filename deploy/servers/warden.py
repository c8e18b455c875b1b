"""A look into a real OpenBao from beside the gateway, and a hand on it: for tests and campaigns, never for production.

What is left of a gateway is told by the vault's own listing of leases and token accessors, not by anything of ours.
"""

import json
import ssl
from dataclasses import dataclass, field
from http import HTTPMethod
from typing import Any, Final

import httpx

from deploy.servers.openbao import OpenBao, Request
from deploy.servers.vault_setup import MOUNT

_NAME: Final = "warden"
_PATIENCE_S: Final = 20.0
_NOT_FOUND: Final = 404
# Nothing here speaks TLS, and loading the system's certificates takes longer than most requests.
_NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_POLICY: Final = {
    "path": {
        "sys/leases/lookup/*": {"capabilities": ["list", "sudo"]},
        "sys/leases/revoke": {"capabilities": ["update"]},
        "auth/token/accessors": {"capabilities": ["list", "sudo"]},
        "auth/token/accessors/": {"capabilities": ["list", "sudo"]},
        "auth/token/lookup-accessor": {"capabilities": ["update"]},
        "auth/token/revoke-accessor": {"capabilities": ["update"]},
        "auth/approle/role/ostiary/secret-id/destroy": {"capabilities": ["update"]},
        "sys/quotas/rate-limit/*": {"capabilities": ["create", "update", "delete", "sudo"]},
        "sys/seal": {"capabilities": ["update", "sudo"]},
    }
}


def requests(secret: str) -> list[Request]:
    """What lets the warden in; ``secret``: the secret id of its AppRole."""
    role = {"token_policies": [_NAME], "token_no_default_policy": True}
    return [
        Request("warden-policy", f"sys/policies/acl/{_NAME}", {"policy": json.dumps(_POLICY)}),
        Request("warden", f"auth/approle/role/{_NAME}", role),
        Request("warden-id", f"auth/approle/role/{_NAME}/role-id", {"role_id": _NAME}),
        Request("warden-key", f"auth/approle/role/{_NAME}/custom-secret-id", {"secret_id": secret}),
    ]


@dataclass(frozen=True, slots=True)
class Token:
    """A live token.

    Attributes:
        policy: its one policy, which says what it is for.
        ttl_s: it ends by itself after so long.
    """

    accessor: str
    policy: str
    ttl_s: int


@dataclass(slots=True)
class Warden:
    """Let in at the first question; blocks.

    Attributes:
        secret: secret id, as in ``requests``.
    """

    bao: OpenBao
    secret: str = field(repr=False)
    _token: str | None = field(default=None, repr=False)

    def leases(self, *roles: str) -> list[str]:
        """Lease ids of these database roles, as the vault lists them."""
        found = []
        for role in roles:
            prefix = f"{MOUNT}/creds/{role}/"
            found += [prefix + key for key in self._keys(f"sys/leases/lookup/{prefix}")]
        return found

    def tokens(self) -> list[Token]:
        """All live tokens but the warden's own."""
        found = [self._looked_up(accessor) for accessor in self._keys("auth/token/accessors/")]
        return [token for token in found if token is not None and token.policy != _NAME]

    def end(self, policy: str) -> int:
        """End the tokens that have this policy, as if they had expired; how many."""
        meant = [token for token in self.tokens() if token.policy == policy]
        for token in meant:
            self._ask("auth/token/revoke-accessor", {"accessor": token.accessor})
        return len(meant)

    def revoke(self, lease_id: str) -> None:
        """End a login, as its ttl does."""
        self._ask("sys/leases/revoke", {"lease_id": lease_id, "sync": True})

    def limit(self, path: str, rate: float) -> None:
        """Let ``path`` be asked so often a second, and by whoever asks more often not at all for a minute."""
        wish = {"path": path, "rate": rate, "interval": "1s", "block_interval": "60s"}
        self._ask("sys/quotas/rate-limit/test", wish)

    def unlimit(self) -> None:
        """Take that back."""
        self._ask("sys/quotas/rate-limit/test", None, HTTPMethod.DELETE)

    def seal(self) -> None:
        """Seal the vault; it cannot be unsealed."""
        self._ask("sys/seal", {})

    def shut_out(self, secret_id: str) -> None:
        """The gateway's AppRole is not let in any more with this secret id."""
        self._ask("auth/approle/role/ostiary/secret-id/destroy", {"secret_id": secret_id})

    def _looked_up(self, accessor: str) -> Token | None:
        said = self._ask("auth/token/lookup-accessor", {"accessor": accessor}, fine=(400, 403, _NOT_FOUND))
        data = said.get("data")
        return None if data is None else Token(accessor, ",".join(data["policies"]), data["ttl"])

    def _keys(self, path: str) -> list[str]:
        said = self._ask(path, None, "LIST", fine=(_NOT_FOUND,))
        return list((said.get("data") or {}).get("keys") or ())

    def _ask(
        self, path: str, body: dict[str, Any] | None, method: str = HTTPMethod.POST, fine: tuple[int, ...] = ()
    ) -> dict[str, Any]:
        transport = httpx.HTTPTransport(uds=str(self.bao.socket), verify=_NO_TLS)
        with httpx.Client(transport=transport, base_url="http://localhost/v1/", timeout=_PATIENCE_S) as http:
            if self._token is None:
                login = http.post("auth/approle/login", json={"role_id": _NAME, "secret_id": self.secret})
                self._token = str(login.raise_for_status().json()["auth"]["client_token"])
            answer = http.request(method, path, json=body, headers={"x-vault-token": self._token})
            if answer.status_code not in fine:
                answer.raise_for_status()
            return dict(answer.json()) if answer.content and answer.is_success else {}
