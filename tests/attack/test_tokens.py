"""Hostile tokens: each is refused as ``Unauthenticated`` with its cause, and never by any other exception."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import OKPKey

from gateway.adapters.identity import Cause, Grant, LocalIdentity, LocalIssuer, Trust
from gateway.core.errors import Unauthenticated
from tests.clock import StepClock

KEY = Ed25519PrivateKey.generate()
OTHER_KEY = Ed25519PrivateKey.generate()
TRUST = Trust("urn:ostiary:local", frozenset({"ostiary"}))
CLOCK = StepClock()
NOW_S = CLOCK.now_us() // 1_000_000
IDENTITY = LocalIdentity(CLOCK, TRUST, [KEY.public_key()])
ISSUER = LocalIssuer(CLOCK, TRUST, KEY)
KID = OKPKey.import_key(KEY.public_key()).thumbprint()
HEADER = {"alg": "Ed25519", "typ": "at+jwt", "kid": KID}
CLAIMS: dict[str, Any] = {
    "iss": TRUST.issuer,
    "sub": "alice",
    "aud": ["ostiary"],
    "iat": NOW_S,
    "exp": NOW_S + 60,
    "jti": "j1",
    "scope": "tools",
    "agent": "ap-agent",
}
DROP = object()


def b64(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(header: bytes, payload: bytes, key: Ed25519PrivateKey = KEY) -> str:
    """A JWS over exactly these bytes."""
    signed = f"{b64(header)}.{b64(payload)}"
    return f"{signed}.{b64(key.sign(signed.encode()))}"


def token(header: dict[str, Any] | None = None, claims: dict[str, Any] | None = None) -> str:
    """A well-signed token with some header fields and claims changed or dropped."""
    merged = [
        {name: value for name, value in {**base, **(change or {})}.items() if value is not DROP}
        for base, change in ((HEADER, header), (CLAIMS, claims))
    ]
    return sign(json.dumps(merged[0]).encode(), json.dumps(merged[1]).encode())


def cause_of(text: str) -> str:
    """How the token is refused; fails the test when it is not."""
    with pytest.raises(Unauthenticated) as refusal:
        IDENTITY.verify(text)
    return refusal.value.cause_code


def test_the_unchanged_token_is_good() -> None:
    """The base all attacks start from is accepted, so that each refusal has the one stated reason."""
    assert IDENTITY.verify(token()).agent == "ap-agent"
    assert IDENTITY.verify(token({"alg": "EdDSA", "typ": "application/AT+jwt"})).user == "alice"
    assert IDENTITY.verify(token(claims={"aud": "ostiary", "nbf": NOW_S + 30, "iat": NOW_S + 30})).user == "alice"


HEADERS: list[tuple[str, dict[str, Any], Cause]] = [
    ("none", {"alg": "none"}, Cause.SIGNATURE),
    ("None", {"alg": "NonE"}, Cause.SIGNATURE),
    ("hs256", {"alg": "HS256"}, Cause.SIGNATURE),
    ("es256", {"alg": "ES256"}, Cause.SIGNATURE),
    ("ed448", {"alg": "Ed448"}, Cause.SIGNATURE),
    ("alg-list", {"alg": ["Ed25519"]}, Cause.MALFORMED),
    ("alg-missing", {"alg": DROP}, Cause.MALFORMED),
    ("typ-jwt", {"typ": "JWT"}, Cause.TYPE),
    ("typ-id", {"typ": "id+jwt"}, Cause.TYPE),
    ("typ-missing", {"typ": DROP}, Cause.MALFORMED),
    ("typ-null", {"typ": None}, Cause.MALFORMED),
    ("kid-missing", {"kid": DROP}, Cause.MALFORMED),
    ("kid-unknown", {"kid": "x" * 43}, Cause.SIGNATURE),
    ("kid-path", {"kid": "../../../../dev/null"}, Cause.SIGNATURE),
    ("kid-sql", {"kid": "' OR 1=1 --"}, Cause.SIGNATURE),
    ("kid-url", {"kid": "https://attacker.example/jwks.json"}, Cause.SIGNATURE),
    ("kid-empty", {"kid": ""}, Cause.SIGNATURE),
    ("kid-number", {"kid": 0}, Cause.MALFORMED),
    ("kid-object", {"kid": {"$ne": None}}, Cause.MALFORMED),
    ("jku", {"jku": "https://attacker.example/jwks.json"}, Cause.MALFORMED),
    ("jwk", {"jwk": OKPKey.import_key(OTHER_KEY.public_key()).as_dict()}, Cause.MALFORMED),
    ("x5u", {"x5u": "https://attacker.example/cert"}, Cause.MALFORMED),
    ("x5c", {"x5c": ["AAAA"]}, Cause.MALFORMED),
    ("crit", {"crit": ["exp"], "exp": 0}, Cause.MALFORMED),
    ("b64-false", {"b64": False, "crit": ["b64"]}, Cause.MALFORMED),
    ("zip", {"zip": "DEF"}, Cause.MALFORMED),
    ("cty-nested", {"cty": "JWT"}, Cause.MALFORMED),
    ("jwe", {"alg": "dir", "enc": "A256GCM"}, Cause.MALFORMED),
]


@pytest.mark.parametrize(("change", "cause"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS])
def test_hostile_headers(change: dict[str, Any], cause: Cause) -> None:
    """A well-signed token whose header asks for another algorithm, key or reading is refused."""
    assert cause_of(token(header=change)) == cause


CLAIM_ROWS: list[tuple[str, dict[str, Any], Cause]] = [
    ("expired", {"exp": NOW_S - 1}, Cause.EXPIRED),
    ("expires-now", {"exp": NOW_S}, Cause.EXPIRED),
    ("exp-zero", {"exp": 0}, Cause.EXPIRED),
    ("exp-missing", {"exp": DROP}, Cause.CLAIMS),
    ("exp-text", {"exp": str(NOW_S + 60)}, Cause.CLAIMS),
    ("exp-true", {"exp": True}, Cause.CLAIMS),
    ("exp-float", {"exp": NOW_S + 60.5}, Cause.CLAIMS),
    ("exp-negative", {"exp": -1}, Cause.CLAIMS),
    ("exp-huge", {"exp": 10**30}, Cause.CLAIMS),
    ("exp-null", {"exp": None}, Cause.CLAIMS),
    ("nbf-future", {"nbf": NOW_S + 31}, Cause.CLAIMS),
    ("iat-future", {"iat": NOW_S + 31}, Cause.CLAIMS),
    ("iat-after-exp", {"iat": NOW_S + 20, "exp": NOW_S + 10}, Cause.CLAIMS),
    ("aud-other", {"aud": ["https://elsewhere.example"]}, Cause.AUDIENCE),
    ("aud-prefix", {"aud": "ostiary.example"}, Cause.AUDIENCE),
    ("aud-empty", {"aud": []}, Cause.AUDIENCE),
    ("aud-null", {"aud": None}, Cause.AUDIENCE),
    ("aud-object", {"aud": {"ostiary": 1}}, Cause.AUDIENCE),
    ("aud-nested", {"aud": [["ostiary"]]}, Cause.AUDIENCE),
    ("aud-mixed", {"aud": ["ostiary", 1]}, Cause.AUDIENCE),
    ("aud-many", {"aud": ["ostiary"] * 17}, Cause.AUDIENCE),
    ("aud-missing", {"aud": DROP}, Cause.CLAIMS),
    ("iss-other", {"iss": "urn:other"}, Cause.ISSUER),
    ("iss-slash", {"iss": "urn:ostiary:local/"}, Cause.ISSUER),
    ("iss-list", {"iss": [TRUST.issuer]}, Cause.ISSUER),
    ("sub-missing", {"sub": DROP}, Cause.CLAIMS),
    ("sub-empty", {"sub": ""}, Cause.CLAIMS),
    ("sub-number", {"sub": 7}, Cause.CLAIMS),
    ("sub-joiner", {"sub": "alice|ap-agent"}, Cause.CLAIMS),
    ("sub-newline", {"sub": "alice\n"}, Cause.CLAIMS),
    ("sub-lookalike", {"sub": "аlice"}, Cause.CLAIMS),  # noqa: RUF001 - a Cyrillic letter
    ("sub-bidi", {"sub": "alice\u202e"}, Cause.CLAIMS),
    ("agent-null", {"agent": None}, Cause.CLAIMS),
    ("agent-list", {"agent": ["a"]}, Cause.CLAIMS),
    ("agent-space", {"agent": "ap agent"}, Cause.CLAIMS),
    ("jti-missing", {"jti": DROP}, Cause.CLAIMS),
    ("jti-empty", {"jti": ""}, Cause.CLAIMS),
    ("scope-missing", {"scope": DROP}, Cause.CLAIMS),
    ("scope-list", {"scope": ["tools", "admin"]}, Cause.CLAIMS),
    ("groups-text", {"groups": "finance"}, Cause.CLAIMS),
    ("groups-object", {"groups": {"finance": True}}, Cause.CLAIMS),
    ("groups-many", {"groups": ["g"] * 257}, Cause.CLAIMS),
    ("run-number", {"run": 1}, Cause.CLAIMS),
    ("cnf", {"cnf": {"jkt": "x"}}, Cause.CLAIMS),
    ("act", {"act": {"sub": "bob"}}, Cause.CLAIMS),
    ("unknown", {"is_admin": True}, Cause.CLAIMS),
    ("case-collision", {"SUB": "root"}, Cause.MALFORMED),
]


@pytest.mark.parametrize(("change", "cause"), [row[1:] for row in CLAIM_ROWS], ids=[row[0] for row in CLAIM_ROWS])
def test_hostile_claims(change: dict[str, Any], cause: Cause) -> None:
    """A well-signed token whose claims are missing, foreign or of the wrong shape is refused."""
    assert cause_of(token(claims=change)) == cause


def test_scopes_nobody_knows_give_nothing() -> None:
    """Unknown words in scope are dropped; an empty scope is a token that may do nothing."""
    assert IDENTITY.verify(token(claims={"scope": "tools openid ADMIN  root"})).scopes == {"tools"}
    assert IDENTITY.verify(token(claims={"scope": ""})).scopes == frozenset()


def test_a_forged_signature_is_refused() -> None:
    """Another key under our kid, a flipped bit, a zero signature and a swapped body all fail."""
    head, body, signature = token().split(".")
    other = token(claims={"sub": "mallory"}).split(".")[1]
    forged = sign(json.dumps(HEADER).encode(), json.dumps(CLAIMS).encode(), OTHER_KEY)
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    for text in (forged, f"{head}.{body}.{flipped}", f"{head}.{body}.{'A' * 86}", f"{head}.{other}.{signature}"):
        assert cause_of(text) == Cause.SIGNATURE


def test_the_public_key_is_no_hmac_secret() -> None:
    """HS256 keyed with the public key, in each form an attacker has it, is refused."""
    public = KEY.public_key()
    forms = [
        public.public_bytes_raw(),
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    ]
    for secret in forms:
        signed = f"{b64(json.dumps({**HEADER, 'alg': 'HS256'}).encode())}.{b64(json.dumps(CLAIMS).encode())}"
        mac = hmac.digest(secret, signed.encode(), hashlib.sha256)
        assert cause_of(f"{signed}.{b64(mac)}") in {Cause.MALFORMED, Cause.SIGNATURE}
        assert cause_of(f"{signed}.{b64(mac + mac)}") == Cause.SIGNATURE


def test_an_unsigned_token_is_refused() -> None:
    """Algorithm none with no signature, as in the classic attack, is not even in form."""
    header = b64(json.dumps({"alg": "none"}).encode())
    assert cause_of(f"{header}.{b64(json.dumps(CLAIMS).encode())}.") == Cause.MALFORMED


def test_a_claim_said_twice_is_nobodys_word() -> None:
    """Duplicate names in claims or header are refused, though every JSON parser would pick one."""
    claims = json.dumps(CLAIMS)[:-1] + ', "sub": "root"}'
    header = json.dumps(HEADER)[:-1] + ', "alg": "none"}'
    assert cause_of(sign(json.dumps(HEADER).encode(), claims.encode())) == Cause.MALFORMED
    assert cause_of(sign(header.encode(), json.dumps(CLAIMS).encode())) == Cause.MALFORMED


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"7",
        b"{",
        b"\xff\xfe",
        b"[" * 3000,
        b'{"exp": NaN}',
        b'{"a":' * 900,
        b"9" * 5000,
    ],
    ids=lambda payload: repr(payload[:12]),
)
def test_a_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    """Well signed, but the payload is empty, no JSON, too deep or no object."""
    assert cause_of(sign(json.dumps(HEADER).encode(), payload)) == Cause.MALFORMED


def test_a_token_inside_a_token_is_refused() -> None:
    """A nested JWT is not unpacked."""
    assert cause_of(sign(json.dumps(HEADER).encode(), token().encode())) == Cause.MALFORMED


SHAPES: dict[str, Callable[[str], str]] = {
    "bearer": lambda good: f"Bearer {good}",
    "space": lambda good: f" {good}",
    "newline": lambda good: f"{good}\n",
    "nul": lambda good: f"{good}\x00",
    "padding": lambda good: f"{good}==",
    "four-parts": lambda good: f"{good}.AAAA",
    "five-parts": lambda good: f"{good}.AAAA.AAAA",
    "two-parts": lambda good: good.rpartition(".")[0],
    "wide-dots": lambda good: good.replace(".", "\uff0e"),
    "surrogate": lambda good: f"{good}\ud800",
    "huge": lambda good: good + "A" * 9000,
    "huge-one-part": lambda _: "A" * 2_000_000,
    "many-dots": lambda _: "." * 8000,
    "base64-plus": lambda good: good.replace("-", "+").replace("_", "/") + "+",
    "loose-bits": lambda good: good[:-1] + chr(ord(good[-1]) + 1),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_good_token_in_a_bad_shape_is_refused(shape: str) -> None:
    """White space, padding, extra parts, other alphabets, loose padding bits: one token has one spelling."""
    assert cause_of(SHAPES[shape](token())) == Cause.MALFORMED


def test_no_token_is_its_own_cause() -> None:
    """An empty credential is ``missing``."""
    assert cause_of("") == Cause.MISSING


def test_bad_tokens_do_not_push_good_ones_out_of_memory() -> None:
    """Ten thousand refused tokens leave the cache as it was."""
    identity = LocalIdentity(CLOCK, TRUST, [KEY.public_key()])
    identity.verify(token())
    for number in range(10_000):
        with pytest.raises(Unauthenticated):
            identity.verify(f"{number}.a.b")
    assert len(identity._good) == 1


GOOD = ISSUER.issue(ISSUER.principal(Grant("alice", "ap-agent", groups=frozenset({"finance"}))))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200) | st.from_regex(r"[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{86}", fullmatch=True))
def test_fuzz_any_text_is_refused_cleanly(text: str) -> None:
    """No text makes anything but ``Unauthenticated`` come out."""
    assert cause_of(text) in list(Cause)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.characters(max_codepoint=0x2FF))
def test_fuzz_one_changed_character_is_refused(place: int, character: str) -> None:
    """Changing any one character of a good token makes it bad."""
    if GOOD[place] != character:
        assert cause_of(GOOD[:place] + character + GOOD[place + 1 :]) in list(Cause)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.sampled_from([*CLAIMS, "nbf", "groups", "run", "x"]), JSON, min_size=1, max_size=4),
    st.dictionaries(st.sampled_from([*HEADER, "crit", "b64"]), JSON, max_size=2),
)
def test_fuzz_well_signed_nonsense_is_judged_not_crashed_on(claims: dict[str, Any], header: dict[str, Any]) -> None:
    """Arbitrary JSON in any claim or header field either verifies as a full principal or is ``Unauthenticated``."""
    with suppress(Unauthenticated):
        principal = IDENTITY.verify(token(header, claims))
        assert principal.user
        assert principal.issuer == TRUST.issuer
