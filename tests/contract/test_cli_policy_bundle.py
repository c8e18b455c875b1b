"""``ostiary policy build | sign | status``: an archive a gateway takes, and what the operator is told of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.adapters.rego import layers
from gateway.adapters.rego.bundles import archive
from gateway.cli.root import ostiary
from gateway.edge.asgi import Options
from tests.edge_world import Edge
from tests.fakes.desk import FakePolicyDesk
from tests.served_edge import served
from tests.unit.test_bundle_signatures import pair


def ask(*words: str | Path, state: Path | None = None) -> Result:
    """Run a command in this process."""
    env = {"OSTIARY_URL": None, "OSTIARY_TOKEN": None, "OSTIARY_STATE": None if state is None else str(state)}
    return CliRunner().invoke(ostiary, [str(word) for word in words], env=env)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """What ``ostiary init`` writes."""
    assert ask("init", tmp_path / "home").exit_code == 0
    return tmp_path / "home"


def test_a_folder_is_built_signed_and_taken(home: Path, tmp_path: Path) -> None:
    """The archive is the folder without its tests, and passes with the key's public half only."""
    private, public = pair("ed25519")
    (tmp_path / "key.pem").write_bytes(private)
    bundle = tmp_path / "house.tar.gz"
    assert ask("policy", "build", home / "policies", "-o", bundle).exit_code == 0
    done = ask("policy", "sign", bundle, "--key", tmp_path / "key.pem", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["bytes"] == bundle.stat().st_size
    layer = layers.read(bundle, public)
    assert sorted(layer.files) == sorted(
        path.relative_to(home / "policies").as_posix()
        for path in layers.paths(home / "policies")
        if not path.name.endswith("_test.rego")
    )


def test_all_that_a_gateway_serves_is_built(home: Path, tmp_path: Path) -> None:
    """Shipped packages, the operator's and the settings' data, under the gateway's own revision."""
    bundle = tmp_path / "all.tar.gz"
    done = ask("policy", "build", "--config", home / "gateway.toml", "-o", bundle)
    assert done.exit_code == 0, done.output
    files = archive.read("all", bundle.read_bytes())
    assert "shipped/main.rego" in files
    assert "scope" in json.loads(files["data.json"])["gateway"]
    assert len(json.loads(files[".manifest"])["revision"]) == 64


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (("policy", "build"), 2, "give DIR or --config"),
        (("policy", "build", "broken"), 1, "broken/data.json"),
        (("policy", "build", "policies", "-o", "none/x.tar.gz"), 2, "No such file or directory"),
        (("policy", "sign", "gateway.toml", "--key", "gateway.toml"), 1, "gateway.toml: not a bundle"),
        (
            ("policy", "sign", "gateway.toml", "--key", "gateway.toml"),
            1,
            "the archive that `ostiary policy build` writes",
        ),
        (("policy", "sign", "x.tar.gz", "--key", "gateway.toml"), 1, "not a PEM key"),
        (("policy", "sign", "x.tar.gz", "--key", "gateway.toml"), 1, "openssl genpkey"),
    ],
)
def test_what_cannot_be_built_says_why(
    home: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], exit_code: int, said: str
) -> None:
    """One clear line, and nothing written."""
    monkeypatch.chdir(home)
    (home / "broken").mkdir()
    (home / "broken" / "data.json").write_text("{")
    (home / "x.tar.gz").write_bytes(archive.write({"a.rego": b"package a"}))
    before = sorted(home.rglob("*"))
    done = ask(*words)
    assert (done.exit_code, said in done.output) == (exit_code, True), done.output
    assert sorted(home.rglob("*")) == before


def test_the_policy_in_force_is_shown(tmp_path: Path) -> None:
    """Exit code 1, and why, where newer policy is not in force."""
    edge = Edge(Options(operator_socket=str(tmp_path / "admin.sock")))
    with served(edge, tmp_path / "admin.sock"):
        done = ask("policy", "status", state=tmp_path)
        assert (done.exit_code, "fake 1" in done.output, "NOT IN FORCE" in done.output) == (0, True, False)
    stale = replace(edge, policy=FakePolicyDesk(problems=("desk.rego:3: GW005 deny without `msg`",)))
    with served(stale, tmp_path / "admin.sock"):
        done = ask("policy", "status", state=tmp_path)
    assert done.exit_code == 1
    assert "NOT IN FORCE since 1970-01-01T00:00:00+00:00" in done.output
    assert "  desk.rego:3: GW005 deny without `msg`" in done.output
