"""``[identity]`` and ``listen.external_url``: what cannot be meant is said before anything is served."""

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.settings import Listen
from gateway.settings.identity import IdentitySection
from gateway.settings.vault import VaultSection


def issuers(**members: Any) -> IdentitySection:
    """One foreign issuer; ``members`` replace its own."""
    one = {"issuer": "https://a.test", "audience": ["gw"]} | members
    return IdentitySection.model_validate({"issuers": {"a": one}})


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:x@evil.test/",
        "http://localhost:80@evil.test",
        "http://localhost:@evil.test",
        "https://user@a.test",
        "https://",
        "https://[",
        "https://a.test:99999",
        "http://a.test",
    ],
)
@pytest.mark.parametrize("member", ["issuer", "jwks_url"])
def test_an_issuer_is_at_an_address_that_nobody_on_the_way_can_change(member: str, address: str) -> None:
    """What only looks like loopback is another machine."""
    with pytest.raises(ValidationError, match=member):
        issuers(**{member: address})


@pytest.mark.parametrize(
    "address", ["https://a.test", "https://a.test:8443/realms/x", "http://[::1]:80/x", "http://localhost"]
)
def test_good_addresses_are_taken(address: str) -> None:
    """TLS, or this machine."""
    assert issuers(issuer=address, jwks_url=address).issuers["a"].issuer == address


def test_a_vault_that_only_looks_near_is_not_spoken_to_in_clear() -> None:
    """Its credentials would be read on the way."""
    with pytest.raises(ValidationError, match="address"):
        VaultSection.model_validate({"address": "http://127.0.0.1:8200@evil.test", "token": {"env": "T"}})
    near = VaultSection.model_validate({"address": "http://127.0.0.1:8200", "token": {"env": "T"}})
    assert near.address.endswith("8200")


@pytest.mark.parametrize(
    "members",
    [
        {"scopes": {"": "tools"}},
        {"scopes": {"a b": "tools"}},
        {"scopes": {'a"': "tools"}},
        {"scopes": {"a\r\nx: y": "tools"}},
        {"scopes": {"ä": "tools"}},
        {"audience": [""]},
        {"person_clients": [""]},
    ],
)
def test_names_that_no_token_can_mean_are_refused(members: dict[str, Any]) -> None:
    """A scope without a name would be given to tokens without any, and one with a line break would be a header."""
    with pytest.raises(ValidationError, match=next(iter(members))):
        issuers(**members)


@pytest.mark.parametrize(
    "url",
    ['https://x"y', "https://x\r\ny: z", "ftp://x", "x", "", "https://h/?q", "https://h b", "https://[", "https://u@h"],
)
def test_where_callers_reach_the_gateway_is_an_address(url: str) -> None:
    """It stands in headers, links and the metadata that callers follow."""
    with pytest.raises(ValidationError, match="external_url"):
        Listen(external_url=url)


@pytest.mark.parametrize("url", ["https://gw.test", "https://gw.test:8443/", "http://10.0.0.1:80", "https://gw.test/a"])
def test_an_external_url_may_be_any_address(url: str) -> None:
    """Also http: a proxy may stand in front."""
    assert Listen(external_url=url).external_url == url
