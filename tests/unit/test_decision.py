"""The fold: what the packages export becomes one decision, and doubt becomes a deny."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.decision import Decision, Effect, Evaluation, Obligations, fold, in_mode
from gateway.core.tool import ConnectorKind, EffectClass, Tool

INPUT = b"{}"


def said(**parts: dict[str, list[Any]]) -> bytes:
    """A decision document with these parts, the others empty."""
    return json.dumps({"allow": {}, "deny": {}, "hint": {}, "require": {}, "oblige": {}} | parts).encode()


def reason(name: str, **more: Any) -> dict[str, Any]:
    """A well-formed reason."""
    return {"id": name, "msg": f"because of {name}"} | more


def decide(result: bytes | None, fault: str | None = None) -> Decision:
    """The decision on one input."""
    (decision,) = fold("d", [INPUT], Evaluation((result,), (fault,), "rev", "engine 1"))
    return decision


def ids(decision: Decision) -> list[str]:
    """Reason ids in order."""
    return [item.id for item in decision.reasons]


ALLOW = {"authz": [reason("scope.granted")]}


def test_allow() -> None:
    """One allow and nothing against it allows, with its reason."""
    decision = decide(said(allow=ALLOW))
    assert decision.effect is Effect.ALLOW
    assert ids(decision) == ["scope.granted"]
    assert decision.reasons[0].package == "authz"
    assert (decision.revision, decision.engine, decision.id) == ("rev", "engine 1", "d")
    assert not decision.faulty


def test_input_digest_is_of_the_document() -> None:
    """Each decision names the input it was made on."""
    first, second = fold("d", [b"{}", b"[]"], Evaluation((said(), said()), (None, None), "r", "e"))
    assert first.input_digest == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert first.input_digest != second.input_digest


def test_a_decision_shows_nothing_of_its_document() -> None:
    """Whatever writes one down, in a log or a traceback, tells what was decided and not what was called with."""
    (decision,) = fold("d", [b'{"args":{"iban":"DE02"}}'], Evaluation((said(allow=ALLOW),), (None,), "rev", "e"))
    assert "scope.granted" in repr(decision)
    assert "DE02" not in repr(decision)


def test_nothing_said_denies_by_default_and_teaches() -> None:
    """Without an allow the default denies, and the hints say which fact was missing."""
    decision = decide(said(hint={"authz": [reason("scope.not_granted", fact="data.x")]}))
    assert decision.effect is Effect.DENY
    assert ids(decision) == ["default.no_allow", "scope.not_granted"]
    assert decision.reasons[1].fact == "data.x"
    assert not decision.faulty


def test_deny_beats_allow_and_requirement() -> None:
    """Any deny denies."""
    decision = decide(said(allow=ALLOW, deny={"x": [reason("x.no")]}, require={"y": [reason("y.two")]}))
    assert decision.effect is Effect.DENY
    assert ids(decision)[0] == "x.no"


def test_requirement_needs_approval() -> None:
    """An allowed call with a requirement needs an approval."""
    wanted = reason("y.two", quorum=2, roles=["cfo"], distinct=True, exclude=["requester"], ttl_s=60, kind="approval")
    decision = decide(said(allow=ALLOW, require={"y": [wanted | {"binds": "args_digest"}]}))
    assert decision.effect is Effect.NEEDS_APPROVAL
    (requirement,) = decision.requirements
    assert (requirement.id, requirement.quorum, requirement.roles, requirement.ttl_s) == ("y.two", 2, ("cfo",), 60)
    assert (requirement.exclude, requirement.package) == (("requester",), "y")
    assert ids(decision)[0] == "y.two"


def test_requirement_without_allow_is_no_way_in() -> None:
    """A requirement does not stand in for an allow."""
    assert decide(said(require={"y": [reason("y.two")]})).effect is Effect.DENY


def test_requirement_of_unknown_kind_denies() -> None:
    """What the gateway cannot check is refused."""
    decision = decide(said(allow=ALLOW, require={"y": [reason("y.r", kind="retina")]}))
    assert decision.effect is Effect.DENY
    assert ids(decision) == ["requirement.unknown"]


def test_obligations_merge_most_restrictive() -> None:
    """The least timeout and the least rate of all packages bind."""
    obliged = {
        "a": [{"id": "a.t", "kind": "timeout", "timeout_s": 5}, {"id": "a.r", "kind": "rate_limit", "per_minute": 10}],
        "b": [
            {"id": "b.t", "kind": "timeout", "timeout_s": 2.5},
            {"id": "b.r", "kind": "rate_limit", "per_minute": 60},
        ],
    }
    assert decide(said(allow=ALLOW, oblige=obliged)).obligations == Obligations(2.5, 10)


@pytest.mark.parametrize(
    ("said_by", "accepted"),
    [
        ({}, ()),
        ({"a": [[]]}, ()),
        ({"a": [["pids", "memory"]]}, ("memory", "pids")),
        ({"a": [["pids", "memory"]], "b": [["memory", "cpu"]]}, ("memory",)),
        ({"a": [["pids"], ["memory"]]}, ()),
        ({"a": [["pids"]], "b": [[]]}, ()),
    ],
)
def test_a_sandbox_may_lack_what_every_package_accepts(
    said_by: dict[str, list[list[str]]], accepted: tuple[str, ...]
) -> None:
    """Nothing may be missing unless it is said, and what one package says another can only take back."""
    obliged = {
        package: [{"id": "p.s", "kind": "sandbox", "accept_missing": names} for names in said]
        for package, said in said_by.items()
    }
    decision = decide(said(allow=ALLOW, oblige=obliged))
    assert (decision.effect, decision.obligations.accept_missing) == (Effect.ALLOW, accepted)


@pytest.mark.parametrize("names", ["memory", ["sandbox"], ["everything"], [1], None])
def test_a_sandbox_obligation_of_another_shape_denies(names: Any) -> None:
    """A capability that does not exist, the sandbox itself included, is no word of policy."""
    obliged = {"a": [{"id": "a.s", "kind": "sandbox", "accept_missing": names}]}
    assert ids(decide(said(allow=ALLOW, oblige=obliged))) == ["engine.bad_shape"]


@pytest.mark.parametrize(
    ("kind", "expected"), [("redact", "obligation.unsupported"), ("teleport", "obligation.unknown")]
)
def test_obligation_that_cannot_be_kept_denies(kind: str, expected: str) -> None:
    """A call bound to something the gateway cannot do is refused."""
    decision = decide(said(allow=ALLOW, oblige={"a": [{"id": "a.o", "kind": kind, "profile": "strict"}]}))
    assert decision.effect is Effect.DENY
    assert ids(decision) == [expected]


@pytest.mark.parametrize(
    "result",
    [
        b"",
        b"null",
        b"[]",
        b"true",
        b'"<undefined>"',
        b"{}",
        b"\xff",
        b"[" * 60_000,
        said(allow={"a": [{"id": "x.y"}]}),
        said(allow={"a": [{"msg": "no id"}]}),
        said(allow={"a": [reason("Upper.case")]}),
        said(allow={"a": [reason("new.line\n")]}),
        said(allow={"a": [reason("a" * 65)]}),
        said(allow={"a": [reason("")]}),
        said(allow={"a": [{"id": "x.y", "msg": ""}]}),
        said(allow={"a": [{"id": "x.y", "msg": 1}]}),
        said(allow={"a": [reason("x.y", surprise=1)]}),
        said(allow={"a": ["x.y"]}),
        said(surprise={}),
        said(require={"a": [reason("x.y", quorum=0)]}),
        said(require={"a": [reason("x.y", binds="nothing")]}),
        said(oblige={"a": ["x"]}),
        said(oblige={"a": [{"id": "x.y", "kind": "timeout"}]}),
        said(oblige={"a": [{"id": "x.y", "kind": "timeout", "timeout_s": 0}]}),
        said(oblige={"a": [{"id": "x.y", "kind": "timeout", "timeout_s": 1, "per_hour": 3}]}),
        said(oblige={"a": [{"id": "x.y", "kind": "rate_limit", "per_minute": 0}]}),
        said(oblige={"a": [{"id": "x.y", "kind": "rate_limit", "per_minute": 1.5}]}),
    ],
)
def test_bad_shape_is_a_fault(result: bytes) -> None:
    """Whatever is not exactly the contract is a fault, and denies."""
    decision = decide(result)
    assert decision.effect is Effect.DENY
    assert ids(decision) == ["engine.bad_shape"]
    assert decision.faulty


@pytest.mark.parametrize("name", ["engine.error", "default.no_allow", "obligation.unknown", "requirement.unknown"])
def test_reserved_ids_are_a_fault(name: str) -> None:
    """A package cannot speak with the fold's own ids."""
    for part in ("allow", "deny", "hint", "require"):
        assert ids(decide(said(**{part: {"a": [reason(name)]}}))) == ["engine.reserved_id"]


def test_faults_keep_their_id() -> None:
    """The engine's fault is the reason, whatever else was said."""
    assert ids(decide(said(allow=ALLOW), "engine.timeout")) == ["engine.timeout"]
    assert ids(decide(None)) == ["engine.undefined"]
    assert ids(decide(said(allow=ALLOW), "whatever")) == ["engine.error"]


@pytest.mark.parametrize(("results", "faults"), [((), ()), ((said(allow=ALLOW),) * 2, (None,) * 2), ((None,), ())])
def test_wrong_number_of_results_is_a_fault(results: tuple[bytes | None, ...], faults: tuple[str | None, ...]) -> None:
    """An evaluation that does not fit its inputs allows nothing."""
    (decision,) = fold("d", [INPUT], Evaluation(results, faults, "r", "e"))
    assert ids(decision) == ["engine.bad_shape"]


names = st.from_regex(r"\A[a-z]{1,4}\.[a-z]{1,4}\Z").filter(
    lambda n: not n.startswith(("engine.", "default.", "obligation.", "requirement."))
)
reasons = st.lists(st.builds(reason, names), max_size=3)
obligations = st.lists(
    st.one_of(
        st.builds(lambda s: {"id": "o.t", "kind": "timeout", "timeout_s": s}, st.integers(1, 100)),
        st.builds(lambda n: {"id": "o.r", "kind": "rate_limit", "per_minute": n}, st.integers(1, 100)),
        st.just({"id": "o.x", "kind": "verify"}),
    ),
    max_size=2,
)
packages = st.fixed_dictionaries(
    {"allow": reasons, "deny": reasons, "hint": reasons, "require": reasons, "oblige": obligations}
)
STRICTNESS = {Effect.ALLOW: 0, Effect.NEEDS_APPROVAL: 1, Effect.DENY: 2}


def gathered(*exports: dict[str, list[Any]]) -> bytes:
    """The document of packages p0, p1, ..."""
    parts = ("allow", "deny", "hint", "require", "oblige")
    return said(**{part: {f"p{n}": export[part] for n, export in enumerate(exports)} for part in parts})


@given(st.lists(packages, max_size=3), packages)
def test_adding_a_package_without_allow_never_loosens(
    loaded: list[dict[str, list[Any]]], added: dict[str, Any]
) -> None:
    """More policy without an allow means at least as strict, in effect and in obligations."""
    before = decide(gathered(*loaded))
    after = decide(gathered(*loaded, added | {"allow": []}))
    assert STRICTNESS[after.effect] >= STRICTNESS[before.effect]
    old, new = before.obligations, after.obligations
    assert old.timeout_s is None or (new.timeout_s is not None and new.timeout_s <= old.timeout_s)
    assert old.per_minute is None or (new.per_minute is not None and new.per_minute <= old.per_minute)


@given(st.lists(packages, max_size=3), reasons.filter(bool))
def test_deny_dominates(loaded: list[dict[str, list[Any]]], denies: list[Any]) -> None:
    """Whatever others say, a deny denies, with a reason first that is no fault."""
    empty: dict[str, list[Any]] = {"allow": [], "hint": [], "require": [], "oblige": []}
    decision = decide(gathered(*loaded, empty | {"deny": denies}))
    assert decision.effect is Effect.DENY
    assert decision.reasons
    assert not decision.faulty


@given(st.binary(max_size=200) | st.lists(packages, max_size=2).map(lambda p: gathered(*p)))
def test_every_decision_has_a_reason(result: bytes) -> None:
    """The first reason is there for every result, and only faults begin with ``engine.``."""
    decision = decide(result)
    assert decision.reasons
    assert decision.faulty == (decision.reasons[0].id in ("engine.bad_shape", "engine.undefined"))


def tool(effect: EffectClass, *, listed: bool = True) -> Tool:
    """A tool of that class."""
    return Tool("s", "t", ConnectorKind.MCP, {}, "", effect=effect, listed=listed)


@pytest.mark.parametrize("effect", [EffectClass.READ, EffectClass.WRITE])
def test_observe_mode_lets_reads_and_writes_pass(effect: EffectClass) -> None:
    """In observe mode a refusal is recorded, not enforced."""
    denied = decide(said())
    assert not in_mode(denied, tool(effect), observe=False).passes
    observed = in_mode(denied, tool(effect), observe=True)
    assert observed.passes
    assert observed.effect is Effect.DENY
    asked = decide(said(allow=ALLOW, require={"y": [reason("y.two")]}))
    assert in_mode(asked, tool(effect), observe=True).passes


@pytest.mark.parametrize("effect", [EffectClass.MONEY, EffectClass.DESTRUCTIVE])
def test_observe_mode_never_lets_money_or_destruction_pass(effect: EffectClass) -> None:
    """Observe mode ends where harm begins."""
    assert not in_mode(decide(said()), tool(effect), observe=True).passes


def test_observe_mode_never_lets_faults_or_unknown_tools_pass() -> None:
    """A fault is no word of policy, and what does not exist cannot be observed."""
    assert not in_mode(decide(None), tool(EffectClass.READ), observe=True).passes
    assert not in_mode(decide(said()), tool(EffectClass.READ, listed=False), observe=True).passes


def test_allow_stays_enforced_in_observe_mode() -> None:
    """Nothing to let pass, nothing marked."""
    assert in_mode(decide(said(allow=ALLOW)), tool(EffectClass.READ), observe=True).enforced
