"""Settings of vault, leases and PostgreSQL upstreams: what goes together, and what is missing said by its key."""

import subprocess
import sys
from pathlib import Path

import pytest

from connectors.http.api import _OWN_FIELDS
from gateway.parts import minting
from gateway.settings import SettingsError
from gateway.settings import file as settings_file
from gateway.settings.upstreams import SqlUpstream
from tests.gateways import ROOT

VAULT = '[vault]\naddress = "https://vault.example.org"\nrole_id = "r"\nsecret_id = { env = "S" }\n'
LEASE = '[leases.read]\nrole = "reader"\n'
URL = 'url = "postgresql://db.example.org/erp"\n'
API = VAULT + LEASE + 'header = "X-Login"\n[upstreams.api]\nkind = "http"\ncredential = "read"\norigin = '
KV = '[leases.key]\nprovider = "kv"\npath = "erp/api"\nmember = "key"\ntoken_role = "key"\nheader = "X-Key"\n'
KV_API = VAULT + KV + '[upstreams.api]\nkind = "http"\ncredential = "key"\norigin = "https://api.example.org"\n'
PKI = '[leases.cert]\nprovider = "pki"\nrole = "client"\ncommon_name = "gateway.example.org"\n'
PKI_API = KV_API.replace(KV, PKI).replace('"key"', '"cert"')
LENT = VAULT + LEASE + 'file = "LOGIN_FILE"\n[upstreams.x]\nkind = "mcp"\ncommand = ["x"]\ncredential = "read"\n'
UPSTREAM = f'[upstreams.erp]\nkind = "sql"\n{URL}read_lease = "read"\n'


def load(folder: Path, text: str) -> str:
    """The problems of a settings file, or nothing."""
    (folder / "gateway.toml").write_text('state = "state"\n' + text)
    try:
        settings_file.load(folder / "gateway.toml")
    except SettingsError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (VAULT + LEASE + UPSTREAM, ""),
        (VAULT.replace("https://vault.example.org", "unix:///run/bao.sock"), ""),
        (VAULT.replace("https://vault.example.org", "http://127.0.0.1:8200"), ""),
        (VAULT.replace("https://vault.example.org", "http://vault.example.org"), "vault.address"),
        (VAULT.replace('role_id = "r"\n', ""), "role_id and secret_id go together"),
        (VAULT + 'token = { env = "T" }\n', "or token"),
        ('[vault]\naddress = "https://v"\ntoken = { file = "token" }\n', ""),
        ('[vault]\naddress = "https://v"\n', "or token"),
        (LEASE, "no [vault] section"),
        (VAULT + LEASE + 'scope = "run"\n' + UPSTREAM, ""),
        (VAULT + LEASE + 'scope = "session"\n', "leases.read.scope"),
        (VAULT + KV + 'scope = "run"\n', "scope: run is for logins of provider database"),
        (VAULT + PKI + 'scope = "run"\n', "scope: run is for logins of provider database"),
        (
            VAULT + LEASE + 'scope = "run"\n' + UPSTREAM.replace("read_lease", "write_lease"),
            "leases.read.scope: upstreams.erp writes with it",
        ),
        (VAULT + LEASE + '[credentials.read]\nenv = "X"\n', "a credential has this name"),
        (
            VAULT + LEASE + '[leases.other]\nrole = "reader-reap"\n',
            "leases.read.role: 'reader-reap' drops",
        ),
        (
            VAULT + LEASE + '[leases.o]\nrole = "reader-reap"\nmount = "database"\n',
            "leases.read.role: 'reader-reap' drops",
        ),
        (VAULT + LEASE + '[leases.o]\nrole = "reader-reap"\nmount = "hr"\n', ""),
        (VAULT + UPSTREAM, "no [leases.read]"),
        (VAULT + LEASE + UPSTREAM + 'database = "x.db"\n', "exactly one of database and url"),
        (VAULT + LEASE + UPSTREAM.replace('read_lease = "read"\n', ""), "set read_lease or write_lease"),
        (VAULT + LEASE + UPSTREAM.replace(URL, 'database = "x.db"\n'), "a SQLite file has no users"),
        (VAULT + LEASE + UPSTREAM.replace("//db", "//user:secret@db"), "upstreams.erp"),
        (API + '"https://api.example.org"', ""),
        (API + '"http://127.0.0.1:8080"', ""),
        (API + '"http://[::1]"', ""),
        (API + '"http://api.example.org"', "upstreams.api.origin: a leased credential goes over https"),
        (API + '"http://127.0.0.1.example.org"', "upstreams.api.origin: a leased credential goes over https"),
        (API.replace("X-Login", "Host") + '"https://api.example.org"', "leases.read.header"),
        (VAULT + LEASE + 'policy = ""\n', "leases.read.policy"),
        (KV_API, ""),
        (KV_API.replace("https://api", "http://api"), "upstreams.api.origin: a leased credential goes over https"),
        (KV_API + 'read = "x"\n', "upstreams.api"),
        (VAULT + KV + 'role = "x"\n', "role: provider kv has none"),
        (VAULT + KV + 'prefix = "Bearer "\n', ""),
        (VAULT + KV + 'prefix = "a\\r\\nb"\n', "leases.key.prefix"),
        (VAULT + KV.replace('member = "key"\n', ""), "member: provider kv needs it"),
        (VAULT + KV.replace('path = "erp/api"\n', ""), "path: provider kv needs it"),
        (VAULT + KV.replace('token_role = "key"\n', ""), "token_role: provider kv needs it"),
        (VAULT + KV.replace('header = "X-Key"\n', ""), ""),
        (VAULT + KV.replace("erp/api", "erp/../api"), "leases.key.path"),
        (VAULT + KV.replace("erp/api", "/erp"), "leases.key.path"),
        (VAULT + LEASE + 'member = "x"\n', "member: provider database has none"),
        (VAULT + LEASE.replace('role = "reader"\n', ""), "role: provider database needs it"),
        (PKI_API, ""),
        (PKI_API + 'ca_certificate = "ca.pem"\n', ""),
        (PKI_API.replace("https://api", "http://127.0.0.1"), "upstreams.api.origin"),
        (PKI_API.replace("https://api.example.org", "http://127.0.0.1"), "a client certificate needs https"),
        (VAULT + PKI + "revoke = false\n", ""),
        (VAULT + KV + "revoke = false\n", "revoke: providers pki and oauth_user only"),
        (VAULT + PKI + 'header = "X-Key"\n', "header: provider pki has none"),
        (VAULT + PKI.replace('common_name = "gateway.example.org"\n', ""), "common_name: provider pki needs it"),
        (VAULT + LEASE + 'common_name = "a"\n', "common_name: provider database has none"),
        (VAULT + PKI + UPSTREAM.replace('"read"', '"cert"'), "leases.cert: upstreams.erp needs users"),
        (VAULT + KV + UPSTREAM.replace('"read"', '"key"'), "leases.key: upstreams.erp needs users"),
        (LENT, ""),
        (LENT.replace("file =", 'form = "postgresql://{user}:{password}@db/erp"\nenv ='), ""),
        (LENT.replace('file = "LOGIN_FILE"', 'header = "X-Login"'), "say in which variable, by `file` or `env`"),
        (LENT.replace("LOGIN_FILE", "LD_PRELOAD"), "LD_PRELOAD steers how a program is run"),
        (LENT.replace("LOGIN_FILE", "PATH"), "PATH steers how a program is run"),
        (LENT.replace("LOGIN_FILE", "A=B"), "leases.read.file"),
        (LENT.replace("file =", 'env = "A"\nfile ='), "set one of header, env and file"),
        (LENT.replace("file =", 'header = "X-A"\nfile ='), "set one of header, env and file"),
        (LENT.replace("file =", 'form = "{user}"\nfile ='), "form: it has no {password}"),
        (LENT.replace("file =", 'form = "{password}{x}"\nfile ='), "leases.read.form"),
        (VAULT + LEASE + 'form = "{password}"\n', "form: it says what env or file hold"),
        (VAULT + KV.replace('header = "X-Key"', 'env = "KEY"\nform = "{user}{password}"'), "has no {user}"),
        (VAULT + KV.replace('header = "X-Key"', 'env = "KEY"\nprefix = "Bearer "'), "use `form`"),
        (VAULT + PKI + 'file = "CERT"\n', "file: client certificates are for HTTP upstreams"),
        (VAULT + LEASE + 'file = "LOGIN_FILE"\n' + UPSTREAM, "are for MCP servers by command, not upstreams.erp"),
        (KV_API.replace('header = "X-Key"', 'env = "KEY"'), "are for MCP servers by command, not upstreams.api"),
        (LENT.replace('"read"', '"old"') + '[credentials.old]\nenv = "OLD"\n', "a server by command takes no header"),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path: Path, text: str, words: str) -> None:
    """One line that names the key."""
    found = load(tmp_path, text)
    assert words in found if words else found == ""
    assert "secret@" not in found


@pytest.mark.parametrize("name", sorted(_OWN_FIELDS))
def test_a_credential_goes_in_no_field_that_frames_the_message(tmp_path: Path, name: str) -> None:
    """The connector would refuse each call, after a login was minted for it: the settings say so, in any case."""
    for spelt in (name, name.title(), name.upper()):
        found = load(tmp_path, VAULT + LEASE + f'header = "{spelt}"\n')
        assert f"leases.read.header: {spelt} frames the message" in found.replace("Value error, ", "")
    assert "credentials.a.header" in load(tmp_path, f'[credentials.a]\nenv = "A"\nheader = "{name}"\n')


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """Certificates and secret files."""
    text = VAULT.replace('{ env = "S" }', '{ file = "secret" }\nca_certificate = "ca.pem"')
    assert load(tmp_path, text + LEASE + UPSTREAM + 'ca_certificate = "db.pem"\n') == ""
    found = settings_file.load(tmp_path / "gateway.toml")
    assert found.vault is not None
    assert found.vault.secret_id is not None
    assert found.vault.secret_id.file == tmp_path / "secret"
    assert found.vault.ca_certificate == tmp_path / "ca.pem"
    upstream = found.upstreams["erp"]
    assert isinstance(upstream, SqlUpstream)
    assert upstream.ca_certificate == tmp_path / "db.pem"


def test_a_database_url_that_cannot_be_used_names_its_key() -> None:
    """Also a certificate file that is not there."""
    for change in ({"url": "postgresql:///erp"}, {"url": "postgresql://far/erp", "ca_certificate": Path("/none.pem")}):
        fields = {"kind": "sql", "read_lease": "read", **change}
        with pytest.raises(SettingsError, match=r"upstreams\.erp\.url"):
            minting.postgres("erp", SqlUpstream.model_validate(fields))


def test_without_the_extra_the_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway installed without asyncpg and told to use PostgreSQL."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    monkeypatch.delitem(sys.modules, "connectors.sql.postgres", raising=False)
    fields = {"kind": "sql", "read_lease": "read", "url": "postgresql://far/erp"}
    with pytest.raises(SettingsError, match=r"needs the extra `postgres`: pip install 'ostiary\[postgres\]'"):
        minting.postgres("erp", SqlUpstream.model_validate(fields))


def test_whoever_has_no_vault_does_not_load_its_libraries() -> None:
    """Neither hvac nor asyncpg are imported by the gateway itself."""
    code = "import sys, gateway.app; print([name for name in ('hvac', 'requests', 'asyncpg') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
