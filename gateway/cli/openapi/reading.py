"""Where a document comes from: a file, or one request to an address that may be dialled. Nothing else is fetched."""

import asyncio
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from connectors.http.dialling import AddressRefused, asking_once, origin
from gateway.cli.addresses import is_loopback
from gateway.cli.client.changing import look
from gateway.cli.openapi.document import MOST_BYTES
from gateway.cli.screen import Failed, Misconfigured, shown
from gateway.core import netguard

_TIMEOUT_S: Final = 30.0
_NAME_S: Final = 5.0
_GOOD: Final = 200


def is_address(source: str) -> bool:
    """Whether a document is named by URL."""
    return source.startswith(("http://", "https://"))


def read(source: str, networks: tuple[str, ...]) -> bytes:
    """The document's bytes, at most one more than may be.

    Args:
        source: a path, or a URL.
        networks: in CIDR form, what may be dialled though it is not public.

    Raises:
        Misconfigured: no such file, or an address that may not be dialled.
        Failed: it cannot be fetched.
    """
    if is_address(source):
        return asyncio.run(_fetched(source, networks))
    found = look(Path(source))
    if found.content is None:
        raise Misconfigured(f"{shown(source)} is not there", "give a file or a URL")
    return found.content


async def _fetched(url: str, networks: tuple[str, ...]) -> bytes:
    guard = _guarded(url, networks)
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S, sock_connect=_NAME_S)
    try:
        async with (
            asking_once(guard, timeout, _NAME_S) as session,
            session.get(url, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as response,
        ):
            if response.status != _GOOD:
                raise Failed(f"{shown(url)} answers with status {response.status}", "redirects are not followed")
            return await _limited(response)
    except (aiohttp.ClientError, OSError) as error:  # a timeout is an OSError
        refused = getattr(error, "os_error", None)
        if isinstance(refused, AddressRefused):
            raise _not_dialled(url, refused.kind) from None
        raise Failed(f"{shown(url)} cannot be fetched ({type(error).__name__})", "fetch it yourself") from None


async def _limited(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > MOST_BYTES:
            break  # its reader says so
    return bytes(body)


def _guarded(url: str, networks: tuple[str, ...]) -> netguard.Guard:
    try:
        parts = urlsplit(url)
        place = origin(f"{parts.scheme}://{parts.netloc}")
        guard = netguard.guard(networks)
    except ValueError as error:
        fix = "give an address such as https://api.example.org/openapi.json"
        raise Misconfigured(f"{shown(url)}: {error}", fix) from None
    if parts.scheme == "http" and not is_loopback(place.host):
        raise Misconfigured("what describes tools is not fetched over http", "use an https URL, or a file")
    # The client dials an address in its plain form without asking the resolver.
    if netguard.read(place.host) is not None and (kind := guard.refusal(place.host)) is not None:
        raise _not_dialled(url, kind)
    return guard


def _not_dialled(url: str, kind: netguard.AddressClass) -> Misconfigured:
    return Misconfigured(
        f"{shown(url)}: its address may not be dialled ({kind})", "name its network by --allow-network, or give a file"
    )
