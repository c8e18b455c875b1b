"""Packages of the gallery before real tools: reached within bounds, never outside of them, and people are asked."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from tests.e2e.gallery_site import OWN, Site, open_site, parked
from tests.gateways import until


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One gateway for all tests of this file."""
    with open_site(tmp_path_factory.mktemp("gallery")) as opened:
        yield opened


def reasons(answer: httpx.Response) -> list[str]:
    """Ids of the reasons of a denial."""
    assert answer.status_code == 403, answer.text
    return [reason["id"] for reason in answer.json()["reasons"]]


@pytest.mark.requirement("GATE-2")
def test_infrastructure_change_before_an_http_api(site: Site) -> None:
    """Staging goes alone; production without ticket or for too many is refused; within bounds a person signs it."""
    _, token = site.gateway.run("ops-agent")
    assert site.gateway.call(token, "infra.scale", {"what": "s1", "environment": "staging", "count": 5}).is_success
    assert [line["body"]["what"] for line in site.api.journal("s1")] == ["s1"]
    change = {"what": "p1", "environment": "production", "count": 3, "ticket": "CHG-42"}
    refused: list[tuple[dict[str, Any], str]] = [
        ({"environment": "prod"}, "infrastructure.environment"),
        ({"count": 4}, "infrastructure.most"),
        ({"ticket": "later"}, "infrastructure.ticket"),
    ]
    for other, reason in refused:
        assert reasons(site.gateway.call(token, "infra.scale", change | other)) == [reason]
    waiting = site.gateway.call(token, "infra.scale", change)
    assert site.api.journal("p1") == []
    assert site.approved(token, "infra.scale", change, waiting).json()["replayed"]
    assert [line["body"] for line in site.api.journal("p1")] == [change]


@pytest.mark.requirement("GATE-3")
def test_access_change_before_a_database(site: Site) -> None:
    """A small role goes alone; one's own, an unlisted one or too long is refused; editing needs its owner's word."""
    _, token = site.gateway.run("helpdesk")
    assert site.gateway.call(token, "iam.grant", {"user": "ben", "role": "reader", "days": 90}).is_success
    assert site.rows("ben") == [("reader", 90)]
    refused: list[tuple[dict[str, Any], str]] = [
        ({"user": "Dora"}, "access.own"),
        ({"role": "owner"}, "access.role"),
        ({"days": 31}, "access.days"),
        ({"user": "cаrl"}, "access.user"),  # noqa: RUF001 - the second letter is Cyrillic
    ]
    grant = {"user": "carl", "role": "editor", "days": 30}
    for other, reason in refused:
        assert reasons(site.gateway.call(token, "iam.grant", grant | other)) == [reason]
    waiting = site.gateway.call(token, "iam.grant", grant)
    assert site.rows("carl") == []
    assert site.approved(token, "iam.grant", grant, waiting).json()["replayed"]
    assert site.rows("carl") == [("editor", 30)]


def test_evidence_and_confidence_from_the_agents_mouth(site: Site) -> None:
    """A call is made only with an earlier one of its own run that succeeded, and by an agent that is sure of it."""
    _, token = site.gateway.run("helpdesk")
    _, other = site.gateway.run("helpdesk")
    assert site.gateway.call(token, "iam.grant", {"user": "eve", "role": "reader", "days": 1}).is_success
    found = site.gateway.call(token, "iam.find", {"user": "eve"}).json()["call_id"]
    elsewhere = site.gateway.call(other, "iam.find", {"user": "eve"}).json()["call_id"]
    arguments, sure = {"arguments": {"user": "eve"}}, {"risk": {"confidence_pct": 80}}
    no_proof: list[dict[str, Any]] = [{}, {"evidence": []}, {"evidence": [elsewhere]}]
    for named in no_proof:
        assert reasons(site.post(token, "iam.revoke", arguments | sure | named)) == ["evidence.missing"]
    proof = {"evidence": [elsewhere, found]}
    assert reasons(site.post(token, "iam.revoke", arguments | proof)) == ["confidence.silent"]
    doubt = {"risk": {"confidence_pct": 49}}
    assert "confidence.too_low" in reasons(site.post(token, "iam.revoke", arguments | proof | doubt))
    assert site.rows("eve") == [("reader", 1)]
    words = ("tool", "call", "iam.revoke", "--arg", "user=eve", "--confidence", "80", "--evidence")
    assert "result" in site.gateway.ask(*words, found, token=token)
    assert site.rows("eve") == []


@pytest.mark.requirement("HITL-2")
def test_calls_go_to_people_or_past_them_by_confidence(site: Site) -> None:
    """The same call: sure enough it is made, not sure enough it waits, and the person is told how sure the agent is."""
    _, token = site.gateway.run("helpdesk")
    found = site.gateway.call(token, "iam.find", {"user": "fay"}).json()["call_id"]
    call: dict[str, Any] = {"arguments": {"user": "fay"}, "evidence": [found]}
    assert site.post(token, "iam.revoke", call | {"risk": {"confidence_pct": 95}}).is_success
    waiting = parked(site.post(token, "iam.revoke", call | {"risk": {"confidence_pct": 60}}))
    (reason, *_) = site.gateway.ask("approval", "show", waiting)["reasons"]
    assert reason == {"id": "confidence.ask", "msg": "the agent is 60 % sure of this call"}


@pytest.mark.requirement("HITL-1")
def test_verify_only_nothing_is_done_before_a_person_has_looked(site: Site) -> None:
    """Neither a read nor a change reaches its tool; the same calls of another agent do."""
    _, token = site.gateway.run("watcher")
    parked(site.gateway.call(token, "iam.find", {"user": "gil"}))
    staging = {"what": "v1", "environment": "staging", "count": 1}
    waiting = site.gateway.call(token, "infra.scale", staging)
    assert site.api.journal("v1") == []
    assert site.approved(token, "infra.scale", staging, waiting).json()["replayed"]
    assert [line["body"] for line in site.api.journal("v1")] == [staging]
    _, other = site.gateway.run("helpdesk")
    assert site.gateway.call(other, "iam.find", {"user": "gil"}).is_success


@pytest.mark.requirement("HITL-4")
def test_escalation_to_the_named_role(site: Site) -> None:
    """Cost, personal data and regulation each wait for their own people; who has the role signs, and it is done."""
    _, token = site.gateway.run("helpdesk")
    asked = {}
    for tool in ("crm.call", "crm.update", "crm.report"):
        waiting = parked(site.gateway.call(token, tool, {"what": f"e-{tool}"}))
        (need,) = site.gateway.ask("approval", "show", waiting)["requirements"]
        asked[tool] = (need["id"], need["roles"], need["quorum"])
    assert asked == {
        "crm.call": ("escalation.cost", ["budget-owner"], 1),
        "crm.update": ("escalation.personal", ["privacy"], 1),
        "crm.report": ("escalation.regulatory", ["compliance"], 2),
    }
    for tool, code in {"crm.report": 1, "crm.update": 0}.items():
        waiting = parked(site.gateway.call(token, tool, {"what": f"e-{tool}"}))
        site.gateway.ask("approve", waiting, "--yes", "--key", site.key, code=code)
    until(lambda: site.api.journal("e-crm.update"))
    assert site.api.journal("e-crm.report") == []


@pytest.mark.requirement("GOV-5")
def test_from_observed_to_a_small_group_to_everyone(site: Site) -> None:
    """By one word of the settings, while the gateway runs."""
    _, token = site.gateway.run("helpdesk")
    pilot = site.gateway.token("ben", agent="helpdesk", groups=["desk", "crm-pilot"])
    rollout: dict[str, Any] = OWN["phases"]["rollouts"]["notes"]

    def reach(phase: str) -> list[int]:
        return [site.gateway.call(who, "crm.note", {"what": phase}).status_code for who in (pilot, token)]

    def reaches(phase: str, ends: list[int]) -> bool:
        return reach(phase) == ends

    assert reach("observe") == [403, 403]
    for phase, ends in {"small_group": [200, 403], "widen": [200, 200]}.items():
        site.set("phases", {"rollouts": {"notes": rollout | {"phase": phase}}})
        until(partial(reaches, phase, ends))
    assert site.api.journal("observe") == []
