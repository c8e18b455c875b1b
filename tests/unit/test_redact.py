"""Secrets out of results: nothing known survives, the rest is untouched, JSON stays JSON."""

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.call import Raw, Redacted, Verified
from gateway.core.errors import Tainted
from gateway.core.known import KnownValues
from gateway.core.redact import KNOWN_VALUE, SECRET_KEY, UNREADABLE, Bounds, Redactor
from gateway.core.secret_names import is_secret_name
from gateway.core.suspects import suspicion_of
from tests.at_once import at_once
from tests.evidence import lease, make_tool

SECRET = "Kx7-Qw9/Zp3+Vb5="
TOKEN = "not-a-token"  # the bearer token of tests/evidence.py
ENCODINGS = {
    "raw": lambda s: s,
    "hex": lambda s: s.encode().hex(),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "inside base64": lambda s: base64.b64encode(b"user:" + s.encode()).decode(),
    "reversed": lambda s: s[::-1],
    "spaced": " ".join,
    "zero width": "\u200b".join,
    "lines": lambda s: s[:5] + "\n" + s[5:],
    "percent": lambda s: "".join(f"%{byte:02X}" for byte in s.encode()),
}
SIMPLE = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | SIMPLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SIMPLE, inner, max_size=3),
    max_leaves=8,
)


def redact(value: Any, *secrets: str, body: bytes | None = None, bounds: Bounds | None = None) -> Redacted:
    """The result after redaction; ``body`` where its bytes matter."""
    text = body if body is not None else msgspec.json.encode(value)
    raw = Raw(lease(make_tool()), text, msgspec.json.decode(text))
    return at_once(Redactor(KnownValues(secrets or (SECRET,)), bounds).redact(Verified(raw)))


def text_result(text: str) -> dict[str, Any]:
    """A tool result of one text."""
    return {"content": [{"type": "text", "text": text}]}


def test_a_clean_result_keeps_its_bytes() -> None:
    """White space, key order and number lexemes of the upstream survive, and nothing is copied."""
    body = b'{ "content":[], "structuredContent":{"b": 1.10, "a": 1e2, "token_count": 3, "nextPageToken":"p2"} }'
    found = redact(None, body=body)
    assert found.body is body
    assert found.counts == {}


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS.keys())
def test_a_known_value_is_taken_out_in_any_encoding(encode: Any) -> None:
    """Out of texts, structured content, error texts, links, metadata, keys and embedded resources."""
    form = encode(SECRET)
    found = redact(
        {
            "content": [
                {"type": "text", "text": f"it is {form}."},
                {"type": "resource_link", "uri": f"https://example.com/?k={form}", "name": form},
                {"type": "resource", "resource": {"uri": "file:///x", "text": form}},
            ],
            "structuredContent": {"deep": [{form: form}]},
            "isError": True,
            "_meta": {"trace": form},
        }
    )
    assert form.encode() not in found.body
    assert json.dumps(form)[1:-1].encode() not in found.body
    assert found.counts == {"known_value": 7}
    assert found.value == json.loads(found.body)
    assert KNOWN_VALUE in found.value["content"][0]["text"]


def test_escapes_of_the_upstream_do_not_hide_a_value() -> None:
    r"""A value spelt in ``\u`` escapes, in JSON or in JSON inside JSON, is still the value."""
    spelt = "".join(f"\\u{ord(char):04x}" for char in SECRET)
    once = redact(None, body=b'{"content":[{"type":"text","text":"' + spelt.encode() + b'"}]}')
    assert once.value == text_result(KNOWN_VALUE)
    inner = '{"a": "' + spelt + '"}'
    twice = redact(text_result(inner))
    assert json.loads(twice.value["content"][0]["text"]) == {"a": KNOWN_VALUE}
    key = redact(None, body=rb'{"content":[],"structuredContent":{"p\u0061ssword":"x"}}')
    assert key.value["structuredContent"] == {"password": SECRET_KEY}


def test_the_callers_own_token_is_known() -> None:
    """A tool that echoes the caller's bearer token does not get it back to the model."""
    found = redact(text_result(f"Authorization: Bearer {TOKEN}"))
    assert found.value == text_result(f"Authorization: Bearer {KNOWN_VALUE}")


def test_numbers_can_be_secrets_too() -> None:
    """A known value of digits is found as a JSON number; other numbers keep their lexemes."""
    found = redact(None, "4929123412341234", body=b'{"content":[],"structuredContent":{"n":4929123412341234,"m":1.10}}')
    assert found.body == b'{"content":[],"structuredContent":{"n":"[redacted:known_value]","m":1.10}}'


def test_values_under_secret_names_are_taken_out() -> None:
    """Strings, numbers and lists of them; flags, nulls and what only looks similar stay."""
    found = redact(
        {
            "content": [],
            "structuredContent": {
                "password": "x", "apiKey": 5, "Set-Cookie": ["a=b", "c=d"], "client_secret": "", "token": None,
                "secret": True, "token_count": 7, "nextPageToken": "p2", "access_key_id": "AK", "author": "me",
                "user": {"accessToken": "y", "name": "n"},
            },
        }
    )  # fmt: skip
    assert found.value["structuredContent"] == {
        "password": SECRET_KEY, "apiKey": SECRET_KEY, "Set-Cookie": [SECRET_KEY, SECRET_KEY], "client_secret": "",
        "token": None, "secret": True, "token_count": 7, "nextPageToken": "p2", "access_key_id": "AK", "author": "me",
        "user": {"accessToken": SECRET_KEY, "name": "n"},
    }  # fmt: skip
    assert found.counts == {"secret_key": 5}


def test_a_schema_that_describes_a_password_is_left_alone() -> None:
    """An object under a secret name is walked; only members that hold the value itself are taken out."""
    schema = {"properties": {"password": {"type": "string", "description": "yours"}}}
    stored = {"db_password": {"value": "v", "rotated": "today"}}
    found = redact({"content": [], "structuredContent": {"schema": schema, "stored": stored}})
    assert found.value["structuredContent"]["schema"] == schema
    assert found.value["structuredContent"]["stored"] == {"db_password": {"value": SECRET_KEY, "rotated": "today"}}


def test_lists_of_named_values_are_understood() -> None:
    """``{"name": "DB_PASSWORD", "value": ...}`` is a secret, ``{"name": "HOME", "value": ...}`` is none."""
    env = [{"name": "DB_PASSWORD", "value": "x"}, {"name": "HOME", "value": "/root"}]
    found = redact({"content": [], "structuredContent": {"env": env}})
    assert found.value["structuredContent"]["env"] == [{"name": "DB_PASSWORD", "value": SECRET_KEY}, env[1]]


def test_texts_that_are_json_stay_json() -> None:
    """A text block holding JSON is walked as JSON, to a depth, and written back as JSON."""
    inner = json.dumps({"password": "x", "n": 1.50, "deeper": json.dumps({"token": SECRET})})
    found = redact(text_result(inner))
    walked = json.loads(found.value["content"][0]["text"])
    assert walked["password"] == SECRET_KEY
    assert json.loads(walked["deeper"]) == {"token": SECRET_KEY}
    assert '"n":1.5' in found.value["content"][0]["text"]


def test_a_duplicate_key_cannot_smuggle() -> None:
    """Of two equal keys, in the body or in a text, only the walked one is passed on."""
    outer = redact(None, body=b'{"content":[],"structuredContent":{"password":"hidden-one","password":""}}')
    assert b"hidden-one" not in outer.body
    inner = redact(text_result('{"password":"hidden-one","password":""}'))
    assert b"hidden-one" not in inner.body


def test_a_secret_that_is_the_structure_itself_withholds_the_result() -> None:
    """A known JSON document that comes back as structured content cannot be cut out: nothing is passed on."""
    key_file = '{"type":"service","id":"0123456789"}'
    with pytest.raises(Tainted) as caught:
        redact({"content": [], "structuredContent": json.loads(key_file)}, key_file)
    assert caught.value.cause_code == "redaction_failed"


def test_redacted_keys_do_not_collide() -> None:
    """Two keys that both hold a secret stay two members."""
    found = redact({"content": [], "structuredContent": {SECRET: 1, SECRET[::-1]: 2, SECRET.encode().hex(): 3}})
    assert list(found.value["structuredContent"].values()) == [1, 2, 3]


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        ({"content": [], "structuredContent": {"password": list(range(50))}}, Bounds(hits=10)),
        ({"content": [], "structuredContent": {"password": "x", "n": list(range(50))}}, Bounds(nodes=20)),
        ({"content": [], "structuredContent": {"password": "x", "long": "y" * 500}}, Bounds(bytes=100)),
    ],
)
def test_work_is_bounded(value: Any, bounds: Bounds) -> None:
    """Too many values, secrets or bytes: the result is withheld."""
    with pytest.raises(Tainted) as caught:
        redact(value, bounds=bounds)
    assert caught.value.cause_code == "redaction_bound"


def test_nested_texts_are_bounded() -> None:
    """JSON in JSON in JSON ... is withheld beyond a few levels, and so is endless nesting."""
    text = json.dumps({"password": "x"})
    for _ in range(6):
        text = json.dumps([text])
    deep = "[" * 100_000 + '"password"' + "]" * 100_000
    for hostile in (text, deep):
        with pytest.raises(Tainted) as caught:
            redact(text_result(hostile))
        assert caught.value.cause_code == "redaction_bound"


def test_bodies_that_cannot_be_read_are_withheld() -> None:
    """A body that nests without end, or holds a number no float can, is withheld once it must be walked."""
    redactor = Redactor(KnownValues([SECRET]))
    deep = b'{"content":' + b"[" * 100_000 + b'"' + SECRET.encode() + b'"' + b"]" * 100_000 + b"}"
    for body, cause in ((deep, "redaction_bound"), (b'{"token":"x","n":1e999}', "redaction_failed")):
        with pytest.raises(Tainted) as caught:
            at_once(redactor.redact(Verified(Raw(lease(make_tool()), body, {}))))
        assert caught.value.cause_code == cause
    with pytest.raises(Tainted):
        at_once(redactor.redact(Verified(Raw(lease(make_tool()), b'{"token":NaN}', {}))))


def test_text_that_is_almost_json_is_text() -> None:
    """A brace at the start promises nothing."""
    assert redact(text_result('{"password": NaN, ' + SECRET)).value == text_result('{"password": NaN, ' + KNOWN_VALUE)
    assert redact(text_result('{"password": NaN}')).counts == {}


def test_a_known_value_and_the_callers_token_may_overlap() -> None:
    """What both claim is one place."""
    value = "token-and-more-of-it"
    redactor = Redactor(KnownValues([value]))
    for _ in range(2):
        body = msgspec.json.encode(text_result("a not-a-token-and-more-of-it b"))
        found = at_once(redactor.redact(Verified(Raw(lease(make_tool()), body, {}))))
        assert found.value == text_result(f"a {KNOWN_VALUE} b")


def test_log_lines_are_cleaned_by_the_same_engine() -> None:
    """Known values and secret-named members leave log lines; nothing is ever raised."""
    redactor = Redactor(KnownValues([SECRET]), Bounds(bytes=300))
    assert redactor.text("plain line") == "plain line"
    assert redactor.text(f"sent {SECRET}") == f"sent {KNOWN_VALUE}"
    assert redactor.text('{"password": "x"}') == json.dumps({"password": SECRET_KEY}, separators=(",", ":"))
    assert redactor.text("\ud800 " + SECRET) == "\ud800 " + KNOWN_VALUE
    assert redactor.text(SECRET + "x" * 300) == UNREADABLE
    assert Redactor(KnownValues([SECRET]), Bounds(nodes=1)).text('{"a": ["password"], "password": "x"}') == UNREADABLE


def test_tokens_of_many_callers_are_not_kept_for_ever() -> None:
    """The cache of compiled caller tokens is bounded; one too short to be a token is ignored."""
    redactor = Redactor(KnownValues())
    for number in range(300):
        redactor._compiled(f"caller-token-{number}")
    assert len(redactor._tokens) == 256
    assert redactor._compiled("x").values == frozenset()


@pytest.mark.parametrize(
    "name",
    ["password", "PASSWORD", "userPassword", "db_password", "password2", "new-password", "passwd", "pwd", "secret",
     "clientSecret", "token", "accessToken", "github_token", "X-Amz-Security-Token", "api_key", "apikey", "APIKey",
     "x-api-key", "authorization", "Proxy-Authorization", "privateKey", "PRIVATE_KEY", "aws_secret_access_key",
     "Set-Cookie", "cookie", "credentials", "passphrase", "secret_id", "jwt", "myaccesstoken"],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    """Names that say secret, in every usual spelling."""
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "token_count", "tokens", "max_tokens", "nextPageToken", "next_page_token", "continuationToken", "page_token",
     "progressToken", "pad_token", "access_key_id", "private_key_id", "public_key", "key", "keys", "author",
     "secretary", "policy", "token_type", "compass", "monkey", "primary_key", "secret_name", "1234"],
)  # fmt: skip
def test_names_that_only_look_similar(name: str) -> None:
    """Names that mark places, counts or identifiers."""
    assert not is_secret_name(name)


@given(st.sampled_from(list(ENCODINGS.values())), SIMPLE, SIMPLE, JSON)
def test_nothing_known_survives(encode: Any, before: str, after: str, beside: Any) -> None:
    """In any encoding, among anything: no known value is left, the output is JSON, a second pass changes nothing."""
    form = encode(SECRET)
    inner = json.dumps({"k": before + form + after, "beside": beside})
    value = {"content": [{"type": "text", "text": inner}], "structuredContent": {"x": beside, "y": [before + form]}}
    found = redact(None, body=json.dumps(value).encode())
    again = redact(None, body=found.body)
    assert form not in json.dumps(found.value, ensure_ascii=False)
    assert found.value == json.loads(found.body)
    assert again.body == found.body
    assert again.counts == {}


@given(JSON)
@example({"password": ["a", {"value": "b"}], "secret": {"value": 1.5}})
@example({"\u00a0": 1.10, "passwordé ": "x"})
def test_walked_and_scanned_results_agree(beside: Any) -> None:
    """What the quick scan calls clean a full walk leaves alone, and what is redacted once is clean."""
    value = {"content": [], "structuredContent": {"x": beside}}
    quick = redact(value)
    walked = redact({**value, "_meta": {"note": SECRET}})
    assert walked.value["structuredContent"] == quick.value["structuredContent"]
    assert redact(quick.value).counts == {}


@given(
    st.sampled_from(
        ["passWord", "PWD", "app_secret", "Token2", "jwt", "X-API-Key", "Auth header", "Credential", "cookie"]
    )
)
@example("authorization")
def test_small_and_large_results_are_looked_through_alike(name: str) -> None:
    """A name of a secret is found in either; so is one in letters that are written as escapes, and no other name is."""
    small = {"structuredContent": {name: "x", "id": "y"}}
    for value in (small, {**small, "padding": "-" * 2000}):
        found = redact(value)
        assert found.value["structuredContent"] == {name: SECRET_KEY, "id": "y"}
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in name)
    found = redact(None, body=b'{"structuredContent":{"%b":"x"}}' % escaped.encode())
    assert found.value["structuredContent"] == {name: SECRET_KEY}


@given(st.dictionaries(st.sampled_from(["id", "token_count", "name", "n"]), JSON, max_size=4))
def test_unrelated_data_is_untouched(beside: dict[str, Any]) -> None:
    """Redacting one member leaves all others as they were, lexemes included."""
    text = json.dumps(beside)
    found = redact(None, body=b'{"content":[],"structuredContent":{"secret":"x","beside":' + text.encode() + b"}}")
    assert found.value["structuredContent"]["secret"] == SECRET_KEY
    if not any(is_secret_name(name) for name in _names(beside)):
        assert found.value["structuredContent"]["beside"] == json.loads(text)


def _names(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {name for item in value.values() for name in _names(item)} | _strings(value)
    return {name for item in value for name in _names(item)} if isinstance(value, list) else set()


def _strings(value: dict[str, Any]) -> set[str]:
    return {item for item in value.values() if isinstance(item, str)}


@pytest.mark.requirement("REDACT-2")
@pytest.mark.parametrize("held", [SECRET, SECRET.encode().hex(), SECRET[::-1], json.dumps({"deep": SECRET})])
def test_a_text_that_holds_a_known_value_is_told(held: str) -> None:
    """In any encoding and at any depth; a secret-named member alone is no known value."""
    redactor = Redactor(KnownValues([SECRET]))
    assert at_once(redactor.holds(json.dumps({"note": [held]}).encode()))
    assert not at_once(redactor.holds(b'{"password": "hunter-2-something"}'))
    assert not at_once(redactor.holds(b'{"note": "nothing"}'))


def test_what_cannot_be_told_counts_as_held() -> None:
    """A text that is too large to be walked and looks as if it held one is not let through."""
    redactor = Redactor(KnownValues([SECRET]), Bounds(nodes=1))
    assert at_once(redactor.holds(json.dumps([SECRET, "a", "b"]).encode()))


_PIECES = (
    *("pass", "word", "pwd", "phrase", "PWD", "Secret", "_id", "token", "JWT", "key", "s", "Authorization", "auth"),
    *("-header", "credential", "Cookie", '"', ":", "\\", "\\u00e9", "\\x41", "\u200b", "\u212aey", "x", " ", "{", "}"),
)


@given(st.lists(st.sampled_from(_PIECES), max_size=10).map("".join))
@example('"\\u0070assword"')
@example('{"pa\u200bss":"x"}')
def test_the_short_look_misses_nothing_that_the_scan_finds(text: str) -> None:
    """A short body in which the quick look sees no mark holds nothing that the scan would suspect."""
    body = text.encode()
    padded = body + b" " * 8192  # long enough to be scanned whatever it holds
    assert suspicion_of(body) is suspicion_of(padded)
