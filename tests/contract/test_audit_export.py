"""``ostiary audit export``: what is in a bundle, and that a stranger's check accepts it and nothing altered."""

import base64
import hashlib
import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.ledger.exporting import LogExport
from gateway.adapters.ledger.storage.files import DATABASE
from gateway.cli.export import verify
from gateway.cli.export.packing import write_policy
from gateway.cli.export.sbom import sbom
from gateway.cli.screen import Failed
from gateway.core.bundle import Module, bundled
from gateway.core.errors import NotFound
from gateway.core.extract import Depth
from gateway.core.inquiry import Query
from gateway.core.tiles import check_inclusion, check_proof, read_proof
from gateway.core.tlog import Signer, VerifierKey, leaf_hash, open_checkpoint
from tests.export_world import Exporter, Past, check, copied, exporting, forged, live, resealed
from tests.gateways import NO_TLS

SIGNED = ("records.jsonl", "payloads.jsonl", "keys.json", "checkpoint", "log.vkey", "tlog-policy")
EXPORTERS_WORD = ("report.html", "README.txt", "verify.py", "trust.py")
PLACES = 12


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """A gateway with a past."""
    with exporting(tmp_path_factory.mktemp("s")) as running:
        yield running


@pytest.fixture(scope="module")
def past(world: Exporter) -> Past:
    """Its past."""
    found: Past = world.do(live, world.door)
    return found


@pytest.fixture(scope="module")
def bundle(world: Exporter, past: Past, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as a bundle, with payloads."""
    path = tmp_path_factory.mktemp("out") / "bundle"
    world.export(path, "--run", past.run.id, "--payloads")
    return path


def problem(bundle: Path, vkey: str) -> str:
    """What the check finds first; empty where it finds nothing."""
    try:
        verify.checked(bundle, vkey, [])
    except (verify.Unsound, *verify.MALFORMED) as error:
        return repr(error)
    return ""


def flipped(path: Path, place: int) -> None:
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[len(content) * place // PLACES] ^= 1
    path.write_bytes(content)


@pytest.mark.requirement("AUDIT-3")
def test_a_stranger_accepts_it(world: Exporter, past: Past, bundle: Path) -> None:
    """With nothing of ours to import and the key from elsewhere: sound, the run whole, both signatures good."""
    done = check(bundle, "--vkey", world.vkey, "--run", past.run.id)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"sound: 14 records are in the log {world.vkey}")
    assert "13 opened payloads are as recorded; 2 reviewers' signatures are good" in done.stdout
    assert f"run {past.run.id}: whole, from its start to its end: 11 records" in done.stdout
    assert "not checked: that the selection is complete" in done.stdout


def test_the_key_counts(world: Exporter, bundle: Path) -> None:
    """Without one it is said that the bundle vouches for itself; under another one nothing is proven."""
    assert "NOT CHECKED: that the key is the log's" in check(bundle).stdout
    other = Signer("gateway.test/log", Ed25519PrivateKey.generate()).key.text
    done = check(bundle, "--vkey", other)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("NOT SOUND: the checkpoint is not signed by the log's key")


@pytest.mark.requirement("AUDIT-3")
@pytest.mark.parametrize("name", [*SIGNED, *EXPORTERS_WORD, verify.MANIFEST, verify.SEAL])
def test_one_flipped_bit_anywhere_is_found(world: Exporter, bundle: Path, tmp_path: Path, name: str) -> None:
    """In each file, at many places."""
    for place in range(PLACES):
        broken = copied(bundle, tmp_path / str(place))
        flipped(broken / name, place)
        assert problem(broken, world.vkey), place


@pytest.mark.requirement("AUDIT-3")
@pytest.mark.parametrize("name", SIGNED)
def test_a_manifest_that_fits_hides_nothing(world: Exporter, bundle: Path, tmp_path: Path, name: str) -> None:
    """What the log speaks for is not believed because the manifest says so."""
    for place in range(PLACES):
        broken = copied(bundle, tmp_path / str(place))
        flipped(broken / name, place)
        assert problem(resealed(broken), world.vkey), place


def test_what_is_only_the_exporters_word_is_named(world: Exporter, bundle: Path) -> None:
    """The manifest says so of each file that no signature speaks for, and the check says it again."""
    manifest = json.loads((bundle / verify.MANIFEST).read_text("utf-8"))
    assert set(manifest["files"]) == {*SIGNED, *EXPORTERS_WORD}
    assert all(name in " ".join(manifest["unproven"]) for name in EXPORTERS_WORD)
    assert "report.html" in check(bundle, "--vkey", world.vkey).stdout


Lines = list[str]


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda lines: lines[:11] + lines[12:], "records of it are missing"),
        (lambda lines: [*lines[:6], lines[5], *lines[6:]], "stands twice"),
        (lambda lines: [*lines[:5], lines[6], lines[5], *lines[7:]], "out of order"),
        (lambda lines: [*lines[:-1], lines[-1].rstrip("\n")], "cut off"),
        (lambda lines: [*lines[:-1], lines[-1][:-20] + "\n"], "cannot be read"),
        (lambda lines: [*lines, "\n"], "cannot be read"),
        (lambda lines: [lines[0].replace('"index":', '"index":0,"index":', 1), *lines[1:]], "twice"),
    ],
)
def test_lines_are_neither_dropped_nor_moved(
    world: Exporter, bundle: Path, tmp_path: Path, act: Callable[[Lines], Lines], words: str
) -> None:
    """Even where the manifest was written anew to fit."""
    broken = copied(bundle, tmp_path / "broken")
    path = broken / "records.jsonl"
    lines = act(path.read_text("utf-8").splitlines(keepends=True))
    path.write_text("".join(lines), "utf-8")
    (broken / "payloads.jsonl").write_text("", "utf-8")
    assert words in problem(resealed(broken, records=len(lines), payloads=0), world.vkey)


def test_a_run_without_its_end_is_not_called_whole(world: Exporter, past: Past, bundle: Path, tmp_path: Path) -> None:
    """Who cuts the newest records off can write a manifest that fits; what is left is not called whole."""
    short = copied(bundle, tmp_path / "short")
    lines = (short / "records.jsonl").read_text("utf-8").splitlines(keepends=True)
    (short / "records.jsonl").write_text("".join(lines[:-1]), "utf-8")
    last = json.loads(lines[-1])["index"]
    payloads = (short / "payloads.jsonl").read_text("utf-8").splitlines(keepends=True)
    kept = [line for line in payloads if json.loads(line)["index"] != last]
    (short / "payloads.jsonl").write_text("".join(kept), "utf-8")
    resealed(short, records=len(lines) - 1, payloads=len(kept))
    done = check(short, "--vkey", world.vkey)
    assert f"run {past.run.id}: numbers 0 to 9, 0 gaps, its end is not here" in done.stdout
    assert "not here from start to end" in check(short, "--vkey", world.vkey, "--run", past.run.id).stderr


def test_there_are_no_other_files(world: Exporter, bundle: Path, tmp_path: Path) -> None:
    """One too many, one too few, a link, and a name that would move the cursor: said on one printable line."""
    more, less, link = (copied(bundle, tmp_path / name) for name in ("more", "less", "link"))
    (more / "more\x1b[2J").write_text("x", "ascii")
    (less / "README.txt").unlink()
    (link / "link").symlink_to("/")
    for broken in (more, less, link):
        done = check(broken, "--vkey", world.vkey)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert done.stderr.strip().isprintable()


def of_type(kind: str, **more: Any) -> Callable[[dict[str, Any]], bool]:
    """Alter the body of each record of a type."""

    def act(leaf: dict[str, Any]) -> bool:
        if leaf["type"] == kind and (kind != "tool.requested" or "approval" in leaf["body"]):
            leaf["body"] |= more
            return True
        return False

    return act


@pytest.mark.requirement("AUDIT-3")
@pytest.mark.parametrize(
    ("act", "words"),
    [
        (of_type("approval.decided", signature="00" * 64), "is not good"),
        (of_type("approval.decided", verdict="reject"), "is not good"),
        (of_type("approval.decided", person="00" * 16), "another person's"),
        (of_type("approval.requested", tool="bank.drain"), "is not good"),
        (of_type("approval.requested", persons=2), "too few persons"),
        (of_type("approval.requested", statement="00" * 32), "is not what was signed"),
        (of_type("tool.requested", tool="bank.drain"), "not the one that was approved"),
        (of_type("tool.requested", approval="another"), ""),
        (of_type("reviewer.enrolled", enrolled_by=None), "without the signature"),
        (of_type("reviewer.enrolled", key="00" * 16), "not the one its id names"),
        (of_type("run.ended", count=4), "does not count"),
        (of_type("decision", effect="deny"), "does not continue"),
    ],
)
def test_who_has_the_logs_key_still_cannot_speak_for_people(
    world: Exporter, bundle: Path, tmp_path: Path, act: Callable[[dict[str, Any]], bool], words: str
) -> None:
    """Records written anew and signed with the log's own key: reviewers' signatures, chains and counts do not fit."""
    signer = world.door.books.keys.signer
    copy = copied(bundle, tmp_path / "forged")
    found = problem(forged(copy, signer, act, chained=words != "does not continue"), world.vkey)
    assert words in found
    if not words:
        assert "whether call" in " ".join(verify.checked(tmp_path / "forged", world.vkey, []).unchecked)


def test_without_payloads_nothing_anybody_wrote_is_in_it(world: Exporter, past: Past, tmp_path: Path) -> None:
    """No goal, argument, answer or person; the same records and signatures are proven."""
    said = world.export(tmp_path / "bare", "--run", past.run.id)
    assert (said["payloads"], said["whole_runs"]) == (0, [past.run.id])
    for path in (tmp_path / "bare").iterdir():
        text = path.read_text("utf-8")
        assert not [word for word in ("Pay the bill", "amount", "vera-k", "otto-k") if word in text], path
    assert check(tmp_path / "bare", "--vkey", world.vkey).returncode == 0


def test_a_call_brings_its_approval(world: Exporter, past: Past, tmp_path: Path) -> None:
    """The call that people approved had waited under another id: its request and the signatures come with it."""
    requested = [one for one in world.door.books.records("tool.requested") if "approval" in one["body"]]
    world.export(tmp_path / "call", "--call", requested[0]["call_id"])
    done = check(tmp_path / "call", "--vkey", world.vkey)
    assert "2 reviewers' signatures are good" in done.stdout
    assert "whether call" not in done.stdout


def test_an_archive_of_a_time(world: Exporter, past: Past, tmp_path: Path) -> None:
    """One file with one folder in it, for its owner alone; all records since then, whole runs named."""
    said = world.export(tmp_path / "march.tar.gz", "--since", "2020-01-01T00:00:00Z")
    assert (tmp_path / "march.tar.gz").stat().st_mode & 0o077 == 0
    assert past.run.id in said["whole_runs"]
    subprocess.run(["tar", "-xzf", "march.tar.gz"], cwd=tmp_path, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["march", "march.tar.gz"]
    assert check(tmp_path / "march", "--vkey", world.vkey, "--run", past.run.id).returncode == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--run", "0197a000-0000-7000-8000-00000000dead"), 1),
        ((), 2),
        (("--run", "a", "--call", "b"), 2),
        (("--call", "b", "--until", "1h"), 2),
    ],
)
def test_what_cannot_be_exported_leaves_nothing(
    world: Exporter, past: Past, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    """A clear error, and no half bundle."""
    done = world.ask("audit", "export", "-o", str(tmp_path / "out"), *words)
    told = {1: "no record is of this selection", 2: "one of --run, --call and --since is needed"}
    assert (done.exit_code, told[code] in done.stderr) == (code, True), done.output
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(world: Exporter, past: Past, bundle: Path) -> None:
    """What is there stays, and the gateway is not asked."""
    before = (bundle / verify.MANIFEST).read_bytes()
    done = world.ask("audit", "export", "-o", str(bundle), "--run", past.run.id)
    assert (done.exit_code, "is there already" in done.stderr) == (1, True)
    assert (bundle / verify.MANIFEST).read_bytes() == before


def test_taking_records_out_is_recorded(world: Exporter, past: Past, tmp_path: Path) -> None:
    """In the log itself, and whether payloads were opened."""
    world.export(tmp_path / "one", "--run", past.run.id, "--payloads")
    actions = [record["body"]["action"] for record in world.door.books.records("admin.change")]
    assert "log.payloads_exported" in actions
    assert world.door.books.verify().ok


def test_pages_are_proven_under_one_tree(world: Exporter, past: Past, tmp_path: Path) -> None:
    """A page says where to go on; later pages keep the first one's tree though the log has grown; none is larger."""
    export = LogExport(world.door.books.reader, world.door.books.keys)
    first = world.do(export.page, Query(run_id=past.run.id, limit=4), Depth())
    world.export(tmp_path / "grows", "--run", past.run.id)  # is recorded
    again = world.do(export.page, Query(run_id=past.run.id, limit=4, after=first.next), Depth(first.size))
    last = world.do(export.page, Query(run_id=past.run.id, limit=4, after=again.next), Depth(first.size))
    assert [len(page.records) for page in (first, again, last)] == [4, 4, 3]
    assert ([page.size for page in (again, last)], last.next) == ([first.size] * 2, None)
    root = open_checkpoint(first.checkpoint, VerifierKey.parse(first.vkey)).root
    for record in last.records:
        check_inclusion(leaf_hash(record.leaf), record.index, first.size, record.proof, root)
    assert world.do(export.page, Query(since_us=0, after=first.size - 1), Depth(first.size)).records == ()
    with pytest.raises(NotFound):
        world.do(export.page, Query(), Depth(10**9))


def test_who_may_not_read_the_log_takes_nothing_out(world: Exporter) -> None:
    """Neither an agent's credential nor a person without the scope; unknown terms are refused."""
    transport = httpx.HTTPTransport(uds=str(world.folder / "admin.sock"), verify=NO_TLS)
    with httpx.Client(transport=transport, base_url="http://localhost") as client:
        agent = client.get("/v1/audit/export", headers={"authorization": "Bearer good"})
        assert agent.status_code == 403
        assert client.get("/v1/audit/export?all=1").status_code == 400
        assert client.get("/v1/audit/export?payloads=perhaps").status_code == 400
        assert client.get("/v1/audit/export?size=0").status_code == 400


def test_a_gateway_that_lies_is_found_out(world: Exporter, past: Past, tmp_path: Path) -> None:
    """What was altered in the database behind the gateway's back does not become a bundle."""
    with closing(sqlite3.connect(world.folder / DATABASE)) as database, database:
        (leaf,) = database.execute(
            "select leaf from records where run_id = ? and seq_run = 3", (past.run.id,)
        ).fetchone()
        change = "update records set leaf = ? where run_id = ? and seq_run = 3"
        database.execute(change, (leaf.replace(b'"v":1', b'"v":2'), past.run.id))
    done = world.ask("audit", "export", "-o", str(tmp_path / "out"), "--run", past.run.id)
    with closing(sqlite3.connect(world.folder / DATABASE)) as database, database:
        database.execute(change, (leaf, past.run.id))
    assert (done.exit_code, "is not in the signed log" in done.stderr) == (1, True), done.output
    assert list(tmp_path.iterdir()) == []


def test_another_policy_is_not_written(tmp_path: Path) -> None:
    """A revision is the digest of the policy's bytes: what the gateway gives must have it."""
    found = {"modules": [["main.rego", "package a"]], "data": "{}"}
    revision = bundled([Module("main.rego", "package a")], {}).revision
    write_policy(tmp_path, revision, found)
    assert [path.name for path in (tmp_path / "policies").iterdir()] == [f"{revision}.json"]
    with pytest.raises(Failed, match="is another one"):
        write_policy(tmp_path, revision, {**found, "data": '{"a":1}'})


@pytest.mark.requirement("AUDIT-5")
def test_the_review_boards_pack(world: Exporter, past: Past, tmp_path: Path) -> None:
    """The same bundle, and beside it what this is made of, policy, keys and digests; no secret, no person unasked."""
    config = tmp_path / "gateway.toml"
    config.write_text('secret = "s3cret-value"\n', "utf-8")
    words = ["audit", "evidence", "--run", past.run.id, "--config", str(config)]
    done = world.ask(*words, "-o", str(tmp_path / "pack"))
    assert done.exit_code == 0, done.output
    assert check(tmp_path / "pack", "--vkey", world.vkey, "--run", past.run.id).returncode == 0
    pack = {path.name: path.read_text("utf-8") for path in (tmp_path / "pack" / "evidence").iterdir()}
    assert set(pack) == {"sbom.json", "policy.json", "reviewers.json", "configuration.json"}
    assert "s3cret" not in "".join(pack.values())
    assert json.loads(pack["configuration.json"])["sha256"] == {
        "gateway.toml": hashlib.sha256(config.read_bytes()).hexdigest()
    }
    assert "main.rego" in json.loads(pack["policy.json"])["sha256"]
    assert world.ask(*words[:-1], "nowhere", "-o", str(tmp_path / "none")).exit_code == 2


def test_what_an_installation_is_made_of() -> None:
    """All the gateway's dependencies that are installed, each with its version and what it needs."""
    found = sbom("ostiary", "2026-03-02T10:00:00+00:00")
    names = {one["name"].lower() for one in found["components"]}
    assert {"cryptography", "cffi", "msgspec", "starlette"} <= names
    assert not names & {"ostiary", "pytest", "mypy"}
    references = {one["bom-ref"] for one in [*found["components"], found["metadata"]["component"]]}
    assert {link["ref"] for link in found["dependencies"]} == references
    assert all(set(link["dependsOn"]) <= references for link in found["dependencies"])
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")


def test_a_record_of_a_bundle_is_a_tlog_proof(world: Exporter, bundle: Path) -> None:
    """With the checkpoint below it, a line is what other tools read: the page shows how."""
    line = json.loads((bundle / "records.jsonl").read_text("utf-8").splitlines()[7])
    note = (bundle / "checkpoint").read_text("utf-8")
    head = ["c2sp.org/tlog-proof@v1", "extra " + base64.b64encode(line["leaf"].encode()).decode()]
    text = "\n".join([*head, f"index {line['index']}", *line["proof"], "", note])
    assert check_proof(read_proof(text), VerifierKey.parse(world.vkey)).size == 14
