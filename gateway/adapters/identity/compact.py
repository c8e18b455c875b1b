"""JWTs in compact form (RFC 7515 section 7.1), read so that a token has one spelling and a claim one value."""

import base64
import re
from collections.abc import Collection
from typing import Any, Final

from joserfc import jws
from joserfc.errors import UnsupportedAlgorithmError
from joserfc.jwa import JWSAlgModel

from gateway.adapters.identity.claims import Cause, refused
from gateway.core import canonical
from gateway.core.errors import GatewayError

MAX_TOKEN: Final = 8192
_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)
_FOREIGN: Final = "the credential is not a token of this gateway or of an issuer it trusts"


class Pinned(jws.JWSRegistry):
    """The algorithms of one issuer, whatever else the library knows."""

    max_payload_length = MAX_TOKEN

    def __init__(self, names: Collection[str]) -> None:
        """``names`` as they stand in headers."""
        super().__init__()
        self._names = frozenset(names)

    def get_alg(self, name: str) -> JWSAlgModel:
        """The algorithm of that name, where it is one of the issuer's."""
        if name not in self._names:
            raise UnsupportedAlgorithmError("not an algorithm of this issuer")
        return self.algorithms["Ed25519" if name == "EdDSA" else name]  # the second is the older name (RFC 9864)


def segments(token: str) -> tuple[bytes, bytes, bytes]:
    """Header, payload and signature of ``token``, decoded; nothing of them is checked yet.

    Raises:
        Unauthenticated: it is no compact JWT, or a spelling of one that no encoder makes.
    """
    form = _COMPACT.fullmatch(token)
    if form is None or len(token) > MAX_TOKEN:
        raise refused(Cause.MALFORMED, _FOREIGN)
    return _bytes(form[1]), _bytes(form[2]), _bytes(form[3])


def document(text: bytes) -> dict[str, Any]:
    """A JSON object; two members of one name are nobody's word.

    Raises:
        Unauthenticated: it is none.
    """
    try:
        value = canonical.parse(text).value
    except GatewayError:
        value = None
    if not isinstance(value, dict):
        raise refused(Cause.MALFORMED, _FOREIGN)
    return value


def _bytes(segment: str) -> bytes:
    # Python's decoder forgives padding bits; two spellings of one token are refused instead.
    try:
        decoded = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        decoded = b""
    if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != segment:
        raise refused(Cause.MALFORMED, _FOREIGN)
    return decoded
