"""``:name`` parameters as PostgreSQL's ``$1``."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.sql.placeholders import numbered


@pytest.mark.parametrize(
    ("statement", "text", "names"),
    [
        ("SELECT :a, :b, :a", "SELECT $1, $2, $1", ("a", "b")),
        ("SELECT :a::int, x::text", "SELECT $1::int, x::text", ("a",)),
        ("SELECT ':a', 'it''s :a', :b", "SELECT ':a', 'it''s :a', $1", ("b",)),
        (r"SELECT E'\':a', e'\\', :b", r"SELECT E'\':a', e'\\', $1", ("b",)),
        (r"SELECT '\', :b", r"SELECT '\', $1", ("b",)),
        (r"SELECT some'\', :b", r"SELECT some'\', $1", ("b",)),
        ('SELECT ":a", "x""":b', 'SELECT ":a", "x"""$1', ("b",)),
        ("SELECT $$ :a $$, $x$ $$ :a $x$, :b", "SELECT $$ :a $$, $x$ $$ :a $x$, $1", ("b",)),
        ("SELECT a$b$ :a", "SELECT a$b$ $1", ("a",)),
        ("SELECT 1 -- :a\n, :b", "SELECT 1 -- :a\n, $1", ("b",)),
        ("SELECT /* :a /* :a */ :a */ :b", "SELECT /* :a /* :a */ :a */ $1", ("b",)),
        ("SELECT a[1 : n], f(x := :b)", "SELECT a[1 : n], f(x := $1)", ("b",)),
        ("SELECT 1 : 2, :é, :1", "SELECT 1 : 2, :é, :1", ()),
        ("SELECT :a_1+:a_2", "SELECT $1+$2", ("a_1", "a_2")),
        ("", "", ()),
    ],
)
def test_only_parameters_are_numbered(statement: str, text: str, names: tuple[str, ...]) -> None:
    """Strings, quoted names, dollar quotes, comments, casts and assignments are left as they are."""
    found = numbered(statement)
    assert (found.text, found.names) == (text, names)


@pytest.mark.parametrize(
    "statement", ["SELECT 'a", 'SELECT "a', "SELECT E'a\\'", "/* /* */", "SELECT $$ a", "SELECT $1"]
)
def test_what_has_no_end_or_another_kind_of_parameter_is_refused(statement: str) -> None:
    """A quote or comment that is open, and positional parameters."""
    with pytest.raises(ValueError, match=r"end|written :name"):
        numbered(statement)


@given(st.text(alphabet="':\"$-/*\\eEa1 \n[]=x", max_size=40))
def test_nothing_but_parameters_changes(statement: str) -> None:
    """Putting the names back gives the very statement, whatever it is."""
    try:
        found = numbered(statement)
    except ValueError:
        return
    parts = iter(re.findall(r"\$[0-9]+|[^$]+|\$", found.text))
    restored = "".join(
        f":{found.names[int(part[1:]) - 1]}" if re.fullmatch(r"\$[0-9]+", part) else part for part in parts
    )
    assert restored == statement
