"""``.signatures.json``: one signed list of the digests of every file, as OPA writes and checks it.

Only asymmetric algorithms: whoever could check a shared secret could sign with it.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gateway.adapters.rego.bundles.archive import SIGNATURES
from gateway.core.bundle import BundleError

_HASHES = {"SHA-256": hashlib.sha256, "SHA-384": hashlib.sha384, "SHA-512": hashlib.sha512}
_MIN_RSA = 2048
Key = ECKey | OKPKey | RSAKey


class _Lexeme(str):
    """A number as it was written."""

    __slots__ = ()


def check(label: str, files: Mapping[str, bytes], public_key: bytes) -> None:
    """Hold every file against the signed list.

    Args:
        label: how the bundle is called in errors.
        files: all files by name, ``.signatures.json`` among them.
        public_key: PEM.

    Raises:
        BundleError: no signature, one of another key, or a file that is missing, altered or not in the list.
    """
    listed = _listed(label, files.get(SIGNATURES), public_key)
    for name, content in files.items():
        if name == SIGNATURES:
            continue
        entry = listed.pop(name, None)
        if entry is None:
            raise BundleError(f"{label}: {name} is not in the signed list")
        if _digest(label, name, content, entry[1]) != entry[0]:
            raise BundleError(f"{label}: {name} is not what was signed")
    if listed:
        raise BundleError(f"{label}: {min(listed)} was signed and is missing")


def signed(files: Mapping[str, bytes], private_key: bytes, key_id: str) -> bytes:
    """The content of ``.signatures.json`` for ``files``.

    Raises:
        BundleError: the key is unfit.
    """
    key, algorithm = _key("signing key", load_pem_private_key, private_key)
    entries = [
        {"name": name, "hash": _digest("bundle", name, content, "SHA-256"), "algorithm": "SHA-256"}
        for name, content in sorted(files.items())
        if name != SIGNATURES
    ]
    payload = json.dumps({"files": entries}, separators=(",", ":")).encode()
    header = {"alg": algorithm, "kid": key_id, "typ": "JWT"}
    token = jws.serialize_compact(header, payload, key, algorithms=[algorithm])
    return json.dumps({"signatures": [token]}).encode()


def fit_key(name: str, pem: bytes) -> None:
    """Raise ``BundleError`` where ``pem`` is no public key that signatures can be checked with."""
    _key(name, load_pem_public_key, pem)


def _listed(label: str, content: bytes | None, public_key: bytes) -> dict[str, tuple[str, str]]:
    if content is None:
        raise BundleError(f"{label}: has no {SIGNATURES}, and only signed policy is taken from there")
    key, algorithm = _key(f"{label}: public key", load_pem_public_key, public_key)
    try:
        (token,) = json.loads(content)["signatures"]
        # The algorithm is the key's, whatever the token says of itself.
        payload = json.loads(jws.deserialize_compact(token, key, algorithms=[algorithm]).payload)
        return {entry["name"].lstrip("/"): (entry["hash"], entry["algorithm"]) for entry in payload["files"]}
    except (JoseError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"{label}: {SIGNATURES} is no good: {str(error) or type(error).__name__}") from None


def _key(name: str, load: Any, pem: bytes) -> tuple[Key, str]:
    try:
        found = load(pem) if load is load_pem_public_key else load(pem, password=None)
    except (ValueError, TypeError) as error:
        raise BundleError(f"{name}: not a PEM key: {error}") from None
    if isinstance(found, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey) and found.curve.name == "secp256r1":
        return ECKey.import_key(pem), "ES256"
    if isinstance(found, ed25519.Ed25519PublicKey | ed25519.Ed25519PrivateKey):
        return OKPKey.import_key(pem), "Ed25519"
    if isinstance(found, rsa.RSAPublicKey | rsa.RSAPrivateKey) and found.key_size >= _MIN_RSA:
        return RSAKey.import_key(pem), "RS256"
    raise BundleError(f"{name}: neither P-256, Ed25519 nor RSA of {_MIN_RSA} bits or more")


def _digest(label: str, name: str, content: bytes, algorithm: str) -> str:
    make = _HASHES.get(algorithm)
    if make is None:
        raise BundleError(f"{label}: {name}: digest algorithm {algorithm} is not accepted")
    if not _is_structured(name):
        return make(content).hexdigest()
    try:
        value = json.loads(content, parse_int=_Lexeme, parse_float=_Lexeme)
        return make(_walked(value).encode("utf-8", "surrogatepass")).hexdigest()
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{label}: {name}: {error}") from None


def _is_structured(name: str) -> bool:
    last = name.rpartition("/")[2]
    return last in {"data.json", ".manifest"}


def _walked(value: Any) -> str:
    # JSON with sorted keys and no white space; strings as Go writes them.
    if isinstance(value, dict):
        members = (f"{_walked(str(key))}:{_walked(value[key])}" for key in sorted(value, key=lambda k: k.encode()))
        return f"{{{','.join(members)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_walked, value))}]"
    if isinstance(value, _Lexeme):
        return str(value)
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
