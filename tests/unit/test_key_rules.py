"""Small rules of keys and accounts: the form of API keys, when a key is due, whose account it is."""

from dataclasses import replace
from typing import cast

import pytest

from gateway.core.api_keys import digest_of, is_sound, text_of
from gateway.core.connections import Consent, GrantRefused, NoConnections, Person, Wish
from gateway.core.errors import NotFound
from gateway.core.leasing import Provider, Template, correlation_of, is_named, name_of, reaping
from gateway.core.rotation import KeyKind, KeyStanding
from tests.evidence import make_principal

HOUR_US = 3_600_000_000


def test_the_form_of_an_api_key() -> None:
    """A slip of the pen is told from a key; what is kept is its hash."""
    text = text_of(bytes(range(32)))
    assert is_sound(text)
    assert len(digest_of(text)) == 32
    assert not is_sound(text[:-1] + ("0" if text[-1] != "0" else "1"))
    assert not is_sound(text.upper())
    assert digest_of(text) != digest_of(text_of(bytes(32)))


def test_when_a_key_is_due() -> None:
    """After its interval, a while later where it failed, and never where it has none."""
    standing = KeyStanding(KeyKind.ISSUER_KEY, "local", 1, 0)
    assert [standing.is_due(at) for at in (0, HOUR_US - 1, HOUR_US)] == [False, False, True]
    assert not standing.is_overdue(HOUR_US)
    assert standing.is_overdue(100 * HOUR_US)
    failed = KeyStanding(KeyKind.ISSUER_KEY, "local", 1, 0, "vault_sealed", HOUR_US)
    assert not failed.is_due(HOUR_US + 1)
    assert failed.is_due(100 * HOUR_US)
    assert not KeyStanding(KeyKind.ISSUER_KEY, "local", 0, 0).is_due(100 * HOUR_US)


def test_whose_account_it_is() -> None:
    """Issuer and user both count, and where one ends and the other begins."""
    marks = {Person("a", "bc").mark, Person("ab", "c").mark, Person("a", "c").mark}
    assert len(marks) == 3
    refused = GrantRefused("invalid_grant", is_over=True)
    assert (refused.code, refused.is_over) == ("invalid_grant", True)


async def test_no_service_no_accounts() -> None:
    """Where none is configured, none is found."""
    desk, by = NoConnections(), make_principal()
    assert await desk.all(by) == ()
    asked = (desk.page("x", cast("Wish", None)), desk.open(by, "x", cast("Consent", None)), desk.close(by, "x"))
    for one in asked:
        with pytest.raises(NotFound):
            await one


def test_the_ids_of_leases() -> None:
    """Each engine has its prefix; what has no lease has none, and the mark of an end tells nothing of its lease."""
    login = Template("erp", "database", "reader", "minter", 60)
    assert login.lease_prefix == "database/creds/reader"
    web = Template("c", "pki", "web", "minter", 60, provider=Provider.PKI)
    assert web.lease_prefix == replace(web, must_revoke=False).lease_prefix == "pki/issue/web"
    assert replace(web, provider=Provider.OAUTH_USER).lease_prefix is None
    assert (login.is_single, web.is_single, replace(web, must_revoke=False).is_single) == (False, False, True)
    assert Template("k", "secret", "a/b", "minter", 60, provider=Provider.KV).lease_prefix is None
    assert len(correlation_of("database/creds/reader/x")) == 32
    assert correlation_of("database/creds/reader/x") != correlation_of("database/creds/reader/y")


def test_database_roles_are_known_by_the_token_that_asked() -> None:
    """The name of a token is hexadecimal and of one length, whatever chance gave; a role begins with it."""
    name = name_of(bytes(range(250, 256)) * 4)
    assert (len(name), name) == (20, "fafbfcfdfefffafbfcfd")
    assert is_named(f"v-{name}-erp-read-abc")
    for odd in (
        f"v-{name}",
        f"v-{name}0-x",
        f"v-{name[1:]}-x",
        f"x-v-{name}-x",
        f"v-{name.upper()}-x",
        "v-erp-read-abc",
    ):
        assert not is_named(odd)
    assert reaping("erp-read") == "erp-read-reap"
