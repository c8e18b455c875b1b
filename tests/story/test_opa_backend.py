"""A whole gateway that is decided by a real OPA: settings, start, calls, and what the check says when OPA is wrong."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError

from deploy.servers.opa import VERSION, Opa, opa
from gateway import app
from gateway.adapters.identity import Grant
from gateway.adapters.rego.bundles.building import bundle_archive
from gateway.adapters.rego.layers import load as load_bundle
from gateway.adapters.rego.layers import shipped
from gateway.cli import home
from gateway.core import pipeline
from gateway.core.bundle import Bundle, BundleError
from gateway.core.call import Live
from gateway.core.errors import Unavailable
from gateway.core.known import KnownValues
from gateway.core.redact import Redactor
from gateway.logs import JsonLines
from gateway.parts.tokens import Token
from gateway.settings import GatewaySettings
from gateway.settings.file import load
from gateway.settings.policy import OpaSection
from gateway.settings.sections import SecretReference
from tests.evidence import make_call
from tests.opa import required

ROOT = Path(__file__).parents[2]
CATALOGUE = """
[[tool]]
server = "erp"
name = "find"
effect = "read"
description = "One."
input_schema = { type = "object", additionalProperties = false }
[tool.sql]
statement = "SELECT 1"
parameters = []
"""
GRANTED = '[policy.data.gateway.scope.users.ada]\nallow = ["erp.*"]\n'
AUTHZ = """# METADATA
# title: Who may ask this OPA
package system.authz

default allow := false

allow if input.identity == "opa-token-1"

allow if input.path == ["health"]
"""
DATA = {"gateway": {"scope": {"users": {"ada": {"allow": ["erp.*"]}}}}}


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """A gateway sends the process's logs to where standard error was then; it must not stay so for other tests."""
    yield
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler.formatter, JsonLines)]:
        root.removeHandler(handler)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The operator's own layer: it says who may ask OPA."""
    folder = tmp_path / "house"
    folder.mkdir()
    (folder / "authz.rego").write_text(AUTHZ, "utf-8")
    return folder


@contextmanager
def guarded(bundle: Bundle) -> Iterator[Opa]:
    """An OPA with this bundle that asks for a token."""
    required()
    arguments = ("--authentication=token", "--authorization=basic")
    with opa({"ostiary": bundle_archive(bundle)}, unix=True, arguments=arguments) as running:
        yield running


def settings(house: Path, url: str, token: str = "opa-token-1", granted: str = GRANTED) -> GatewaySettings:
    """A gateway before a database with one tool, ``erp.find``."""
    folder = house.parent
    home.prepare(folder / "state")
    (folder / "erp.sqlite").touch()
    (folder / "catalogue.toml").write_text(CATALOGUE)
    (folder / "token").write_text(f"{token}\n")
    upstream = '[upstreams.erp]\nkind = "sql"\ndatabase = "erp.sqlite"\n'
    policy = '[policy]\nengine = "opa"\nbundles = ["house"]\ndeadline_ms = 5000\n'
    asked = f'[policy.opa]\nurl = "{url}"\ntoken = {{ file = "token" }}\n'
    words = f'state = "state"\ncatalogue = ["catalogue.toml"]\n{upstream}{policy}{asked}{granted}'
    (folder / "gateway.toml").write_text(words)
    return load(folder / "gateway.toml")


async def said_of_policy(given: GatewaySettings) -> list[tuple[bool, str]]:
    """What the check says of the engine."""
    return [(found.ok, found.text) for found in await app.check(given) if found.part == "policy"]


async def test_a_gateway_decided_by_opa(house: Path) -> None:
    """Its tools are there for whom the data names, for nobody else, and the record says who decided."""
    with guarded(load_bundle([shipped(), house], DATA)) as server:
        given = settings(house, server.url)
        issuer = home.issuer(given)
        async with app.opened(given, "http://gateway.test") as gateway:
            for subject, tools in (("ada", ["erp.find"]), ("eve", [])):
                token = issuer.issue(issuer.principal(Grant(subject)))
                listed = await pipeline.listing(make_call(origin=Live(token)), gateway.parts.ports)
                assert [tool.fqn for tool in listed] == tools
            standing = gateway.parts.policies.standing()
            assert standing.engine == f"opa/{VERSION}"
        assert await said_of_policy(given) == [(True, "ready")]


async def test_opa_with_other_data_keeps_the_gateway_from_starting(house: Path) -> None:
    """Data counts as much as Rego: the revision is over both."""
    with (
        guarded(load_bundle([shipped(), house])) as server,
        pytest.raises(BundleError, match=r"OPA serves revision .* the gateway examined"),
    ):
        async with app.opened(settings(house, server.url), "http://gateway.test"):
            pass


async def test_opa_that_is_down_or_refuses_the_token_is_a_finding(house: Path) -> None:
    """The gateway starts and decides nothing; the check says which of the two it is."""
    with guarded(load_bundle([shipped(), house], DATA)) as server:
        (found,) = await said_of_policy(settings(house, server.url, token="another-token"))
        assert found[0] is False
        assert "OPA refuses the gateway" in found[1]
    (found,) = await said_of_policy(settings(house, server.url))
    assert found[0] is False
    assert "cannot be reached" in found[1]


async def test_bundle_with_findings_never_reaches_opa(house: Path) -> None:
    """What the lint refuses is refused whoever would evaluate it."""
    (house / "p.rego").write_text("package gateway.policies.p\n\ndeny := true\n", "utf-8")
    with pytest.raises(BundleError, match=r"p\.rego:3: GW005"):
        async with app.opened(settings(house, f"unix://{house}/none"), "http://gateway.test"):
            pass


async def test_a_deny_only_layer_that_allows_never_reaches_opa(house: Path) -> None:
    """Nor one that would say who may ask OPA: both are named."""
    (house / "p.rego").write_text('package gateway.policies.p\n\nallow contains {"id": "p.x", "msg": "m"} if true\n')
    settings(house, f"unix://{house}/none")
    file = house.parent / "gateway.toml"
    file.write_text(file.read_text().replace('["house"]', '[{ path = "house", deny_only = true }]'))
    with pytest.raises(BundleError) as refused:
        async with app.opened(load(file), "http://gateway.test"):
            pass
    places = [problem[: problem.index(" GW006") + 6] for problem in refused.value.problems]
    assert places == ["house/authz.rego:1: GW006", "house/p.rego:3: GW006"]


@pytest.mark.parametrize(
    ("url", "fits"),
    [
        ("http://127.0.0.1:8181", True),
        ("http://[::1]:8181", True),
        ("http://localhost", True),
        ("https://opa.example:8181", True),
        ("unix:///run/opa.sock", True),
        ("http://opa.example:8181", False),
        ("http://127.0.0.1:8181/v1", False),
        ("https://user@opa.example", False),
        ("https://opa.example?x", False),
        ("http://127.0.0.1.evil.example", False),
        ("unix://", False),
        ("unix:///run/opa\x00.sock", False),
        ("unix:///" + "a" * 106, True),
        ("unix:///" + "a" * 107, False),
        ("https://opa.example:99999", False),
        ("https://opa.example:opa", False),
        ("https://opa .example", False),
        ("https://[::1", False),
        ("https://:8181", False),
        ("http://127.0.0.1:99999", False),
        ("ftp://127.0.0.1", False),
    ],
)
def test_where_opa_may_be(url: str, *, fits: bool) -> None:
    """Plain HTTP stays on this machine, and the address is an address only."""
    if fits:
        assert OpaSection(url=url).url == url
    else:
        with pytest.raises(ValidationError):
            OpaSection(url=url)


def test_token_is_read_anew_and_kept_out_of_outputs(tmp_path: Path) -> None:
    """A rotated token is used once OPA refuses the old one; both are known to the redactor; a short one is refused."""
    file, known = tmp_path / "token", KnownValues()
    read = Token("policy.opa.token", SecretReference(file=file), known)
    file.write_text("first-token-value\n")
    assert [read(), read()] == ["first-token-value"] * 2
    file.write_text("second-token-value\n")
    assert read() == "second-token-value"
    needles = Redactor(known)
    assert "token-value" not in needles.text("first-token-value second-token-value")
    file.write_text("short\n")
    with pytest.raises(Unavailable, match="cannot be kept secret"):
        read()
    file.unlink()
    with pytest.raises(Unavailable, match="cannot be read"):
        read()


def test_the_server_that_is_built_is_the_one_that_is_looked_for() -> None:
    """The version stands in two places."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert f"\nOPA_VERSION := {VERSION}\n" in makefile
