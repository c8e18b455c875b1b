"""``[rotation]``: what cannot work is refused with the key that is wrong."""

import pytest
from pydantic import ValidationError

from gateway.settings import GatewaySettings
from gateway.settings.rotation import RotationSection


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
