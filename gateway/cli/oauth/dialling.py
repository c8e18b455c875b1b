"""Asks what a server names, at addresses that may be dialled: implements ``connections.discovering.Fetch``."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from connectors.http.dialling import AddressRefused, asking_once, origin
from gateway.adapters.connections.discovering import Fetched
from gateway.cli.addresses import is_loopback
from gateway.core import netguard
from gateway.core.errors import Unavailable

_MAX_BYTES: Final = 128 * 1024
_FIELDS: Final[Mapping[str, str]] = {
    # As it is: what unpacks to much more than was sent would be read before it could be measured.
    "Accept-Encoding": "identity",
    "Accept": "application/json, text/event-stream",
    "Content-Type": "application/json",
}


class GuardedFetch:
    """Asks once each; a name is resolved once, and exactly a checked address is dialled.

    Failure mode, closed: an address that may not be dialled is not, whoever named it, and the server may name any.
    """

    def __init__(self, networks: tuple[str, ...], timeout_s: float = 15.0) -> None:
        """Nothing is asked yet.

        Args:
            networks: in CIDR form, what may be dialled though it is not public.
            timeout_s: longest an answer may take.

        Raises:
            ValueError: one of the networks is none.
        """
        self._guard = netguard.guard(networks)
        self._timeout_s = timeout_s

    async def __call__(self, method: str, url: str, body: bytes | None = None) -> Fetched:
        """The answer; see ``Fetch``."""
        self._require_dialled(url)
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        try:
            async with (
                asking_once(self._guard, timeout, self._timeout_s) as session,
                session.request(method, url, data=body, headers=_FIELDS, allow_redirects=False) as response,
            ):
                challenges = tuple(response.headers.getall("WWW-Authenticate", ()))
                content = b"" if _is_stream(response) else await _limited(response)
                return Fetched(response.status, challenges, content)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # a timeout is an OSError
            refused = getattr(error, "os_error", None)
            if isinstance(refused, AddressRefused):
                raise _not_dialled(url, refused.kind) from None
            raise Unavailable(f"{url} cannot be asked ({type(error).__name__})", cause_code="provider_down") from None

    def _require_dialled(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            place = origin(f"{parts.scheme}://{parts.netloc}")
        except ValueError as error:
            raise Unavailable(f"{url}: {error}", cause_code="provider_odd") from None
        if parts.scheme == "http" and not is_loopback(place.host):
            raise Unavailable(f"{url}: tokens are not asked for over http", cause_code="provider_odd")
        # The client dials an address in its plain form without asking the resolver.
        if netguard.read(place.host) is not None and (kind := self._guard.refusal(place.host)) is not None:
            raise _not_dialled(url, kind)


def _is_stream(response: aiohttp.ClientResponse) -> bool:
    return response.content_type == "text/event-stream"  # the probe's: it need not end, and says nothing that counts


async def _limited(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 14):
        body += chunk
        if len(body) > _MAX_BYTES:
            raise Unavailable(f"{response.url} answers too much", cause_code="provider_odd")
    return bytes(body)


def _not_dialled(url: str, kind: netguard.AddressClass) -> Unavailable:
    detail = f"{url}: its address may not be dialled ({kind}); name its network by --allow-network"
    return Unavailable(detail, cause_code="address_refused")
