"""The evidence chain bites: a pipeline with a stage dropped, moved or swapped does not type-check."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIPELINE = ROOT / "gateway" / "core" / "pipeline.py"
IMPORTS = "from gateway.core.call import Answer, Call, Permit, Principal, Resolved, Resumed"
COMMIT = "                    intent = await entry.commit(quota)  # durable BEFORE any effect; uses the approval up\n"
LEASE = "                        async with ports.broker.lease(intent) as lease:  # credential for this call\n"
LOOK = "                            await watch.look(lease)  # nothing is handed out once a kill has taken effect\n"
INVOKE = "                            raw = await ports.catalog.invoke(lease)\n"
VERIFY = "                        verified = ports.verifier.verify(raw)  # output contract first ...\n"
REDACT = "                        output = await ports.redactor.redact(verified)  # ... then secrets\n"
COMPLETE = "                        return await entry.complete(output)  # durable BEFORE the answer\n"
REDACTED_FIRST = """\
                        output = await ports.redactor.redact(raw)
                        verified = ports.verifier.verify(output)
                        return await entry.complete(verified)
"""


@dataclass(frozen=True)
class Mutation:
    """A change of ``handle`` that would open the door: pairs of (text as it stands, text instead)."""

    name: str
    edits: tuple[tuple[str, str], ...]


MUTATIONS = (
    Mutation("identity_dropped", (("principal = await _principal(call, ports)", "principal = call.origin"),)),
    Mutation("identity_not_awaited", (("await _principal(call, ports)", "_principal(call, ports)"),)),
    Mutation("run_dropped", (("entry.entered(await ports.runs.enter(call, principal))", "principal"),)),
    Mutation("resolve_dropped", (("ports.catalog.resolve(caller)", "caller"),)),
    Mutation(
        "policy_dropped",
        (
            ("            permit = await permit_for(target, entry, ports)  # decide, ask people, reserve\n", ""),
            ("with permit.reservation:", "with nullcontext():"),
            ("limits.spend(permit)", "limits.spend(target)"),
        ),
    ),
    Mutation(
        "permit_made_without_a_decision",
        (("ports.limits.spend(permit)", "ports.limits.spend(Permit(target, None, None))"),),
    ),
    Mutation(
        "limits_dropped",
        (
            ("async with ports.limits.spend(permit) as quota:", "with nullcontext():"),
            ("entry.commit(quota)", "entry.commit(permit)"),
        ),
    ),
    Mutation(
        "commit_dropped",
        ((COMMIT, ""), ("carried_out(intent, entry, ports)", "nullcontext(WATCH)"), ("lease(intent)", "lease(quota)")),
    ),
    Mutation(
        "commit_after_the_call",
        (
            (COMMIT, ""),
            ("carried_out(intent, entry, ports)", "nullcontext(WATCH)"),
            (VERIFY, "                        intent = await entry.commit(quota)\n" + VERIFY),
        ),
    ),
    Mutation("commit_not_awaited", (("await entry.commit(quota)", "entry.commit(quota)"),)),
    Mutation(
        "lease_dropped",
        ((LEASE + LOOK, ""), (INVOKE, "                        raw = await ports.catalog.invoke(intent)\n")),
    ),
    Mutation("invoked_with_the_permit", (("ports.catalog.invoke(lease)", "ports.catalog.invoke(permit)"),)),
    Mutation("verify_dropped", ((VERIFY, ""), ("redact(verified)", "redact(raw)"))),
    Mutation("redact_dropped", ((REDACT, ""), ("entry.complete(output)", "entry.complete(verified)"))),
    Mutation(
        "verify_after_redact",
        (
            (VERIFY + REDACT, ""),
            (COMPLETE, REDACTED_FIRST),
        ),
    ),
    Mutation("completion_dropped", (("return await entry.complete(output)", "return output"),)),
    Mutation("raw_result_answered", (("return await entry.complete(output)", "return await entry.complete(raw)"),)),
    Mutation(
        "other_calls_permit",
        (("ports.limits.spend(permit)", "ports.limits.spend(Permit(call, permit.decision, permit.reservation))"),),
    ),
    Mutation("other_calls_quota", (("entry.commit(quota)", "entry.commit(Quota(target))"),)),
    Mutation(
        "other_calls_arguments", (("ports.catalog.invoke(lease)", "ports.catalog.invoke(lease, call.arguments)"),)
    ),
)


def mutated(mutation: Mutation, source: str) -> str:
    """``source`` with every edit of the mutation applied to ``handle``, exactly once."""
    handle, mark, rest = source.partition("\ndef _principal")
    for old, new in mutation.edits:
        assert handle.count(old) == 1, f"{mutation.name}: the pipeline no longer reads {old!r}"
        handle = handle.replace(old, new)
    more = "from contextlib import nullcontext\nfrom gateway.core.kills import Watch as _Watch\nWATCH: _Watch"
    return handle.replace(IMPORTS, f"{IMPORTS}, Quota, Raw\n{more}") + mark + rest


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What ``mypy --strict`` says of each mutant (and of the pipeline as it stands), by module; one run for all."""
    place = tmp_path_factory.mktemp("mutants")
    source = PIPELINE.read_text()
    files = {"as_it_stands": source} | {mutation.name: mutated(mutation, source) for mutation in MUTATIONS}
    for name, text in files.items():
        (place / f"{name}.py").write_text(text)
    # The mutants stand outside of the project and import its packages; the cache stays with them.
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", f"--cache-dir={place / 'cache'}"]
    command += ["--config-file", str(ROOT / "pyproject.toml"), *(f"{name}.py" for name in files)]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, list[str]] = {name: [] for name in files}
    for line in done.stdout.splitlines():
        if ": error: " in line:
            found[line.partition(".py:")[0]].append(line)
    return found


def test_the_pipeline_as_it_stands_type_checks(errors: dict[str, list[str]]) -> None:
    """The unmutated copy has no error, so an error of a mutant is the mutation's."""
    assert errors["as_it_stands"] == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutated_pipeline_does_not_type_check(mutation: Mutation, errors: dict[str, list[str]]) -> None:
    """Each way of dropping, moving or swapping a stage is refused by the type checker."""
    accidents = ("[name-defined]", "[syntax]", "[unused-ignore]", "[return]")
    assert [e for e in errors[mutation.name] if not e.endswith(accidents)], "mypy accepts this mutation of the pipeline"


def test_there_are_more_than_ten_different_mutations() -> None:
    """No two mutants are the same text."""
    source = PIPELINE.read_text()
    assert len({mutated(mutation, source) for mutation in MUTATIONS}) == len(MUTATIONS) > 10
