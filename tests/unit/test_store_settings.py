"""Where the log lies is a setting without secrets, checked before anything is opened."""

import json
from pathlib import Path

import pytest

from gateway.adapters.ledger.storage.postgres_database import POSTGRES, numbered
from gateway.adapters.ledger.storage.postgres_site import PostgresSite
from gateway.adapters.ledger.storage.site import Folder
from gateway.parts import stores
from gateway.settings import GatewaySettings, SettingsError
from gateway.settings.file import load

URL = "postgresql://ostiary@127.0.0.1/ostiary"


def configured(folder: Path, lines: str) -> GatewaySettings:
    """The settings of a file with these lines in [audit.postgres]."""
    path = folder / "gateway.toml"
    path.write_text(f'state = "state"\n{lines}', "utf-8")
    return load(path)


def test_a_file_in_the_state_folder_is_the_default(tmp_path: Path) -> None:
    """Nothing is said, and nothing is needed."""
    site = stores.site(configured(tmp_path, ""))
    assert isinstance(site, Folder)
    assert site.folder == tmp_path / "state"


def test_a_password_is_read_from_where_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file beside the configuration, or the environment; it is shown nowhere."""
    (tmp_path / "password").write_text("s3cret-of-the-database\n", "utf-8")
    monkeypatch.setenv("DB_PASSWORD", "s3cret-of-the-database")
    for given in ('{ file = "password" }', '{ env = "DB_PASSWORD" }'):
        settings = configured(tmp_path, f'[audit.postgres]\nurl = "{URL}"\npassword = {given}')
        site = stores.site(settings)
        assert isinstance(site, PostgresSite)
        assert site.target.password == "s3cret-of-the-database"
        assert "s3cret" not in json.dumps(settings.redacted()) + repr(site.target) + site.name


@pytest.mark.parametrize(
    "lines",
    [
        'url = "postgresql://ostiary:s3cret@127.0.0.1/ostiary"',
        'url = "postgresql://ostiary@127.0.0.1/ostiary?password=s3cret"',
        'url = "sqlite:///s3cret"',
        'url = "postgresql://[s3cret"',
        f'url = "{URL}"\nsecret = "s3cret"',
        f'url = "{URL}"\npassword = "s3cret"',
    ],
)
def test_what_does_not_fit_is_refused_without_its_words(tmp_path: Path, lines: str) -> None:
    """A password in the wrong place must not get into a log by the message that refuses it."""
    with pytest.raises(SettingsError) as caught:
        configured(tmp_path, f"[audit.postgres]\n{lines}")
    assert caught.value.problems[0].startswith("audit.postgres")
    assert "s3cret" not in str(caught.value.problems)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (f'url = "{URL}"\npassword = {{ file = "nowhere" }}', "audit.postgres.password"),
        ('url = "postgresql://127.0.0.1/ostiary"', "audit.postgres.url"),
        ('url = "postgresql://u@db.example/ostiary"\nca_certificate = "nowhere.pem"', "audit.postgres.url"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, lines: str, said: str) -> None:
    """When the gateway starts, before it connects."""
    with pytest.raises(SettingsError) as caught:
        stores.site(configured(tmp_path, f"[audit.postgres]\n{lines}"))
    assert said in caught.value.problems[0]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select 1", "select 1"),
        ("select a from b where c = ? and d < ?", "select a from b where c = $1 and d < $2"),
        ("select a from b where +type = ? and (+run_id = ?)", "select a from b where type = $1 and (run_id = $2)"),
        ("select max(idx) + 1 from b", "select max(idx) + 1 from b"),
    ],
)
def test_statements_are_put_in_its_words(sql: str, expected: str) -> None:
    """Parameters get numbers; the plus that keeps SQLite from an index goes, an addition stays."""
    assert numbered(sql) == expected


def test_patterns_are_put_in_its_words() -> None:
    """Only the star stands for other characters."""
    assert POSTGRES.pattern("a*b") == "a%b"
    assert POSTGRES.pattern("100%_\\") == "100\\%\\_\\\\"
