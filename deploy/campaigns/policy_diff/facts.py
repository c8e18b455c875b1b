"""Hypothesis strategies for the data that packages read: the closed model of the shipped ones, others by variation."""

from collections.abc import Mapping
from typing import Any, Final

from hypothesis import strategies as st

from deploy.campaigns.policy_diff.documents import GROUPS, MEASURES, NAMES, PEOPLE, SERVERS, TOOLS
from deploy.campaigns.policy_diff.starters import house
from gateway.core.tool import EffectClass

_OWN: Final = frozenset({"scope", "limits", "approval", "sandbox"})
_MAY_LACK: Final = ("memory", "pids", "cpu", "inodes", "seccomp")
_bound: Final = st.sampled_from((0, 1, 2, 3, 11, 12, 10**6, 2**53))
_tool: Final = st.sampled_from(TOOLS)
# Pieces of patterns, as ``lists.py`` lets them pass.
_piece: Final = st.sampled_from(
    (
        *SERVERS,
        *NAMES,
        ".",
        ".",
        "*",
        "*",
        "?",
        "_",
        "-",
        "[a.]",
        "[!x]",
        "[pe]",
        "{erp,crm}",
        "{a,b.}",
        "{pay,p*}",
        "{*}",
    )
)
_pattern: Final = st.one_of(
    _tool,
    st.sampled_from(("*", "erp.*", "*.pay", "e-r.*", "{erp,crm}.*")),
    st.lists(_piece, min_size=1, max_size=5).map("".join),
)
_lists: Final = st.fixed_dictionaries(
    {}, optional={"allow": st.lists(_pattern, min_size=1, max_size=3), "deny": st.lists(_pattern, max_size=2)}
)
_scope: Final = st.fixed_dictionaries(
    {},
    optional={
        "agents": st.dictionaries(st.sampled_from(("*", *PEOPLE)), _lists, max_size=3),
        "users": st.dictionaries(st.sampled_from(("*", *PEOPLE)), _lists, max_size=2),
        "groups": st.dictionaries(st.sampled_from(GROUPS), _lists, max_size=2),
    },
)
_sums: Final = st.dictionaries(st.sampled_from(MEASURES), _bound, min_size=1, max_size=2)
_limit: Final = st.one_of(
    st.fixed_dictionaries({"calls_per_run": _bound}, optional={"sums_per_run": _sums}),
    st.fixed_dictionaries({"sums_per_run": _sums}),
)
_people: Final = st.fixed_dictionaries(
    {},
    optional={
        "quorum": st.integers(1, 3),
        "roles": st.lists(st.sampled_from(("cfo", "ap", "sec.ops")), max_size=2),
        "ttl_s": st.sampled_from((1, 60, 86_400)),
    },
)
_approval: Final = st.fixed_dictionaries(
    {},
    optional={
        "tools": st.dictionaries(_tool, _people, max_size=2),
        "effects": st.dictionaries(
            st.sampled_from([str(effect) for effect in EffectClass]), _people, min_size=2, max_size=4
        ),
        "unattended": st.lists(_tool, max_size=2),
    },
)
_everything: Final = {"allow": ["*", *(f"{name}.*" for name in SERVERS)]}
_open: Final = st.fixed_dictionaries(
    {"agents": st.just({"*": _everything}), "users": st.just({"*": _everything})},
    optional={"groups": st.dictionaries(st.sampled_from(GROUPS), _lists, min_size=1, max_size=2)},
)
gateway: Final = st.fixed_dictionaries(
    {"scope": st.one_of(_scope, _open, _open), "approval": _approval},
    optional={
        "limits": st.dictionaries(_tool, _limit, min_size=3, max_size=6),
        "sandbox": st.fixed_dictionaries({"accept_missing": st.lists(st.sampled_from(_MAY_LACK), max_size=3)}),
    },
)
"""Data of the shipped packages, below ``gateway``."""


def varied(data: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Data of a bundle: what stands there, now and then with other values of the same kind.

    The part of the shipped packages is made anew, and so are the settings of the gallery's.
    """
    others = {name: _other(item) for name, item in data.items() if name not in {"gateway", "house"}}
    others |= {"house": house(data["house"])} if "house" in data else {}
    own = {name: _other(item) for name, item in data.get("gateway", {}).items() if name not in _OWN}
    inside = st.builds(lambda made, kept: {**made, **kept}, gateway, st.fixed_dictionaries(own))
    return st.fixed_dictionaries({**others, "gateway": inside})


def _other(item: Any) -> st.SearchStrategy[Any]:
    if isinstance(item, dict):
        return st.fixed_dictionaries({name: _other(child) for name, child in item.items()})
    if isinstance(item, list):
        return st.one_of(st.just(item), st.lists(st.sampled_from(item), max_size=3) if item else st.just([]))
    if isinstance(item, bool):
        return st.booleans()
    if isinstance(item, int):
        return st.one_of(st.just(item), st.integers(0, 12), st.integers(0, 10**6))
    return st.just(item)
