"""The command line against the real admin API, by its Unix socket and by its URL."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from click.testing import CliRunner, Result

from gateway.cli.root import ostiary
from gateway.core.desk import LogRecord
from gateway.core.errors import Denied, Reason
from gateway.edge.asgi import Options
from tests.edge_world import Edge
from tests.served_edge import running, served

CALL = "0197a000-0000-7000-8000-00000000c0de"
RUN = "0197a000-0000-7000-8000-00000000000a"


def record(index: int, kind: str, **body: Any) -> LogRecord:
    """A record of the log."""
    leaf = {"type": kind, "ts": 1_750_000_000_000_000 + index, "call_id": CALL, "run_id": RUN, "body": body}
    return LogRecord(index, b"", leaf)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder."""
    return tmp_path_factory.mktemp("s")


@pytest.fixture(scope="module")
def edge(folder: Path) -> Edge:
    """The surfaces on fakes; whoever comes by the socket is the local operator."""
    return Edge(Options(operator_socket=str(folder / "admin.sock")))


@pytest.fixture(scope="module")
def state(edge: Edge, folder: Path) -> Iterator[tuple[Path, str]]:
    """The state folder of a running gateway, and its URL."""
    with served(edge, folder / "admin.sock") as url:
        yield folder, url


def ask(state: tuple[Path, str], *words: str) -> Result:
    """Run a command against the running gateway's socket."""
    env = {"OSTIARY_URL": None, "OSTIARY_TOKEN": None, "OSTIARY_STATE": str(state[0])}
    return CliRunner().invoke(ostiary, words, env=env)


def told(result: Result) -> Any:
    """The JSON of the last line of stdout of a command that went well."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_a_tool_is_called_with_the_callers_own_token(state: tuple[Path, str]) -> None:
    """By the socket and by the URL alike; the answer names call and run."""
    for where in ([], ["--url", state[1]]):
        answer = told(ask(state, "tool", "call", "erp.stock", "--arg", "sku=A-1", "--token", "good", "--json", *where))
        assert {"call_id", "run_id", "result"} <= answer.keys()


def test_the_socket_alone_calls_no_tool(state: tuple[Path, str]) -> None:
    """Without a token nothing is sent."""
    assert ask(state, "tool", "call", "erp.stock").exit_code == 2


def test_tools_are_listed_for_people_and_machines(state: tuple[Path, str]) -> None:
    """A table with names and effects, and the same as JSON."""
    names = [tool["name"] for tool in told(ask(state, "tool", "list", "--token", "good", "--json"))["tools"]]
    assert names
    plain = ask(state, "tool", "list", "--token", "good")
    assert plain.stdout.startswith("TOOL")
    assert all(name in plain.stdout for name in names)


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [('{"a": 1, "a": 2}', "duplicate_key"), ('{"a": NaN}', "number"), ('{"a": "\\u0000"}', "nul")],
)
def test_what_the_user_wrote_is_judged_by_the_gateway(state: tuple[Path, str], arguments: str, cause: str) -> None:
    """--arguments goes out as it was written, so ambiguous JSON is refused there and not mended here."""
    done = ask(state, "tool", "call", "erp.stock", "--arguments", arguments, "--token", "good", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout.splitlines()[-1])["cause"] == cause


def test_a_bad_token_is_exit_code_one_and_says_where_tokens_come_from(state: tuple[Path, str]) -> None:
    """Problem documents become lines on stderr; stdout stays empty without --json."""
    done = ask(state, "tool", "list", "--token", "forged")
    assert done.exit_code == 1
    assert "ostiary token issue" in done.stderr
    assert done.stdout == ""


def test_a_denial_teaches(state: tuple[Path, str], edge: Edge) -> None:
    """Rule, message and the fact it looked at are shown, with control characters of others escaped."""
    reason = Reason("scope.not_granted", "authz", "no list covers \x1b[31mit", "data.gateway.scope.agents.x.allow")
    edge.world.journal.fail("policy.evaluate", Denied("policy does not allow this call", reasons=(reason,)))
    try:
        done = ask(state, "tool", "call", "erp.stock", "--token", "good")
    finally:
        edge.world.journal.traps.clear()
    assert done.exit_code == 1
    for words in ("scope.not_granted", "no list covers \\x1b[31mit", "look at: data.gateway.scope", "ostiary explain"):
        assert words in done.stderr


def test_a_run_is_opened_shown_and_ended(state: tuple[Path, str], edge: Edge) -> None:
    """The answer holds the run's id and the agent's token; every wish reaches the run."""
    words = ["--scope", "erp.*", "--scope", "crm.read", "--budget", "calls=5", "--plan", "erp.stock", "--ttl", "60"]
    opened = told(ask(state, "run", "open", "--goal", "count", "--agent", "ap-agent", *words, "--json"))
    run = edge.world.runs.opened[opened["run_id"]]
    assert (run.goal, run.scope, dict(run.budget), run.plan) == (
        "count",
        ("erp.*", "crm.read"),
        {"calls": 5},
        ("erp.stock",),
    )
    assert edge.world.identity.tokens[opened["token"]].run == run.id
    assert told(ask(state, "run", "show", run.id, "--json"))["goal"] == "count"
    assert f"ended  {run.id}" in ask(state, "run", "end", run.id).stdout


def test_no_such_run_is_exit_code_one(state: tuple[Path, str]) -> None:
    """An id with a slash stays one path segment."""
    assert ask(state, "run", "show", "nope").exit_code == 1
    assert ask(state, "run", "show", "../audit/records").exit_code == 1


def test_the_log_is_searched_by_every_condition(state: tuple[Path, str], edge: Edge) -> None:
    """Conditions reach the reader; records come flat, with their index, and page on."""
    edge.reader.records[:] = [record(at, "decision", tool="erp.stock", effect="deny") for at in range(3)]
    conditions = ["--type", "decision", "--run", RUN, "--call", CALL, "--since", "2020-01-01", "--until", "2030-01-01"]
    found = told(ask(state, "audit", "search", *conditions, "--limit", "2", "--json"))
    assert [(line["index"], line["type"]) for line in found["records"]] == [(0, "decision"), (1, "decision")]
    assert found["next"] == 1
    rest = told(ask(state, "audit", "search", "--after", "1", "--json"))
    assert [line["index"] for line in rest["records"]] == [2]
    assert told(ask(state, "audit", "search", "--since", "1s", "--json"))["records"] == []
    assert "erp.stock" in ask(state, "audit", "search").stdout


def test_the_log_is_searched_in_words(state: tuple[Path, str], edge: Edge) -> None:
    """The query and the options are one thing; what is wrong with it is said with its place."""
    edge.reader.records[:] = [record(0, "decision"), record(1, "tool.requested"), record(2, "tool.completed")]

    def found(*words: str) -> list[int]:
        return [row["index"] for row in told(ask(state, "audit", "search", "--json", *words))["records"]]

    assert found("type:tool.*") == found("--type", "tool.*") == [1, 2]
    assert found("type:tool.*", "--until", "2025-06-15", "--type", "*.completed") == [2]
    assert found("--", "-type:tool.* until:2025-06-15") == [0]
    assert edge.searches.recorded[-1][0] == "operator"
    wrong = ask(state, "audit", "search", "type:decison")
    assert wrong.exit_code == 1
    assert "at character 6: no record has the type 'decison'; did you mean decision?" in wrong.stderr


def test_a_runs_timeline_is_shown_whole(state: tuple[Path, str], edge: Edge) -> None:
    """All pages of it are fetched."""
    edge.reader.records[:] = [record(at, "tool.requested", tool="erp.stock") for at in range(1500)]
    assert len(told(ask(state, "audit", "run", RUN, "--json"))["records"]) == 1500


def test_explain_says_why(state: tuple[Path, str], edge: Edge) -> None:
    """Outcome, and each reason with the fact it looked at."""
    edge.reader.records[:] = [record(0, "decision", effect="deny"), record(1, "request.refused", code="denied")]
    reasons = [
        {"id": "limits.calls_per_run", "package": "limits", "msg": "3 are allowed", "fact": "data.gateway.limits"}
    ]
    edge.reader.payloads[CALL, "reasons"] = {"effect": "deny", "reasons": reasons}
    done = ask(state, "explain", CALL)
    for words in ("denied", "limits.calls_per_run", "3 are allowed", "look at: data.gateway.limits"):
        assert words in done.stdout
    assert told(ask(state, "explain", CALL, "--json"))["reasons"] == reasons
    assert ask(state, "audit", "why", CALL).stdout == done.stdout


def test_what_is_no_gateway_is_said_to_be_none(tmp_path: Path) -> None:
    """Another server on that socket is not taken for a gateway."""

    async def stranger(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"<html>hello</html>"})

    config = uvicorn.Config(stranger, uds=str(tmp_path / "admin.sock"), lifespan="off", log_level="error", ws="none")
    with running(config):
        done = ask((tmp_path, ""), "run", "show", "x")
    assert done.exit_code == 1
    assert "no gateway" in done.stderr
