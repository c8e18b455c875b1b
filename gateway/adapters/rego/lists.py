"""The data the shipped packages read, as a closed model: what is mistyped there would otherwise silently allow.

``data.gateway`` holds ``scope``, ``limits``, ``approval``, ``sandbox`` and nothing else; other packages' data stands
elsewhere under ``data``.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from gateway.core.canonical import MAX_SAFE_INTEGER

_NAME = r"[A-Za-z0-9][A-Za-z0-9._@:+/-]{0,127}"
# Besides names, what addresses are made of: no character that means something to a regular expression, but for + that
# the lists escape, and no comma, which separates alternatives.
_WORD = r"[A-Za-z0-9_.*?/:~@%=&#;'+-]"
_PATTERN = rf"^({_WORD}|\[!?[A-Za-z0-9_.]+\]|\{{{_WORD}+(,{_WORD}+)*\}})+$"
_SERVER = r"[a-z0-9]+([_-][a-z0-9]+)*"
_NAMED = r"(prompts/|completions/prompts/|hooks/)?[A-Za-z0-9_.-]{1,128}"
_ADDRESSED = r"((completions/)?resources|subscriptions)/[A-Za-z][A-Za-z0-9+.-]*:[!-~]{1,200}"
_TOOL = rf"^{_SERVER}\.({_NAMED}|{_ADDRESSED})$"
_MEASURE = r"^[a-z][a-z0-9_]{0,31}(\.[A-Z]{3})?$"
_WILD = re.compile(r"[*?\[{]")

_Name = Annotated[str, StringConstraints(pattern=rf"^{_NAME}$")]
_NameOrAll = Annotated[str, StringConstraints(pattern=rf"^(\*|{_NAME})$")]
_Pattern = Annotated[str, StringConstraints(pattern=_PATTERN, max_length=300)]
_Tool = Annotated[str, StringConstraints(pattern=_TOOL)]
_Measure = Annotated[str, StringConstraints(pattern=_MEASURE)]
_Bound = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Lists(_Closed):
    allow: list[_Pattern] = []
    deny: list[_Pattern] = []


class _Scope(_Closed):
    agents: dict[_NameOrAll, _Lists] = {}
    users: dict[_NameOrAll, _Lists] = {}
    groups: dict[_Name, _Lists] = {}


class _Limit(_Closed):
    calls_per_run: _Bound = 0
    sums_per_run: dict[_Measure, _Bound] = Field({}, min_length=1)

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("says neither calls_per_run nor sums_per_run")
        return self


class _Sandbox(_Closed):
    accept_missing: list[Literal["memory", "pids", "cpu", "inodes", "seccomp"]] = []


class _People(_Closed):
    quorum: Annotated[int, Field(ge=1, le=100)] = 1
    roles: list[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]] = []
    ttl_s: Annotated[int, Field(ge=1, le=30 * 86_400)] = 86_400


class _Approval(_Closed):
    tools: dict[_Tool, _People] = {}
    effects: dict[Literal["read", "write", "destructive", "money"], _People] = {}
    unattended: list[_Tool] = []


class _Gateway(_Closed):
    scope: _Scope = _Scope()
    sandbox: _Sandbox = _Sandbox()
    limits: dict[_Tool, _Limit] = {}
    approval: _Approval = _Approval()


class _Data(BaseModel):
    gateway: _Gateway = _Gateway()


def problems(data: Mapping[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """What the shipped packages could not read as it was meant: (path below ``data``, words)."""
    try:
        _Data.model_validate(data)
    except ValidationError as error:
        return [_problem(item["loc"], item["type"], item["msg"]) for item in error.errors(include_url=False)]
    return []


def unmatched(data: Mapping[str, Any], tools: Collection[str]) -> list[str]:
    """Entries of scope and limits that name one tool which is not in ``tools`` (``server.name``), with their place."""
    return [f"{place}: {entry}" for place, entry in _entries(data) if not _WILD.search(entry) and entry not in tools]


def idle(data: Mapping[str, Any], tools: Collection[str]) -> list[str]:
    """Entries with wildcards that match none of ``tools``: odd, but they may be meant for tools to come."""
    wild = [(place, entry) for place, entry in _entries(data) if _WILD.search(entry)]
    return [f"{place}: {entry}" for place, entry in wild if not any(map(_matcher(entry), tools))]


def _problem(where: tuple[str | int, ...], kind: str, words: str) -> tuple[tuple[str, ...], str]:
    path = tuple(str(part) for part in where if part != "[key]")
    if kind == "extra_forbidden":
        words = "there is no such key"
    elif kind == "string_pattern_mismatch":
        words = "not of the form that is asked for here"
    return path, words


def _entries(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    gateway = data.get("gateway", {})
    for kind, holders in gateway.get("scope", {}).items():
        for name, lists in holders.items():
            for which, patterns in lists.items():
                yield from ((f"data.gateway.scope.{kind}.{name}.{which}", pattern) for pattern in patterns)
    yield from (("data.gateway.limits", tool) for tool in gateway.get("limits", {}))
    approval = gateway.get("approval", {})
    yield from (("data.gateway.approval.tools", tool) for tool in approval.get("tools", {}))
    yield from (("data.gateway.approval.unattended", tool) for tool in approval.get("unattended", ()))


def _matcher(pattern: str) -> Callable[[str], object]:
    # As the engine reads it: * any characters, ? one, [ab], {a,b}.
    words = {"*": ".*", "?": ".", "{": "(?:", "}": ")", ",": "|"}
    parts = re.findall(r"\[[^]]*\]|.", pattern)
    whole = [part.replace("[!", "[^") if part[0] == "[" else words.get(part, re.escape(part)) for part in parts]
    return re.compile("".join(whole)).fullmatch
