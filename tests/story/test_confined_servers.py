"""A whole gateway and stdio servers: boxes as settings say, a process for each caller, what operators are told."""

import json
import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from connectors.mcp.places import Crowd
from gateway import app
from gateway.core.sandbox import Capabilities
from gateway.edge.mcp.parking import Room
from gateway.parts import confining, upstreams
from gateway.parts.confining import Confining
from gateway.settings import GatewaySettings, SettingsError
from gateway.settings.upstreams import McpUpstream
from sandbox.runner import Options
from tests.boxes import marked
from tests.contract.test_mcp_connector_callers import by
from tests.evidence import lease, make_tool
from tests.processes import FIXTURES
from tests.stdio_boxes import PYTHON, seen
from tests.story.test_discovery import settings

MARK = f"c-{os.getpid()}"
HOSTILE = f'command = ["{PYTHON}", "-I", "{FIXTURES / "hostile_stdio.py"}", "{MARK}"]'
SERVER = f'kind = "mcp"\ntrust = "first_use"\n{HOSTILE}'
ALL = '["memory", "pids", "cpu", "inodes", "seccomp"]'


@pytest.fixture(scope="module")
def found() -> Capabilities:
    """What this host holds, tried once."""
    return anyio.run(seen)


def boxed(folder: Path, *lines: str) -> str:
    """A section of a server in a box that may read ``folder``, in which the state folder is."""
    folder.chmod(0o755)
    read = json.dumps([str(FIXTURES), str(folder)])
    return "\n".join(
        [f"[upstreams.boxed]\n{SERVER}", *lines, f"[upstreams.boxed.sandbox]\nread = {read}\naccept_missing = {ALL}"]
    )


async def test_a_server_in_a_box_sees_nothing_of_the_gateway(tmp_path: Path, found: Capabilities) -> None:
    """It is listed and called as any other, and where the state folder lies there is an empty one."""
    given = settings(tmp_path, boxed(tmp_path), "[discovery]\nstart_s = 30")
    async with app.opened(given, "http://gateway.test") as gateway:
        catalog = gateway.parts.ports.catalog
        assert "boxed.look" in {tool.fqn for tool in catalog.tools()}, found
        aims: dict[str, Any] = {"pids": [os.getpid()], "sockets": [], "port": 9}
        aims["paths"] = [str(tmp_path / "gateway.toml"), *map(str, sorted((tmp_path / "state" / "keys").iterdir()))]
        assert len(aims["paths"]) > 2
        raw = await catalog.invoke(lease(make_tool("look", server="boxed"), aims))
        assert raw.value["structuredContent"]["said"] == [f"read {tmp_path}/gateway.toml"]
        assert len(marked(MARK)) == 2  # one that stands, and the caller's
    assert not marked(MARK)


async def test_the_check_says_how_each_server_is_held(tmp_path: Path, found: Capabilities) -> None:
    """What a box shows, and that a server without one is held by nothing."""
    given = settings(tmp_path, boxed(tmp_path), f"[upstreams.open]\n{SERVER}")
    said = {finding.part: finding for finding in await app.check(given)}
    assert all(finding.ok for finding in said.values()), found
    assert said["confinement:boxed"].text.startswith(
        f"in a box: reads {FIXTURES}, reads {tmp_path}, no network; need not"
    )
    assert said["confinement:open"].text.startswith("not confined: it may do whatever the gateway's user may")
    assert str(found.backend) in said["sandbox"].text
    (warning,) = confining.warnings(given)
    assert warning.startswith("open is not confined: ")
    assert warning.endswith("give it [upstreams.open.sandbox].")


def test_what_a_network_gives_is_said_in_plain_words(tmp_path: Path) -> None:
    """By the check and at the start: what of this deployment is in reach by name, what else; no password."""
    given = settings(
        tmp_path,
        f"[upstreams.web]\n{SERVER}\n[upstreams.web.sandbox]\nnetwork = true",
        '[upstreams.near]\nkind = "mcp"\nurl = "http://u:secret@localhost:9/mcp"',
        '[upstreams.far]\nkind = "mcp"\nurl = "https://tools.example/mcp"',
        '[upstreams.api]\nkind = "http"\norigin = "http://[::1]:8080"',
        '[vault]\naddress = "http://127.0.0.1:8200"\ntoken = { env = "X" }',
    )
    held = Capabilities("bwrap 1", held={"memory": "cgroup"})
    said = {finding.part: finding.text for finding in confining.findings(given, held)}
    assert said["confinement:web"].endswith("the host's network, unfiltered")
    words = said["confinement:web:network"]
    for named in ("this gateway (127.0.0.1:", "its vault (127.0.0.1:8200)", "near (localhost:9)", "api ([::1]:8080)"):
        assert named in words
    assert "169.254.169.254" in words
    assert "secret" not in words
    assert "far" not in words
    (warning,) = confining.warnings(given)
    assert warning.startswith("web has the host's network: it reaches all that this host reaches, and nothing filters")


def test_who_decides_is_named_where_it_is_in_reach(tmp_path: Path) -> None:
    """An OPA on the loopback takes policy from whoever asks, unless it wants a token; so are issuers and sources."""
    given = settings(
        tmp_path,
        f"[upstreams.web]\n{SERVER}\n[upstreams.web.sandbox]\nnetwork = true",
        '[policy]\nengine = "opa"\n[policy.opa]\nurl = "http://127.0.0.1:8181"',
        '[policy.sources.main]\nurl = "http://localhost:81/p.tar.gz"\npublic_key = "/k"',
        '[identity.issuers.corp]\nissuer = "http://127.0.0.1:82"\naudience = ["x"]',
        '[connections.hub]\nissuer = "http://[::1]:83"\nclient_id = "x"\ntoken_role = "x"',
        '[vault]\naddress = "https://vault.example"\ntoken = { env = "X" }',
    )
    (warning,) = confining.warnings(given)
    for named in (
        "who decides (127.0.0.1:8181)",
        "the policy source main (localhost:81)",
        "the issuer corp (127.0.0.1:82)",
        "the service hub ([::1]:83)",
    ):
        assert named in warning
    assert "its vault" not in warning


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "[::]", "[::ffff:127.0.0.1]", "127.9.9.9", "LOCALHOST", "localhost.", "tools.localhost"]
)
def test_this_host_has_many_names(tmp_path: Path, host: str) -> None:
    """What is dialled by any of them listens here."""
    given = settings(
        tmp_path,
        f"[upstreams.web]\n{SERVER}\n[upstreams.web.sandbox]\nnetwork = true",
        f'[upstreams.near]\nkind = "mcp"\nurl = "http://{host}:9/mcp"',
    )
    (warning,) = confining.warnings(given)
    assert f"near ({host}:9)" in warning


def test_a_host_that_cannot_hold_a_cap_is_told_how_to(tmp_path: Path) -> None:
    """Each server that is not started, with what would give what is missing and the line that accepts it."""
    given = settings(tmp_path, f"[upstreams.one]\n{SERVER}\n[upstreams.one.sandbox]\naccept_missing = ['cpu']")
    lacking = Capabilities("bwrap 1", missing=("memory", "cpu"), fixes={"memory": "be root", "cpu": "be root"})
    (finding,) = confining.findings(given, lacking)
    assert (finding.ok, finding.text) == (False, "not started: this host cannot hold memory")
    assert finding.fix == 'be root; or accept it: [upstreams.one.sandbox] accept_missing = ["memory", "cpu"]'
    none = Capabilities(None, missing=("sandbox",), fixes={"sandbox": "apt install bubblewrap"})
    (finding,) = confining.findings(given, none)
    assert finding.fix == ("apt install bubblewrap; or leave [upstreams.one.sandbox] out: it is then not confined")


async def test_each_box_knows_what_the_others_may_write(tmp_path: Path) -> None:
    """So that nothing in there is shown to it; its own is judged apart."""
    lines = [f"[upstreams.{name}]\n{SERVER}\n[upstreams.{name}.sandbox]" for name in ("one", "two")]
    given = settings(tmp_path, lines[0], 'write = ["/srv/one"]', lines[1], 'write = ["/srv/two"]')
    made = await confining.tried(given, upstreams.runner(given))
    others = {}
    for name, upstream in given.upstreams.items():
        assert isinstance(upstream, McpUpstream)
        box = made.boxing(name, upstream, "/usr/bin")
        assert box is not None
        others[name] = box.others
    assert others == {"one": ("/srv/two",), "two": ("/srv/one",)}


def one(given: GatewaySettings) -> McpUpstream:
    """Its only upstream."""
    (found,) = given.upstreams.values()
    assert isinstance(found, McpUpstream)
    return found


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            ["[upstreams.one.sandbox]", 'read = ["/usr/share"]', "", 'write = ["/proc/self"]'],
            "/proc/self is not for servers",
        ),
        (["[upstreams.one.sandbox]", 'read = ["/"]'], "/ is not for servers: name the folders they need"),
        (["[upstreams.one.sandbox]", 'read = ["/srv/../etc"]'], "/srv/../etc must be absolute, without .."),
        (["[upstreams.one.sandbox]", 'accept_missing = ["sandbox"]'], "upstreams.one.mcp.sandbox.accept_missing"),
        (["[upstreams.one.sandbox]", "nework = true"], "upstreams.one.mcp.sandbox.nework"),
        (['process = "call"'], "upstreams.one.mcp.process"),
        (["processes = 0"], "upstreams.one.mcp.processes"),
        (["processes_each = 0"], "upstreams.one.mcp.processes_each"),
        (["processes_each = 9"], "processes_each: more than processes (8), so it bounds nothing"),
        (['process = "shared"', "processes_each = 1"], "processes_each: callers have no processes of their own here"),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path: Path, lines: list[str], words: str) -> None:
    """With their key and what is wrong with them."""
    with pytest.raises(SettingsError) as caught:
        settings(tmp_path, f"[upstreams.one]\n{SERVER}", *lines)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "share"),
    [("", 6), ("processes = 1", 1), ("processes = 2", 1), ("processes_each = 8", 8), ("processes = 100", 75)],
)
def test_a_user_has_a_share_of_the_processes(tmp_path: Path, lines: str, share: int) -> None:
    """Where nothing is said it leaves a quarter to others."""
    assert one(settings(tmp_path, f"[upstreams.one]\n{SERVER}", lines)).user_share == share


@pytest.mark.parametrize("line", ['process = "shared"', "[upstreams.one.sandbox]"])
def test_a_server_by_url_is_not_started_here(tmp_path: Path, line: str) -> None:
    """So it has neither a process nor a box of ours."""
    with pytest.raises(SettingsError, match="a server by url is not started here"):
        settings(tmp_path, '[upstreams.one]\nkind = "mcp"\nurl = "http://127.0.0.1:9/mcp"', line)


def test_a_leased_server_has_a_process_for_each_call(tmp_path: Path) -> None:
    """Which leaves nothing to say about whose processes are."""
    with pytest.raises(SettingsError, match="with a leased credential each call has a process of its own"):
        settings(tmp_path, f'[upstreams.one]\n{SERVER}\ncredential = "x"\nprocess = "shared"')


@pytest.mark.parametrize(
    ("command", "section", "words"),
    [
        ("/opt/server/run", 'read = ["/srv"]', "its program {program} is not in the box: name its folder"),
        ("/opt/server/link", 'read = ["{folder}/opt"]', "its program {link} is not in the box"),
        (PYTHON, 'read = ["/srv"]', "its cwd {folder}/elsewhere is not in the box"),
    ],
)
def test_what_would_not_be_in_the_box_is_said_at_the_start(
    tmp_path: Path, command: str, section: str, words: str
) -> None:
    """A program or folder that the box does not show, also one that is reached by a link out of it."""
    places = {"folder": tmp_path, "program": tmp_path / "opt/server/run", "link": tmp_path / "opt/server/link"}
    places["program"].parent.mkdir(parents=True)
    (tmp_path / "real").write_text("#!/bin/sh\n")
    (tmp_path / "real").chmod(0o755)
    places["program"].write_text("#!/bin/sh\n")
    places["program"].chmod(0o755)
    places["link"].symlink_to(tmp_path / "real")
    program = command if command == PYTHON else f"{tmp_path}{command}"
    cwd = 'cwd = "elsewhere"' if command == PYTHON else ""
    lines = f'[upstreams.one]\nkind = "mcp"\ncommand = ["{program}"]\n{cwd}\n[upstreams.one.sandbox]\n'
    given = settings(tmp_path, lines + section.format(**places))
    with pytest.raises(SettingsError) as caught:
        Confining(Options(), None, Capabilities("bwrap 1")).boxing("one", one(given), os.defpath)
    assert f"upstreams.one.sandbox.read: {words.format(**places)}" in str(caught.value)


@pytest.mark.parametrize("line", ["", 'process = "caller"', 'process = "shared"'])
async def test_whose_a_process_is(tmp_path: Path, line: str) -> None:
    """A caller's, unless the settings say that all share one; its box hides the state folder."""
    given = settings(tmp_path, f"[upstreams.one]\n{SERVER}\n{line}")
    async with app.opened(given, "http://gateway.test") as gateway:
        for agent in ("alice", "bob"):
            await gateway.parts.ports.catalog.invoke(by(agent, "facts", server="one"))
        assert len(marked(MARK)) == (1 if "shared" in line else 3)
    assert upstreams.runner(given).options.hidden == (given.state,)


async def test_bounds_of_the_settings_reach_what_they_bound(tmp_path: Path) -> None:
    """Calls that wait for their clients, and processes of a server, in all and of one caller."""
    lines = ["processes = 4", "processes_each = 1", "idle_s = 7", "[limits]", "parked = 10", "parked_each = 3"]
    async with app.opened(settings(tmp_path, f"[upstreams.one]\n{SERVER}", *lines), "http://gateway.test") as gateway:
        mcp = gateway.app._mcp  # type: ignore[attr-defined]
        assert mcp._calls._parking._room == Room(10, 3)
        (connector,) = gateway.parts.ports.catalog.connectors.values()  # type: ignore[attr-defined]
        assert connector._crowd == Crowd(4, 1, 7.0)
