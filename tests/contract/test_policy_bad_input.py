"""What packages get wrong: refused when the bundle is loaded, with file, line and rule, or denied, with the package."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.rego import testing
from gateway.core.bundle import BundleError, bundled
from gateway.core.decision import Effect
from tests.rego_demo import decide, demo, serving

HEAD = """package gateway.policies.demo

allow contains {"id": "demo.ok", "msg": "ok"} if input.phase

"""
# What is wrong, where it is found, and the words that name the rule.
LOADED = [
    ("http.send", 'deny contains {"id": "demo.x", "msg": "m"} if {\n\thttp.send({"url": "x"}).ok\n}\n', 6, "GW002"),
    ("reason without id", 'deny contains {"msg": "m"} if input.phase\n', 5, "GW005"),
    ("reason without msg", 'deny contains {"id": "demo.x"} if input.phase\n', 5, "GW005"),
    ("obligation without kind", 'oblige contains {"id": "demo.x"} if input.phase\n', 5, "GW005"),
    ("id of another type", 'deny contains {"id": 5, "msg": "m"} if input.phase\n', 5, "GW005"),
    ("no set of objects", "deny := true\n", 5, "GW005"),
    ("reason built without id", 'deny contains made if {\n\tmade := {"msg": "m"}\n}\n', 5, "deny of package demo"),
    ("reason that is a text", 'deny contains made if {\n\tmade := "m"\n}\n', 5, "deny of package demo"),
    (
        "member too many",
        'hint contains {"id": "demo.x", "msg": "m", "why": 1} if input.phase\n',
        5,
        "hint of package demo",
    ),
    ("id in capitals", 'deny contains {"id": "Demo", "msg": "m"} if input.phase\n', 5, "deny of package demo"),
    (
        "quorum of nobody",
        'require contains {"id": "demo.x", "msg": "m", "quorum": 0} if input.phase\n',
        5,
        "require of package",
    ),
    (
        "endless timeout",
        'oblige contains {"id": "demo.x", "kind": "timeout", "timeout_s": 0} if input.phase\n',
        5,
        "oblige of package",
    ),
]
MAINS = [
    ("undefined", "decision := 1 if input.args.never\n", 3, "engine.undefined"),
    ("a number", "decision := 5\n", 3, "engine.bad_shape"),
    ("a list", "decision := []\n", 3, "engine.bad_shape"),
    ("a set too few", 'decision := {"allow": {}, "deny": {}}\n', 3, "engine.bad_shape"),
    ("sets without packages", "default decision := false\n", 3, "engine.bad_shape"),
]


@pytest.mark.parametrize(("text", "line", "words"), [row[1:] for row in LOADED], ids=[row[0] for row in LOADED])
def test_a_package_that_breaks_the_contract_is_refused(tmp_path: Path, text: str, line: int, words: str) -> None:
    """By ``policy check``, as by a gateway that starts; file, line and rule or set are named."""
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "demo.rego").write_text(HEAD + text, "utf-8")
    (finding,) = testing.check(folder)
    assert f"rules/demo.rego:{line}" in str(finding)
    assert words in str(finding)


@pytest.mark.parametrize(("text", "line", "words"), [row[1:] for row in MAINS], ids=[row[0] for row in MAINS])
def test_a_main_that_gives_no_decision_is_refused(tmp_path: Path, text: str, line: int, words: str) -> None:
    """Undefined, no object, or not the five sets."""
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "main.rego").write_text(f"package gateway.main\n\n{text}", "utf-8")
    (finding,) = testing.check(folder)
    assert f"rules/main.rego:{line}" in str(finding)
    assert words in str(finding)


SERVED = [
    ("unknown obligation", 'oblige contains {"id": "demo.o", "kind": "levitate"}', "obligation.unknown", "demo"),
    ("unsupported obligation", 'oblige contains {"id": "demo.o", "kind": "redact"}', "obligation.unsupported", "demo"),
    (
        "conflicting roles",
        'oblige contains {"id": "demo.o", "kind": "credential", "role": role} if some role in ["a", "b"]\n\nthen',
        "obligation.unsupported",
        "demo",
    ),
    (
        "unknown requirement",
        'require contains {"id": "demo.r", "msg": "m", "kind": "seal"}',
        "requirement.unknown",
        "demo",
    ),
    ("reserved id", 'deny contains {"id": "engine.x", "msg": "m"}', "engine.reserved_id", "gateway"),
    ("no object", "deny contains made if some made in [5]\n\nthen", "engine.bad_shape", "gateway"),
    ("a conflict", "said := 1 if input.phase\n\nsaid := 2", "engine.error", "gateway"),
]


@pytest.mark.parametrize(("text", "reason", "package"), [row[1:] for row in SERVED], ids=[row[0] for row in SERVED])
async def test_what_shows_only_when_it_is_asked_is_denied(text: str, reason: str, package: str) -> None:
    """The call is denied, whatever else allows it, and the next one is served."""
    rule = (
        f"{text} if hurt\n"
        if not text.endswith("then")
        else text.removesuffix("\n\nthen").replace(" if ", " if {\n\thurt\n\t") + "\n}\n"
    )
    rules = f'{HEAD}{rule}\nhurt if input.args.say == "hurt"\n'
    if "said" in text:
        rules += '\ndeny contains {"id": "demo.x", "msg": "m"} if said == 3\n'
    async with serving(demo(rules)) as engine:
        bad, good = await decide(
            engine, *(json.dumps({"phase": "call", "args": {"say": word}}).encode() for word in ("hurt", "no"))
        )
        assert (bad.effect, bad.reasons[0].id, bad.reasons[0].package) == (Effect.DENY, reason, package)
        assert good.effect is Effect.ALLOW
    if reason == "engine.bad_shape":
        assert "deny of package demo" in bad.reasons[0].msg


async def test_a_gateway_names_what_it_refuses() -> None:
    """What ``policy check`` says, the engine says when it is to serve the bundle."""
    with pytest.raises(BundleError, match=r"demo\.rego:5: .*bad_shape: deny of package demo: .*`id`"):
        async with serving(demo(HEAD + 'deny contains made if {\n\tmade := {"msg": "m"}\n}\n')):
            pass


@pytest.mark.parametrize("name", ["main", "policies", "lib", "parts"])
async def test_data_does_not_stand_in_the_place_of_rules(name: str) -> None:
    """It would replace what packages say, or what the worker asks them by: no such bundle is served."""
    found = demo()
    data: dict[str, Any] = {"gateway": {name: {"demo": {"said": [[]], "deny": []}}}}
    with pytest.raises(BundleError, match=rf"data\.gateway\.{name}"):
        async with serving(bundled(found.modules, data)):
            pass
