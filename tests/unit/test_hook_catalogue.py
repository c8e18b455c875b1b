"""What coding agents do themselves, in the catalogue: known by agent, declared by people, held to nothing here."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from gateway.core.tool import ConnectorKind, EffectClass, Kind, Tool
from gateway.settings import GatewaySettings, SettingsError, catalogue
from gateway.settings.file import development, proposed

CODER = '[upstreams.coder]\nkind = "hook"\nclient = "claude-code"\n'
HOOKED = 'state = "s"\n' + CODER


def tools(tmp_path: Path, entries: list[dict[str, Any]], text: str = HOOKED) -> dict[str, Tool]:
    """The tools of settings with these entries, by name."""
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"tool": entries}), "utf-8")
    settings: GatewaySettings = proposed(text, tmp_path / "gateway.toml", None)
    found = catalogue.load([path])
    both = [*catalogue.declared(found, settings), *catalogue.advised(found, settings)]
    return {tool.fqn: tool for tool in both}


def test_an_agents_own_tools_are_known(tmp_path: Path) -> None:
    """Of the kind that nothing carries out; what starts programs or replaces files whole may destroy."""
    found = tools(tmp_path, [])
    shell = found["coder.hooks/Bash"]
    assert (shell.kind, shell.connector, shell.effect) == (Kind.HOOK, ConnectorKind.HOOK, EffectClass.DESTRUCTIVE)
    assert found["coder.hooks/Read"].effect is EffectClass.READ
    assert found["coder.hooks/EnterPlanMode"].effect is EffectClass.READ
    assert found["coder.hooks/ReadMcpResourceTool"].effect is EffectClass.WRITE
    assert {tool.kind for tool in found.values()} == {Kind.HOOK}
    assert shell.binding == {"approval": "deny"}


def test_people_say_more_and_otherwise(tmp_path: Path) -> None:
    """Another effect class and a schema of its arguments; tools that nobody knew, such as another server's."""
    entries: list[dict[str, Any]] = [
        {"server": "coder", "name": "hooks/Bash", "effect": "write", "input_schema": {"required": ["command"]}},
        {"server": "coder", "name": "hooks/mcp__wiki__search", "effect": "read"},
    ]
    found = tools(tmp_path, entries)
    assert found["coder.hooks/Bash"].effect is EffectClass.WRITE
    assert found["coder.hooks/Bash"].definition["inputSchema"] == {"required": ["command"]}
    assert found["coder.hooks/mcp__wiki__search"].definition["inputSchema"] == {"type": "object"}
    only = tools(tmp_path, entries, HOOKED.replace('client = "claude-code"\n', 'approval = "ask"\n'))
    assert {name: tool.binding["approval"] for name, tool in only.items()} == {
        entry_name(one): "ask" for one in entries
    }


def entry_name(entry: dict[str, Any]) -> str:
    """``server.name`` of an entry."""
    return f"{entry['server']}.{entry['name']}"


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"limits": {"per_minute": 3}}, "limits: what an agent does itself cannot be held to that"),
        ({"measures": []}, "measures: what"),
        ({"output_schema": {}}, "output_schema: what"),
        ({"http": {"method": "GET", "path": "/x"}}, "http: what"),
        ({"name": "Bash"}, "is of kind hook, not mcp"),
        ({"server": "other"}, "no [upstreams.other]"),
        ({"name": "hooks/../Bash"}, "should match pattern"),
    ],
)
def test_what_would_bind_nothing_is_refused(tmp_path: Path, members: dict[str, Any], said: str) -> None:
    """A limit in the file would look as if it were one."""
    with pytest.raises(SettingsError) as caught:
        tools(tmp_path, [{"server": "coder", "name": "hooks/Bash"} | members])
    assert said in "; ".join(caught.value.problems)


def test_a_hook_of_an_upstream_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Its name would say what it is not."""
    with pytest.raises(SettingsError, match="is of kind http, not hook"):
        tools(
            tmp_path,
            [{"server": "api", "name": "hooks/X"}],
            'state = "s"\n[upstreams.api]\nkind = "http"\norigin = "https://a.example.org"\n',
        )


def test_up_allows_what_was_put_in_place(tmp_path: Path) -> None:
    """By entries that begin so, as no other covers an agent's own tools."""
    (tmp_path / "gateway.toml").write_text(f'{CODER}[upstreams.x]\nkind = "code"\n', "utf-8")
    scope = development(tmp_path, 0, {}).policy.data["gateway"]["scope"]
    assert scope["agents"]["dev-agent"]["allow"] == ["coder.hooks/*", "x.*"]


def test_what_policy_reads_of_it_fits_the_published_schema(tmp_path: Path) -> None:
    """The kind, and that nothing carries it out."""
    folder = Path(catalogue.__file__).parents[1] / "schemas"
    schema = json.loads((folder / "policy-input.v1.json").read_text("utf-8"))
    tool = tools(tmp_path, [])["coder.hooks/Bash"]
    for name, value in (("kind", tool.kind), ("connector", tool.connector)):
        part = schema["properties"][name] if name == "kind" else schema["properties"]["tool"]["properties"][name]
        assert jsonschema_rs.Draft202012Validator(part).is_valid(str(value))
