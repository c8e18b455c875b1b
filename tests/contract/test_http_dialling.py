"""Where the HTTP connector dials: checked addresses only, under the right name, and nothing is sent before."""

import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from aiohttp.abc import ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from connectors.http import HttpApi, HttpApiOptions
from gateway.core.errors import NotSent, Unavailable
from tests.fakes.web import Web, serving
from tests.http_tools import CREATE, LOOPBACK, OPEN, Names, call, fault


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    """A server that answers with an empty object."""
    async with serving() as running:
        running.json(b"{}")
        yield running


async def test_no_connection_is_not_sent() -> None:
    """Nobody listens: nothing happened, and the origin is not ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        async with HttpApi(f"http://127.0.0.1:{free.getsockname()[1]}", OPEN) as api:
            found = await fault(api, CREATE)
            assert (type(found), found.cause_code) == (NotSent, "upstream_down")
            with pytest.raises(Unavailable):
                await api.ping()


async def test_a_name_is_resolved_once_checked_and_dialled_as_checked(web: Web) -> None:
    """The connection goes to the address that was checked, under the name of the origin."""
    names = Names("127.0.0.1")
    options = HttpApiOptions(allow_networks=LOOPBACK, resolver=names)
    async with HttpApi(f"http://api.example.com:{web.port}", options) as api:
        await call(api)
        assert names.asked == ["api.example.com"]
        assert web.exchanges[0].field("Host") == [f"api.example.com:{web.port}"]
        await api.ping()


@pytest.mark.requirement("TOOL-2")
@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["169.254.169.254"],
        ["8.8.8.8", "127.0.0.1"],
        ["::ffff:127.0.0.1"],
        ["fe80::1%eth0"],
    ],
)
async def test_a_name_that_points_inside_is_refused(web: Web, addresses: list[str]) -> None:
    """One private address in the answer refuses all of it; nothing is dialled."""
    async with HttpApi(f"http://api.example.com:{web.port}", HttpApiOptions(resolver=Names(*addresses))) as api:
        found = await fault(api, CREATE)
        assert (type(found), found.cause_code) == (NotSent, "address_refused")
        with pytest.raises(Unavailable) as caught:
            await api.ping()
        assert caught.value.cause_code == "address_refused"
    assert web.connections == 0


@pytest.mark.requirement("TOOL-2")
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "169.254.169.254", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]"])
async def test_an_address_as_origin_is_checked_too(host: str) -> None:
    """An origin that is an address does not pass by the resolver, and is refused all the same."""
    async with HttpApi(f"http://{host}:80") as api:
        assert (await fault(api)).cause_code == "address_refused"
        with pytest.raises(Unavailable):
            await api.ping()


async def test_a_name_that_does_not_resolve_in_time_is_not_sent() -> None:
    """A silent name server costs the connect timeout, and nothing was sent."""

    class Silent(Names):
        """Never answers."""

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            """Wait for ever."""
            await anyio.sleep_forever()
            raise AssertionError

    async with HttpApi("http://api.example.com", HttpApiOptions(resolver=Silent(), connect_timeout_s=0.05)) as api:
        assert (await fault(api, CREATE)).cause_code == "dns"


def certified(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's TLS under a certificate for ``name``, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(certificate.public_bytes(pem) + secret)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(folder / "key.pem")
    return server, ssl.create_default_context(cadata=certificate.public_bytes(pem).decode())


async def test_the_certificate_is_checked_against_the_name_not_the_address(tmp_path: Path) -> None:
    """TLS goes to the checked address under the origin name; another name or an unknown signer is refused."""
    server, client = certified(tmp_path, "api.example.com")
    async with serving(server) as web:
        web.json(b"{}")
        for host, tls, sent in (("api", client, True), ("other", client, False), ("api", None, False)):
            options = HttpApiOptions(allow_networks=LOOPBACK, resolver=Names("127.0.0.1"), tls=tls)
            async with HttpApi(f"https://{host}.example.com:{web.port}", options) as api:
                if sent:
                    await call(api, CREATE)
                else:
                    found = await fault(api, CREATE)
                    assert (type(found), found.cause_code) == (NotSent, "tls")
        assert len(web.exchanges) == 1


@pytest.mark.parametrize(
    "origin",
    ["ftp://a.example", "http://a.example/x", "http://u:p@a.example", "http://a.example?x=1", "http://", "http://a.example#f",
     "http://0x7f.1", "http://2130706433", "http://127.1", "http://a.example.", "http://a.example:99999", "http://a b",
     "http://[fe80::1%25eth0]", "http://exämple", "//a.example", "http://a.example?"],
)  # fmt: skip
def test_what_is_no_plain_origin_is_refused_at_start(origin: str) -> None:
    """Paths, users, numbers in disguise and other schemes are an operator's mistake, told at once."""
    with pytest.raises(ValueError):  # noqa: PT011 - the kinds of mistake have their own words
        HttpApi(origin)
