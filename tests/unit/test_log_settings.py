"""``[log]``: witnesses by name, key and address, and a quorum of them."""

from pathlib import Path

import pytest

from gateway.core.cosigning import CosignerKey
from gateway.settings import SettingsError
from gateway.settings import file as settings_file
from gateway.settings.log import LogSection
from tests.liars import vkey

OTHER = CosignerKey("o.example/w", bytes(32)).text


def witness(name: str = "one", url: str = "https://w.example", key: str | None = None) -> str:
    """A section."""
    return f'[[log.witness]]\nname = "{name}"\nurl = "{url}"\nvkey = "{key or vkey()}"\n'


def loaded(folder: Path, *sections: str) -> LogSection:
    """The settings of a file."""
    (folder / "gateway.toml").write_text('state = "state"\n' + "".join(sections))
    return settings_file.load(folder / "gateway.toml").log


def test_the_quorum_is_all_of_them_unless_said(tmp_path: Path) -> None:
    """None without witnesses, all of them with some, or as many as is said."""
    assert loaded(tmp_path).threshold == 0
    two = (witness(), witness("two", "http://127.0.0.1:9/w", OTHER))
    assert loaded(tmp_path, *two).threshold == 2
    some = loaded(tmp_path, "[log]\nquorum = 1\n", *two)
    assert (some.threshold, [one.name for one in some.witness]) == (1, ["one", "two"])


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ((witness(url="http://w.example"),), "url"),
        ((witness(url="ftp://w.example"),), "url"),
        ((witness(name="a b"),), "name"),
        ((witness(name="none"),), "reserved"),
        ((witness(name="witnesses"),), "reserved"),
        ((witness(key="x"),), "malformed"),
        ((witness(key="o.example/w+00000000+BAAA"),), "type 04"),
        ((witness(key=CosignerKey("ü.example/w", bytes(32)).text),), "letters, digits"),
        ((witness(), witness(key=OTHER)), "twice"),
        ((witness(), witness("two")), "same key"),
        (("[log]\nquorum = 2\n", witness()), "1 witnesses only"),
        (("[log]\nkey_overlap_h = 0\n",), "key_overlap_h"),
        (("[log]\nwitness_every_s = 0.5\n",), "witness_every_s"),
        (("[log]\nwitnesses = 1\n",), "witnesses"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, sections: tuple[str, ...], problem: str) -> None:
    """Plain HTTP beyond this machine, names no policy can have, keys of another kind, quorums nobody can meet."""
    with pytest.raises(SettingsError, match=problem):
        loaded(tmp_path, *sections)
