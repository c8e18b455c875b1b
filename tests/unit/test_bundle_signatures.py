"""Signed bundles: what was signed passes, whatever was done to it since does not."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from gateway.adapters.rego.bundles import signatures
from gateway.adapters.rego.bundles.archive import SIGNATURES
from gateway.core.bundle import BundleError

FILES = {
    "main.rego": b"package gateway.main\n",
    "a/data.json": '{"b": [1.50, 9007199254740993, null, true, "\u00e9<\u2028>"], "a": {}}'.encode(),
    ".manifest": b'{"revision": "r", "roots": ["a"]}',
}
MAKERS: dict[str, Callable[[], Any]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


def pair(kind: str) -> tuple[bytes, bytes]:
    """A private key and its public half, PEM."""
    key = MAKERS[kind]()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, public(key)


def public(key: Any) -> bytes:
    """The public half of a key, PEM."""
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def made(private: bytes) -> dict[str, bytes]:
    """The files with their signature."""
    return FILES | {SIGNATURES: signatures.signed(FILES, private, "k1")}


@pytest.mark.parametrize("kind", MAKERS)
def test_what_was_signed_passes(kind: str) -> None:
    """With each kind of key, and JSON whatever its white space."""
    private, checked = pair(kind)
    files = made(private)
    signatures.check("b", files, checked)
    files["a/data.json"] = b" " + files["a/data.json"].replace(b": ", b":") + b"\n"
    signatures.check("b", files, checked)
    files["main.rego"] += b"#"
    with pytest.raises(BundleError, match=r"main\.rego is not what was signed"):
        signatures.check("b", files, checked)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda files: files | {"main.rego": b"package gateway.main\n\n"}, "main.rego is not what was signed"),
        (lambda files: files | {"a/data.json": b'{"a": {}}'}, "a/data.json is not what was signed"),
        (lambda files: files | {"more.rego": b"package x"}, "more.rego is not in the signed list"),
        (lambda files: {n: c for n, c in files.items() if n != "main.rego"}, "main.rego was signed and is missing"),
        (lambda files: {n: c for n, c in files.items() if n != SIGNATURES}, "has no .signatures.json"),
        (lambda files: files | {SIGNATURES: b"{}"}, "is no good"),
        (lambda files: files | {SIGNATURES: b"[" * 100_000}, "is no good"),
        (lambda files: files | {SIGNATURES: b'{"signatures": []}'}, "is no good"),
        (lambda files: files | {SIGNATURES: b'{"signatures": ["a.b.c"]}'}, "is no good"),
        (lambda files: files | {SIGNATURES: json.dumps({"signatures": 2 * _tokens(files)}).encode()}, "is no good"),
        (lambda files: files | {SIGNATURES: _altered(files)}, "is no good"),
    ],
)
def test_what_was_altered_does_not(spoil: Callable[[dict[str, bytes]], dict[str, bytes]], words: str) -> None:
    """A file changed, added or missing; a signature changed, doubled, malformed or missing."""
    private, checked = pair("ed25519")
    with pytest.raises(BundleError, match=words):
        signatures.check("b", spoil(made(private)), checked)


def _tokens(files: dict[str, bytes]) -> list[str]:
    return list(json.loads(files[SIGNATURES])["signatures"])


def _altered(files: dict[str, bytes]) -> bytes:
    head, payload, signature = _tokens(files)[0].split(".")
    return json.dumps({"signatures": [f"{head}.{payload[:-4]}AAAA.{signature}"]}).encode()


def test_another_key_is_no_good() -> None:
    """The token's key id does not choose the key: the settings do."""
    private, _ = pair("ed25519")
    _, other = pair("ed25519")
    with pytest.raises(BundleError, match="is no good"):
        signatures.check("b", made(private), other)


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_the_token_does_not_choose_the_algorithm(algorithm: str) -> None:
    """Neither unsigned nor signed with the public key as a shared secret."""
    private, checked = pair("rsa")
    _, payload, _ = _tokens(made(private))[0].split(".")
    head = base64.urlsafe_b64encode(json.dumps({"alg": algorithm}).encode()).rstrip(b"=").decode()
    seal = b"" if algorithm == "none" else hmac.digest(checked, f"{head}.{payload}".encode(), hashlib.sha256)
    token = f"{head}.{payload}.{base64.urlsafe_b64encode(seal).rstrip(b'=').decode()}"
    with pytest.raises(BundleError, match="is no good"):
        signatures.check("b", FILES | {SIGNATURES: json.dumps({"signatures": [token]}).encode()}, checked)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"secret",
        rsa.generate_private_key(65537, 1024)
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        ec.generate_private_key(ec.SECP384R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    ],
)
def test_unfit_keys_are_refused(pem: bytes) -> None:
    """No key, a shared secret, a short one, another curve."""
    with pytest.raises(BundleError, match="key"):
        signatures.fit_key("key", pem)
