"""What reviewers' keys sign: verdicts on actions, and enrolments of other keys.

Both have two layers. The document holds everything (names, a nonce, a reason) and is sealed; the face holds what may
stand in a leaf of the log, with the document's hash. The face is what is signed: so a stranger who has the log alone
can check that this key said this of this tool, and who has the payloads can check all the rest. Both name the log they
are for: a word given at one gateway is no word at another one.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.core.canonical import encode

VERSION = 1
KEY_ID_SIZE = 16
_APPROVAL_CONTEXT = b"ostiary.approval/v1\n"
_ENROLMENT_CONTEXT = b"ostiary.enrolment/v1\n"
# Of an action's statement, what stands in the leaf of its request.
FACE = ("origin", "approval", "tool", "definition", "expires_us")

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_KEY_SIZE = 32
_SIGN = 1 << 255


def key_id(public: bytes) -> str:
    """Id of a reviewer's key: the first 16 bytes of the SHA-256 of its raw public half, hex."""
    return hashlib.sha256(public).digest()[:KEY_ID_SIZE].hex()


def statement_hash(statement: Mapping[str, Any], reason: str | None = None) -> bytes:
    """SHA-256 of a statement and, for a rejection, its reason: tells nothing, as a nonce is in it."""
    return hashlib.sha256(encode(statement if reason is None else {**statement, "reason": reason})).digest()


def verdict_message(face: Mapping[str, Any], verdict: str, hashed: str) -> bytes:
    """The bytes a verdict is signed over.

    Args:
        face: members ``FACE`` of the statement; others are ignored.
        verdict: ``approve`` or ``reject``.
        hashed: ``statement_hash``, hex.
    """
    word = {name: face[name] for name in FACE} | {"v": VERSION, "verdict": verdict, "statement": hashed}
    return _APPROVAL_CONTEXT + hashlib.sha256(encode(word)).digest()


def approval_message(statement: Mapping[str, Any], verdict: str, reason: str | None = None) -> bytes:
    """``verdict_message`` for a whole statement: what a reviewer signs."""
    return verdict_message(statement, verdict, statement_hash(statement, reason).hex())


def enrolment(
    public: bytes, person: str, roles: Iterable[str], accounts: Iterable[tuple[str, str]], nonce: str
) -> dict[str, Any]:
    """Everything the enrolment of a key says, as JSON values; it is sealed."""
    return {
        "v": VERSION,
        "nonce": nonce,
        "public": public.hex(),
        "person": person,
        "roles": sorted(roles),
        "accounts": sorted(list(account) for account in accounts),
    }


def enrolment_message(origin: str, public: str, roles: Iterable[str], document: str) -> bytes:
    """The bytes an enrolled key signs to enrol another one.

    Args:
        origin: the log it is for.
        public: the new key, hex.
        roles: what its holder may approve as.
        document: SHA-256 of the ``enrolment``, hex.
    """
    word = {"v": VERSION, "origin": origin, "public": public, "roles": sorted(roles), "document": document}
    return _ENROLMENT_CONTEXT + hashlib.sha256(encode(word)).digest()


def document_hash(document: Mapping[str, Any]) -> str:
    """SHA-256 of an ``enrolment``, hex."""
    return hashlib.sha256(encode(document)).hexdigest()


def is_signed(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` is of ``message`` by the raw Ed25519 key ``public``."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def is_sound_key(public: bytes) -> bool:
    """Whether ``public`` is a point of the curve that somebody can hold the secret of.

    Libraries take any 32 bytes. Under a point of small order signatures can be made without any secret.
    """
    if len(public) != _KEY_SIZE:
        return False
    y = int.from_bytes(public, "little") % _SIGN
    if y >= _P:
        return False
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    is_on_curve = square == 0 or pow(square, (_P - 1) // 2, _P) == 1
    return is_on_curve and not _is_small(y, square)


def _is_small(y: int, square: int) -> bool:
    # Doubled three times a point of order 1, 2, 4 or 8 is the neutral one, whose y is 1. Doubling needs x squared only:
    # y' = (y^2 + x^2) / (2 + x^2 - y^2) on this curve, and x'^2 follows from the equation of the curve.
    for _ in range(3):
        y = (y * y + square) * pow(2 + square - y * y, -1, _P) % _P
        square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    return y == 1
