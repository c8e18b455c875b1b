"""What servers say of the tokens that they want, read as it is meant."""

import subprocess
import sys

import pytest

from gateway.core.mcpwire.challenges import bearer, further, scopes


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], {}),
        (["Basic realm=x"], {}),
        (["Bearer"], {}),
        (["bearer Scope=a, resource_metadata=b"], {"scope": "a", "resource_metadata": "b"}),
        (['Digest x="y", Bearer scope="a b",error="c"'], {"scope": "a b", "error": "c"}),
        (["Basic realm=x", 'Bearer a="\\"b\\\\"'], {"a": '"b\\'}),
        (['Bearer a="1", a="2"'], {"a": "1"}),
        (['Bearer a="open'], {}),
        (['Bearer a=1, Basic realm="x"'], {"a": "1"}),
    ],
)
def test_a_challenge_is_read_as_it_is_meant(values: list[str], found: dict[str, str]) -> None:
    """Quoted and plain, in any case, among those of other schemes; the first of a name counts."""
    assert bearer(values) == found


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], ()),
        (["a", "b:c", "a"], ("a", "b:c")),
        (["x" * 256], ("x" * 256,)),
        (["x" * 257], None),
        (['a"b'], None),
        (["a\\b"], None),
        (["\u00e9"], None),
        ([""], None),
        (["a b"], None),
        ([str(one) for one in range(64)], tuple(str(one) for one in range(64))),
        ([str(one) for one in range(65)], None),
    ],
)
def test_scopes_are_names(names: list[str], found: tuple[str, ...] | None) -> None:
    """Each once; what could be none makes all of them unusable."""
    assert scopes(names) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ('Bearer error="insufficient_scope", scope="a b"', ("a", "b")),
        ('Bearer error="insufficient_scope"', ()),
        ('Bearer error="invalid_token", scope="a"', ()),
        ('Bearer error="insufficient_scope", scope="\u00e9"', ()),
        ("Basic realm=x", ()),
        ("", ()),
    ],
)
def test_a_refusal_says_what_a_token_lacks(value: str, found: tuple[str, ...]) -> None:
    """For that reason only, and by names."""
    assert further([value]) == found


HOSTILE = {
    "blanks": 'Bearer scope=a error="insufficient_scope"' + " " * 60_000 + "!",
    "a name without end": "Bearer " + "a" * 60_000 + " " * 60_000 + "!",
    "commas": 'Bearer a="1"' + " ," * 30_000 + "!",
    "quotes": 'Bearer a="' + '\\"' * 30_000,
    "schemes": "Bearer, " * 10_000 + "Bearer",
}


def test_no_challenge_takes_long_to_read() -> None:
    """Any upstream may send one, and it is read where all calls are served: a minute for one would stop them all."""
    said = list(HOSTILE.values())
    script = f"from gateway.core.mcpwire.challenges import further\nfor one in {said!r}: further([one])"
    subprocess.run([sys.executable, "-"], input=script.encode(), check=True, timeout=30)
