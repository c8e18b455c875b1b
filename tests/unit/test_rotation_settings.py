"""``[rotation]``: what cannot work is refused with the key that is wrong."""

import pytest
from pydantic import ValidationError

from gateway.settings import GatewaySettings
from gateway.settings.rotation import RotationSection

POSTGRES = {"postgres": {"url": "postgresql:///log?host=/run/pg"}}
VAULT = {"address": "https://v", "role_id": "r", "secret_id": {"env": "X"}}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rotation": {"secret_id_h": 24}}, "rotation.secret_id_h"),
        (
            {
                "rotation": {"secret_id_h": 24},
                "vault": {"address": "https://v", "role_id": "r", "secret_id": {"env": "X"}},
            },
            "rotation.secret_id_h",
        ),
        ({"rotation": {"databases": ["database/erp"]}}, "rotation.databases"),
        ({"rotation": {"log_key_h": 168}}, "rotation.log_key_h"),
        (
            {"rotation": {"payload_key_h": 24}, "audit": {"postgres": {"url": "postgresql:///log?host=/run/pg"}}},
            "rotation.payload_key_h",
        ),
        ({"rotation": {"shared_keys": "keys/log"}, "audit": POSTGRES}, "rotation.shared_keys"),
        ({"rotation": {"shared_keys": "keys/log"}, "vault": VAULT}, "rotation.shared_keys"),
        (
            {
                "rotation": {"shared_keys": "secret/erp"},
                "audit": POSTGRES,
                "vault": VAULT,
                "leases": {"k": {"provider": "kv", "path": "erp/api", "member": "key", "token_role": "k"}},
            },
            "rotation.shared_keys",
        ),
    ],
)
def test_what_cannot_be_replaced_is_refused(settings: dict[str, object], words: str) -> None:
    """No file to write to, no vault, an interval that the overlap does not fit in, a key that others have a copy of."""
    with pytest.raises(ValidationError, match=words.replace(".", r"\.")):
        GatewaySettings(state="state", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["erp", "database/", "/erp", "database/../sys", "database/erp?x"])
def test_a_connection_is_a_mount_and_a_name(name: str) -> None:
    """Nothing that could be another path of the vault."""
    with pytest.raises(ValidationError):
        RotationSection(databases=(name,))


@pytest.mark.parametrize(
    "place", ["keys", "/keys/log", "keys/", "keys//log", "keys/../sys", "keys/log?x", "keys/+/log"]
)
def test_a_place_for_shared_keys_is_a_mount_and_a_path(place: str) -> None:
    """Nothing that could be another path of the vault, or several."""
    with pytest.raises(ValidationError):
        RotationSection(shared_keys=place)


def test_gateways_on_one_log_with_a_vault_may_share_keys() -> None:
    """At a place that no lease reads."""
    lease = {"provider": "kv", "mount": "keys", "path": "logs", "member": "key", "token_role": "k"}
    settings: dict[str, object] = {"rotation": {"shared_keys": "keys/log"}, "audit": POSTGRES, "vault": VAULT}
    assert GatewaySettings(state="state", leases={"k": lease}, **settings).rotation.shared_keys == "keys/log"  # type: ignore[arg-type]


def test_no_copy_of_a_key_lies_in_the_vault_for_long() -> None:
    """Whoever has any old folder of keys can open it: hours, unless an operator wants more or none."""
    assert RotationSection().shared_keys_h == 4
    assert RotationSection(shared_keys_h=0).shared_keys_h == 0
