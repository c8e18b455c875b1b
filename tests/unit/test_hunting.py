"""The hunt bites: what is planted is found, in every spelling, split, packed, in a database; and it tells no tales."""

import gzip
import json
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.hunting.places import files
from tests.hunting.search import Allowed, Hunt, Secret, forbidden
from tests.hunting.spellings import SPELLINGS, betrayals

VALUE = "Pl4nt3d+b3tw33n/th3'l1n3s&m0r3"
SECRET = Secret("planted", VALUE.encode())
BYTES = Secret("key", bytes(range(200, 232)))
NOISE = bytes(range(256)) * 8
HIDDEN: dict[str, Callable[[bytes], bytes]] = {
    "as it is": bytes,
    "in gzip": gzip.compress,
    "in zlib": zlib.compress,
    "in gzip, in the middle": lambda text: NOISE[:500] + gzip.compress(text) + NOISE,
    "in lines": lambda text: b"\n".join(text[at : at + 5] for at in range(0, len(text), 5)),
    "in NULs": lambda text: b"\0".join(text[at : at + 1] for at in range(len(text))),
    "in JSON": lambda text: json.dumps({"x": text.decode("latin-1")}).encode(),
    "in JSON in JSON": lambda text: json.dumps(json.dumps([text.decode("latin-1")])).encode(),
}


@pytest.mark.parametrize("hidden", sorted(HIDDEN))
def test_each_spelling_is_found_however_it_is_packed(hidden: str) -> None:
    """Every way in which a secret is betrayed, between other bytes."""
    hunt = Hunt([SECRET])
    for spelling, needles in betrayals(SECRET.value).items():
        if "JSON" in hidden and spelling in {"utf-16", "utf-32"}:
            continue  # bytes that are no text are not in JSON
        for needle in needles:
            found = hunt.through({"there": HIDDEN[hidden](b"before " + needle + b" after"), "elsewhere": NOISE})
            assert {find.place for find in found} == {"there"}, (spelling, needle)


@pytest.mark.parametrize("spelling", sorted(SPELLINGS))
def test_what_upstreams_say_is_found(spelling: str) -> None:
    """The spellings that the redactor promises to find are found by the hunt, too, or it would prove nothing."""
    assert Hunt([SECRET]).through({"there": SPELLINGS[spelling](VALUE).encode()})


@pytest.mark.parametrize("half", [slice(0, 16), slice(15, None)])
def test_half_of_a_secret_is_found(half: slice) -> None:
    """As where a buffer cut it in two; a quarter is not."""
    assert Hunt([SECRET]).through({"there": b"x" + SECRET.value[half] + b"x"})
    assert Hunt([SECRET]).through({"there": SECRET.value[:8]}) == []


def test_keys_that_are_bytes_are_found() -> None:
    """Raw, and in every text that holds bytes."""
    hunt = Hunt([BYTES])
    for needles in betrayals(BYTES.value).values():
        for needle in needles:
            assert hunt.through({"there": NOISE[:100] + needle + NOISE[:100]}), needle
    assert hunt.through({"there": NOISE[:190]}) == []


def test_what_stands_in_a_database_or_its_journal_is_found(tmp_path: Path) -> None:
    """A row, and a row that is written ahead and was never checkpointed."""
    with closing(sqlite3.connect(tmp_path / "log.db")) as database:
        database.execute("pragma journal_mode = wal")
        database.execute("create table rows (text text)")
        database.execute("insert into rows values (?)", (f"a {VALUE} b",))
        database.commit()
        ahead = Hunt([SECRET]).through(files(tmp_path, "state"))
        assert {find.place for find in ahead} == {"state/log.db-wal"}
        database.execute("pragma wal_checkpoint(truncate)")
        found = Hunt([SECRET]).through(files(tmp_path, "state"))
        assert {find.place for find in found} == {"state/log.db"}


def test_an_exemption_is_for_its_secret_and_its_place_only() -> None:
    """Neither another secret there, nor this one elsewhere."""
    other = Secret("other", b"0th3r-s3cr3t-0f-th1s")
    exempt = [Allowed("planted", "keys/.*", "it is kept there")]
    both = SECRET.value + other.value
    found = forbidden(Hunt([SECRET, other]).through({"keys/one": both, "log": SECRET.value}), exempt)
    assert {(find.secret, find.place) for find in found} == {("other", "keys/one"), ("planted", "log")}
