"""The contract of policy as JSON Schemas: they say what the gateway does, and OPA's type checker can use them."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from click.testing import CliRunner

from gateway.adapters.rego import contract
from gateway.adapters.rego.layers import shipped
from gateway.adapters.rego.probe import PROBES
from gateway.cli.root import ostiary
from gateway.core.decision import Evaluation, fold
from tests import opa

SCHEMAS = Path(contract.__file__).parents[2] / "schemas"
ANNOTATION = '# METADATA\n# schemas:\n#   - input: schema["policy-input.v1"]\n'
REASON = {"id": "p.x", "msg": "m"}
EMPTY: dict[str, Any] = {"allow": {}, "deny": {}, "hint": {}, "require": {}, "oblige": {}}


def said(part: str, **members: Any) -> dict[str, Any]:
    """A decision with one entry of one part."""
    return EMPTY | {part: {"p": [members]}}


@pytest.mark.parametrize(
    ("document", "good"),
    [
        (EMPTY, True),
        (said("allow", **REASON), True),
        (said("deny", **REASON, fact="data.x"), True),
        (said("deny", **REASON, fact=None), True),
        (said("hint", id="p-1.x_y.z", msg="m"), True),
        (said("require", **REASON, kind="approval", quorum=2, roles=["cfo"], exclude=["requester"], ttl_s=60), True),
        (said("require", **REASON, distinct=True, binds="args_digest", ttl_s=None), True),
        (said("require", **REASON, kind="seal"), True),
        (said("oblige", id="p.x", kind="timeout", timeout_s=0.5), True),
        (said("oblige", id="p.x", kind="rate_limit", per_minute=7, msg="m"), True),
        (said("oblige", id="p.x", kind="sandbox", accept_missing=["memory"]), True),
        (said("oblige", id="p.x", kind="sandbox"), True),
        (said("oblige", id="p.x", kind="something", more=[1]), True),
        ({}, False),
        ([], False),
        (5, False),
        ("yes", False),
        (EMPTY | {"more": {}}, False),
        ({name: EMPTY[name] for name in ("allow", "deny", "hint", "require")}, False),
        (EMPTY | {"allow": [REASON]}, False),
        (EMPTY | {"allow": {"p": REASON}}, False),
        (EMPTY | {"deny": {"p": [None]}}, False),
        (EMPTY | {"deny": {"p": ["p.x"]}}, False),
        (said("deny", msg="m"), False),
        (said("deny", id="p.x"), False),
        (said("deny", id="P.x", msg="m"), False),
        (said("deny", id="p.x\n", msg="m"), False),
        (said("deny", id="p" * 65, msg="m"), False),
        (said("deny", id="p.x", msg=""), False),
        (said("deny", id="p.x", msg="m" * 2001), False),
        (said("deny", **REASON, more=1), False),
        (said("allow", id="default.allow", msg="m"), False),
        (said("deny", id="engine.error", msg="m"), False),
        (said("require", id="requirement.x", msg="m"), False),
        (said("hint", id="obligation.x", msg="m"), False),
        (said("require", **REASON, quorum=0), False),
        (said("require", **REASON, quorum=1.5), False),
        (said("require", **REASON, roles="cfo"), False),
        (said("require", **REASON, binds="everything"), False),
        (said("require", **REASON, people=2), False),
        (said("oblige", kind="timeout", timeout_s=1), False),
        (said("oblige", id="p.x"), False),
        (said("oblige", id="p.x", kind="timeout"), False),
        (said("oblige", id="p.x", kind="timeout", timeout_s=0), False),
        (said("oblige", id="p.x", kind="timeout", timeout_s="1"), False),
        (said("oblige", id="p.x", kind="rate_limit", per_minute=7, more=1), False),
        (said("oblige", id="p.x", kind="sandbox", accept_missing=["walls"]), False),
    ],
)
def test_the_decision_schema_is_what_the_fold_accepts(document: Any, *, good: bool) -> None:
    """Whatever the fold takes for a fault breaks the schema, and nothing else does."""
    result = json.dumps(document).encode()
    (decision,) = fold("d", [b"{}"], Evaluation((result,), (None,), "r", "e"))
    assert (not decision.faulty) is good
    assert jsonschema_rs.validator_for(json.loads(contract.text(contract.DECISION))).is_valid(document) is good


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("", None),
        ("tool.fqn", None),
        ("args.anything.at.all", None),
        ("run.calls.erp", None),
        ("run.sums.erp.amount", None),
        ("tol.fqn", 0),
        ("tool.efect", 1),
        ("tool.fqn.more", 2),
        ("tool.labels.money", 2),
        ("run.sums.erp.amount.more", 4),
        ("schema.version", 1),
        ("principal.kind.x", 2),
    ],
)
def test_which_paths_an_input_can_have(path: str, place: int | None) -> None:
    """Found in the schema itself: the first step that no document has, or none; below args everything may be."""
    assert contract.unknown(path.split(".") if path else []) == place


def test_the_probes_fit_the_input_schema() -> None:
    """What a bundle is tried with before it is served is what it will be asked."""
    validator = jsonschema_rs.validator_for(json.loads(contract.text(contract.INPUT)))
    assert [validator.is_valid(json.loads(probe)) for probe in PROBES] == [True, True]


def test_every_shipped_package_names_the_schema_of_its_input() -> None:
    """Editors and OPA's type checker read the annotation of the package."""
    for path in shipped().rglob("*.rego"):
        if not path.name.endswith("_test.rego"):
            head = path.read_text("utf-8").partition("\npackage ")[0]
            assert head.startswith("# METADATA\n"), path
            assert '# schemas:\n#   - input: schema["policy-input.v1"]' in head, path


def test_schemas_are_printed_and_written_for_opa(tmp_path: Path) -> None:
    """One to the screen, or all into a folder as ``opa check --schema`` wants it; not both, not neither."""
    run = CliRunner().invoke
    printed = run(ostiary, ["schema", "policy-decision"])
    assert json.loads(printed.stdout)["$id"] == "urn:ostiary:policy-decision:v1"
    done = run(ostiary, ["schema", "--opa", str(tmp_path / "new" / "schemas")])
    assert done.exit_code == 0
    written = sorted((tmp_path / "new" / "schemas").iterdir())
    assert [path.name for path in written] == [f"{name}.json" for name in sorted(contract.NAMES)]
    assert [path.read_text("utf-8") for path in written] == [contract.text(path.stem) for path in written]
    assert run(ostiary, ["schema"]).exit_code == 2
    assert run(ostiary, ["schema", "gateway", "--opa", str(tmp_path)]).exit_code == 2
    (tmp_path / "file").write_text("", "utf-8")
    assert run(ostiary, ["schema", "--opa", str(tmp_path / "file" / "x")]).exit_code == 1


@pytest.fixture
def check() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """``opa check --strict`` with the shipped schemas."""
    program = opa.required()

    def run(*paths: Path) -> "subprocess.CompletedProcess[str]":
        command = [str(program), "check", "--strict", "--schema", str(SCHEMAS), *map(str, paths)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def test_opa_type_checks_the_shipped_packages(check: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    """With the shipped schemas, strictly, real OPA finds nothing."""
    done = check(shipped())
    assert (done.returncode, done.stderr) == (0, "")


def test_opa_finds_a_typo_in_a_path(check: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path) -> None:
    """The annotation is enough: the file, the line, and what there is instead."""
    rules = 'package gateway.policies.p\n\ndeny contains {"id": "p.x", "msg": "m"} if input.tol.fqn == "x"\n'
    (tmp_path / "p.rego").write_text(ANNOTATION + rules, "utf-8")
    done = check(tmp_path)
    assert done.returncode == 1
    assert "p.rego:6: rego_type_error: undefined ref: input.tol.fqn" in done.stderr


def test_opa_takes_the_schemas_as_the_gateway_does(tmp_path: Path) -> None:
    """What the shipped packages say to a probe, and the probe itself, fit the schemas by OPA's own validator."""
    program = opa.required()
    (tmp_path / "input.json").write_bytes(PROBES[1])
    for query, name in (("input", contract.INPUT), ("data.gateway.main.decision", contract.DECISION)):
        asked = f"json.match_schema({query}, {contract.text(name)})[0]"
        command = [str(program), "eval", "-f", "raw", "-d", str(shipped()), "-i", str(tmp_path / "input.json"), asked]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "true", done.stderr
