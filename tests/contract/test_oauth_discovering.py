"""Who gives tokens for an MCP server: found out from what it says, and believed no further than it reaches."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.adapters.connections import discovering
from gateway.adapters.connections.discovering import Applicant, Membership, Protected, covers
from gateway.adapters.connections.metadata import places
from gateway.cli.oauth.dialling import GuardedFetch
from gateway.core.errors import Unavailable
from tests.fakes.granting import METADATA, NEAR, RESOURCE, Granting, granting

FETCH = GuardedFetch(NEAR)
ROOT = "/.well-known/oauth-protected-resource"
APPLICANT = Applicant("Ostiary", "http://127.0.0.1/callback/hub", ("read", "write"))


@pytest.fixture
def there() -> Iterator[Granting]:
    """A server and its authorization server."""
    with granting() as running:
        yield running


async def refused(there: Granting) -> str:
    """What is wrong with the server's word."""
    with pytest.raises(Unavailable) as caught:
        await discovering.protected(there.mcp, FETCH)
    return caught.value.detail


async def registered(there: Granting) -> Membership:
    """A registration."""
    return await discovering.registered(await discovering.published(there.url, FETCH), APPLICANT, FETCH)


async def test_a_server_is_asked_without_a_token_and_says_where_to_ask(there: Granting) -> None:
    """The place and the scopes that its challenge names; nothing else is asked."""
    there.place = "/said/here"
    there.challenge = f'Basic realm="x", Bearer resource_metadata="{there.url}/said/here", scope="a b"'
    there.server["scopes_supported"] = ["c"]
    found = await discovering.protected(there.mcp, FETCH)
    assert found == Protected(there.mcp, (there.url,), ("a", "b"))
    assert there.paths() == ["/mcp", "/said/here"]
    assert not any("authorization" in one.headers or "cookie" in one.headers for one in there.asked)


@pytest.mark.parametrize("place", [RESOURCE, ROOT])
async def test_without_a_word_the_known_places_are_asked(there: Granting, place: str) -> None:
    """The one of its path first; all scopes there are where the challenge names none."""
    there.place = place
    there.server["scopes_supported"] = ["c", "d", "c"]
    found = await discovering.protected(there.mcp, FETCH)
    assert found.scopes == ("c", "d")
    assert there.paths() == ["/mcp", *[RESOURCE, ROOT][: 1 + (place == ROOT)]]


SPEAKS_FOR_ANOTHER: list[Any] = ["https://evil.example/mcp", "@/other", "@/mcp/below", "@/mc", "@/mcp#x", "@/mcp?x", 7]
NO_ISSUERS: list[Any] = [None, [], "text", [7], ["http://evil.example"], ["ftp://x"], ["https://a b"], ["https://["]]


@pytest.mark.parametrize("resource", SPEAKS_FOR_ANOTHER)
async def test_metadata_of_another_resource_are_not_used(there: Granting, resource: Any) -> None:
    """A token for it would be worth something there, or nothing here."""
    there.server["resource"] = resource.replace("@", there.url) if isinstance(resource, str) else resource
    assert "another server" in await refused(there)
    assert METADATA not in there.paths()


@pytest.mark.parametrize("issuers", NO_ISSUERS)
async def test_who_gives_tokens_is_an_https_address(there: Granting, issuers: Any) -> None:
    """Or one on this machine, by the word of a server on this machine."""
    there.server["authorization_servers"] = issuers
    assert await refused(there)
    assert METADATA not in there.paths()


@pytest.mark.parametrize("scope", ['a"b', "a\\b", "x" * 257, "\u00e9", " ".join(map(str, range(65)))])
async def test_scopes_are_names(there: Granting, scope: str) -> None:
    """What could not be one, or are too many to be read by anybody, is refused."""
    there.server["scopes_supported"] = scope.split()
    assert "scopes" in await refused(there)


@pytest.mark.parametrize("status", [404, 500])
async def test_a_server_that_says_nothing_is_not_guessed_about(there: Granting, status: int) -> None:
    """It may want no tokens, or have other ways."""
    there.said = {RESOURCE: (status, {}, b"{}"), ROOT: (status, {}, b"{}")}
    assert "does not say" in await refused(there)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"resource":1,"resource":2}'])
async def test_what_a_server_names_must_be_there(there: Granting, body: bytes) -> None:
    """Junk at the place that it named is not made good by looking elsewhere."""
    there.challenge = f'Bearer resource_metadata="{there.url}/junk"'
    there.said["/junk"] = (200, {}, body)
    assert "publishes no metadata of the server" in await refused(there)
    assert there.paths() == ["/mcp", "/junk"]


@pytest.mark.parametrize(
    "place",
    ["http://169.254.169.254/latest", "https://169.254.169.254/", "https://10.0.0.1/x", "ftp://x/", "/relative"],
)
async def test_a_challenge_leads_nowhere_else(there: Granting, place: str) -> None:
    """Not to addresses inside, whoever names them."""
    there.challenge = f'Bearer resource_metadata="{place}"'
    assert await refused(there)
    assert there.paths() == ["/mcp"]


async def test_an_authorization_server_says_what_is_possible(there: Granting) -> None:
    """Endpoints, and a scope for tokens that last, where it has one."""
    there.service["scopes_supported"] = ["offline_access", "x"]
    found = await discovering.published(there.url, FETCH)
    assert (found.token, found.ways) == (f"{there.url}/token", ("client_secret_basic",))
    assert discovering.asked(("a", "a"), found) == ("a", "offline_access")
    there.service["scopes_supported"] = None
    assert discovering.asked((), await discovering.published(there.url, FETCH)) == ()


ODD: dict[str, dict[str, Any]] = {
    "another issuer's": {"issuer": "https://evil.example"},
    "no issuer's": {"issuer": None},
    "with a slash more": {"issuer": "@/"},
    "without code challenges": {"code_challenge_methods_supported": None},
    "with plain code challenges": {"code_challenge_methods_supported": ["plain"]},
    "no token endpoint": {"token_endpoint": None},
    "a token endpoint elsewhere over http": {"token_endpoint": "http://evil.example/token"},
    "no address": {"authorization_endpoint": "javascript:alert(1)"},
    "an address of two lines": {"authorization_endpoint": "https://as.example/a\r\nx: y"},
    "an address that looks like another": {"authorization_endpoint": "https://as.example@evil.example/a"},
    "an address that is spelled otherwise": {"token_endpoint": "https://\uff11\uff12\uff17.0.0.1/token"},
}


@pytest.mark.parametrize("name", ODD)
async def test_metadata_that_cannot_be_trusted_are_not_used(there: Granting, name: str) -> None:
    """No client is made there, and nobody is sent there."""
    said = {key: f"{there.url}/" if value == "@/" else value for key, value in ODD[name].items()}
    there.service |= said
    with pytest.raises(Unavailable):
        await registered(there)
    assert "/register" not in there.paths()


async def test_metadata_that_are_not_there_are_not_guessed(there: Granting) -> None:
    """All known places are asked."""
    there.said[METADATA] = (404, {}, b"")
    with pytest.raises(Unavailable):
        await discovering.published(there.url, FETCH)
    assert there.paths() == ["/.well-known/openid-configuration", METADATA]


async def test_an_error_is_not_made_good_by_looking_elsewhere(there: Granting) -> None:
    """Whoever can bring one about could choose which metadata are read."""
    there.said["/.well-known/openid-configuration"] = (500, {}, b"")
    with pytest.raises(Unavailable):
        await discovering.published(there.url, FETCH)
    assert there.paths() == ["/.well-known/openid-configuration"]


def test_metadata_of_an_issuer_with_a_path_are_below_it_or_beside_it() -> None:
    """Never at the root of its host, which may be another tenant's."""
    assert places("https://as.example/t1") == (
        "https://as.example/t1/.well-known/openid-configuration",
        "https://as.example/.well-known/oauth-authorization-server/t1",
        "https://as.example/.well-known/openid-configuration/t1",
    )
    assert len(places("https://as.example")) == 2


async def test_a_registration_says_what_the_gateway_is(there: Granting) -> None:
    """A native client with one redirect URI, on this machine."""
    assert await registered(there) == Membership("made", "made-for-the-gateway", "basic")
    assert json.loads(there.asked[-1].body) == {
        "client_name": "Ostiary",
        "redirect_uris": ["http://127.0.0.1/callback/hub"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "client_secret_basic",
        "application_type": "native",
        "scope": "read write",
    }


@pytest.mark.parametrize(
    ("ways", "said", "own"),
    [
        (["client_secret_post", "client_secret_basic"], {}, "basic"),
        (["private_key_jwt", "client_secret_post"], {}, "body"),
        (["none"], {}, None),
        (["client_secret_basic"], {"token_endpoint_auth_method": "client_secret_post"}, "body"),
        (["client_secret_basic"], {"token_endpoint_auth_method": "none", "client_secret": None}, None),
    ],
)
async def test_the_gateway_authenticates_as_it_is_told(
    there: Granting, ways: list[str], said: dict[str, Any], own: str | None
) -> None:
    """By what the server supports, and then by what it made of the client."""
    there.service["token_endpoint_auth_methods_supported"] = ways
    there.client = said
    found = await registered(there)
    assert found.auth == own
    assert (found.secret is None) == (own is None)


CLIENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "takes none": ({"registration_endpoint": None}, {}),
    "knows other ways": ({"token_endpoint_auth_methods_supported": ["private_key_jwt"]}, {}),
    "without a name": ({}, {"client_id": None}),
    "with a name that is none": ({}, {"client_id": "a\nb"}),
    "with an empty name": ({}, {"client_id": ""}),
    "without a secret": ({}, {"client_secret": None}),
    "with a secret of two lines": ({}, {"client_secret": "a\nb"}),
    "with a way of its own": ({}, {"token_endpoint_auth_method": "private_key_jwt"}),
    "with a way that is no name": ({}, {"token_endpoint_auth_method": ["none"]}),
}


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_client_that_could_not_be_used_is_refused(there: Granting, name: str) -> None:
    """Before it stands in any settings."""
    service, there.client = CLIENTS[name]
    there.service |= service
    with pytest.raises(Unavailable):
        await registered(there)


@pytest.mark.parametrize("answer", [(400, b'{"error":"x"}'), (201, b"[]"), (302, b"{}")])
async def test_a_registration_that_is_not_taken_is_not_sent_again(there: Granting, answer: tuple[int, bytes]) -> None:
    """Nor somewhere else."""
    there.said["/register"] = (answer[0], {"Location": f"{there.url}/mcp"}, answer[1])
    with pytest.raises(Unavailable, match=f"status {answer[0]}"):
        await registered(there)
    assert there.paths()[-1] == "/register"


@pytest.mark.parametrize(
    ("resource", "fits"),
    [
        ("https://a.example/mcp", True),
        ("https://A.example/mcp", True),
        ("https://a.example/mcp/", True),
        ("https://a.example", True),
        ("https://a.example/", True),
        ("http://a.example/mcp", False),
        ("https://a.example:444/mcp", False),
        ("https://a.example:x/mcp", False),
        ("https://u@a.example/mcp", False),
        ("https://a.example/mcp?tenant=1", False),
        ("https://a.example/m", False),
        ("https://a.example/mcp\n", False),
        ("", False),
    ],
)
def test_a_resource_is_the_server_or_above_it(resource: str, fits: bool) -> None:
    """By origin and whole segments of the path."""
    assert covers(resource, "https://a.example/mcp") is fits


def test_a_query_is_part_of_a_resource() -> None:
    """Where it has one it is the server's own."""
    assert covers("https://a.example/mcp?tenant=1", "https://a.example/mcp?tenant=1")
    assert not covers("https://a.example/mcp?tenant=1", "https://a.example/mcp?tenant=2")


@pytest.mark.parametrize(
    "url",
    ["https://127.0.0.1/", "https://[::1]/", "http://example.org/", "https://169.254.169.254/", "https://0x7f.1/"],
)
async def test_what_may_not_be_dialled_is_not(url: str) -> None:
    """Whatever form the address has."""
    with pytest.raises(Unavailable):
        await GuardedFetch(())("GET", url)


async def test_a_name_that_leads_inside_is_not_dialled(there: Granting) -> None:
    """It is the address that counts."""
    with pytest.raises(Unavailable, match="may not be dialled"):
        await GuardedFetch(())("GET", there.url.replace("127.0.0.1", "localhost"))
    assert there.asked == []


async def test_an_answer_has_a_bound_and_leads_nowhere(there: Granting) -> None:
    """What is too long is refused, a redirect is an answer, and nobody there is an answer of ours."""
    there.said = {"/long": (200, {}, b"x" * 200_000), "/on": (302, {"Location": f"{there.url}/long"}, b"")}
    assert (await FETCH("GET", f"{there.url}/on")).status == 302
    with pytest.raises(Unavailable, match="too much"):
        await FETCH("GET", f"{there.url}/long")
    with pytest.raises(Unavailable, match="cannot be asked"):
        await FETCH("GET", "http://127.0.0.1:1/")
