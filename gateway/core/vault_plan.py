"""What a vault must hold for the configured templates, and how that differs from what it holds.

Pieces are written; checks are only looked at, as what they are about is the operator's own (databases, authorities,
secrets). A piece says every setting that gives power, so that nothing is kept that nobody asked for.
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gateway.core import vault_policy as policy
from gateway.core.leasing import Provider, Template
from gateway.core.vault_policy import Duties, Rule

PASSWORDS = "ostiary-alnum"
_ALNUM = (
    'length = 24\nrule "charset" {\n  charset = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"\n}\n'
)
_DURATION = re.compile(r"([0-9]+)s")
# Lower is narrower.
_MEASURES = re.compile(r"(.*ttl|.*period|rate|interval)")
_MINUTE = 60
_KV: Mapping[str, Any] = {"type": "kv", "options": {"version": "2"}}


class Kind(StrEnum):
    """What a piece is, which says how it is compared."""

    MOUNT = "mount"
    AUTH = "auth"
    POLICY = "policy"
    SETTINGS = "settings"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class Piece:
    """Something the vault must hold.

    Attributes:
        path: where it is read and written, below ``/v1/``.
        body: what is written; texts, booleans and objects, durations as ``30s`` and lists with commas, so that a policy
            can allow exactly this.
    """

    kind: Kind
    path: str
    body: Mapping[str, Any]

    @property
    def is_fixed(self) -> bool:
        """Whether one that is there is never written again, only looked at."""
        return self.kind in {Kind.MOUNT, Kind.AUTH, Kind.KEY}


@dataclass(frozen=True, slots=True)
class Needs:
    """What the settings ask of a vault.

    Attributes:
        name: of the gateway's AppRole; its policies are named after it.
        approle: where AppRole is mounted; None = the gateway has a token that somebody else makes.
        role_id: of the gateway's AppRole.
        period_s: what a killed gateway leaves is gone after so long.
        secret_id_ttl_s: longest life of a secret id of the gateway; 0 = it does not end.
        logins_per_s: most logins by one AppRole in a second; 0 = not limited, as where the vault listens on a Unix
            socket: it refuses all requests that a quota is about and that come from no network address.
    """

    templates: tuple[Template, ...]
    duties: Duties = field(default_factory=Duties)
    name: str = "ostiary"
    approle: str | None = "approle"
    role_id: str | None = None
    period_s: int = 30
    secret_id_ttl_s: int = 0
    logins_per_s: int = 0

    @property
    def gateway_policy(self) -> str:
        """Name of the gateway's policy."""
        return f"{self.name}-gateway"

    @property
    def break_glass(self) -> str:
        """Name of the policy and of the AppRole that ends everything at once."""
        return f"{self.name}-break-glass"

    @property
    def admin(self) -> str:
        """Name of the policy that may write all this, and nothing else."""
        return f"{self.name}-admin"


class Effect(StrEnum):
    """What carrying out a change would do."""

    CREATE = "create"
    NARROW = "narrow"
    WIDEN = "widen"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Change:
    """A piece that is not as it should be.

    Attributes:
        diff: lines, ``-`` what is there and ``+`` what should be.
        why: what makes it wider, or why it cannot be carried out.
    """

    piece: Piece
    effect: Effect
    diff: tuple[str, ...]
    why: str = ""


def pieces(needs: Needs) -> tuple[Piece, ...]:
    """All that is written, in the order it is written in."""
    found = [*_mounts(needs), Piece(Kind.SETTINGS, f"sys/policies/password/{PASSWORDS}", {"policy": _ALNUM})]
    for template in needs.templates:
        found += token_pieces(template, needs.period_s)
    found.append(_acl(needs.gateway_policy, policy.gateway(needs.templates, needs.duties)))
    if needs.templates:
        found.append(_acl(needs.break_glass, policy.break_glass(needs.templates)))
    if needs.approle is not None:
        found += _entries(needs, needs.approle)
    return tuple({piece.path: piece for piece in found}.values())


def token_pieces(template: Template, period_s: int) -> list[Piece]:
    """A template's policy, and the token role whose tokens have it and no other."""
    role = {
        "allowed_entity_aliases": "",  # or its tokens could have an entity's policies besides
        "allowed_policies": template.token_policy,
        "allowed_policies_glob": "",
        "orphan": True,
        "path_suffix": "",
        "renewable": True,
        "token_explicit_max_ttl": "3600s",
        "token_no_default_policy": True,
        "token_period": f"{min(period_s, template.longest_s)}s",
        "token_type": "service",
    }
    return [
        _acl(template.token_policy, policy.minting(template)),
        Piece(Kind.SETTINGS, f"auth/token/roles/{template.token_role}", role),
    ]


def admin_policy(needs: Needs) -> tuple[Rule, ...]:
    """What ``ostiary vault apply`` may do: write exactly these pieces with exactly these values, and look.

    A policy that could write any text into the gateway's policy could make itself root.
    """
    return (
        *(_writing(piece) for piece in pieces(needs)),
        *(Rule(check_path, ("read",)) for check_path in sorted({one for t in needs.templates for one in looked_at(t)})),
        Rule("sys/audit", ("read", "sudo")),
        Rule("auth/token/revoke-self", ("update",)),
    )


def _writing(piece: Piece) -> Rule:
    capabilities = ("create", "read", "update")
    exact = tuple((name, (value,)) for name, value in piece.body.items())
    return Rule(piece.path, (*capabilities, "sudo") if piece.kind is Kind.AUTH else capabilities, exact)


def _mounts(needs: Needs) -> list[Piece]:
    found = list[Piece]()
    for template in needs.templates:
        body: Mapping[str, Any] = {"type": template.provider.value}
        if template.provider in {Provider.KV, Provider.OAUTH_USER}:
            body = _KV
        found.append(Piece(Kind.MOUNT, f"sys/mounts/{template.mount}", body))
    if needs.duties.shelf is not None:
        found.append(Piece(Kind.MOUNT, f"sys/mounts/{needs.duties.shelf.partition('/')[0]}", _KV))
    transit = needs.duties.transit
    if transit is not None:
        found += [
            Piece(Kind.MOUNT, f"sys/mounts/{transit.mount}", {"type": "transit"}),
            Piece(Kind.KEY, f"{transit.mount}/keys/{transit.key}", {"type": "aes256-gcm96"}),
        ]
    return found


def _acl(name: str, rules: Sequence[Rule]) -> Piece:
    return Piece(Kind.POLICY, f"sys/policies/acl/{name}", {"policy": policy.text(rules)})


def _entries(needs: Needs, mount: str) -> list[Piece]:
    found = [Piece(Kind.AUTH, f"sys/auth/{mount}", {"type": "approle"})]
    found += _entry(needs, mount, needs.name, needs.role_id or needs.name)
    if needs.templates:
        found += _entry(needs, mount, needs.break_glass, needs.break_glass)
    return found


def _entry(needs: Needs, mount: str, role: str, role_id: str) -> list[Piece]:
    is_gateway = role == needs.name
    lasting = {"token_period": f"{max(needs.period_s, _MINUTE)}s", "token_ttl": "0s", "token_max_ttl": "0s"}
    brief = {"token_period": "0s", "token_ttl": "300s", "token_max_ttl": "300s"}
    body = {
        "bind_secret_id": True,
        "secret_id_num_uses": "0",
        "secret_id_ttl": f"{needs.secret_id_ttl_s if is_gateway else 0}s",
        "token_no_default_policy": True,
        "token_policies": needs.gateway_policy if is_gateway else needs.break_glass,
        "token_type": "service",
        **(lasting if is_gateway else brief),
    }
    quota = {"interval": "1s", "path": f"auth/{mount}/", "rate": str(needs.logins_per_s), "role": role}
    found = [
        Piece(Kind.SETTINGS, f"auth/{mount}/role/{role}", body),
        Piece(Kind.SETTINGS, f"auth/{mount}/role/{role}/role-id", {"role_id": role_id}),
    ]
    if needs.logins_per_s:
        found.append(Piece(Kind.SETTINGS, f"sys/quotas/rate-limit/{role}-logins", quota))
    return found


def looked_at(template: Template) -> tuple[str, ...]:
    """What is looked at, and never written, for a template."""
    if template.provider is Provider.OAUTH_USER:
        return ()
    if template.provider is Provider.KV:
        return (f"{template.mount}/metadata/{template.role}",)
    roles = (template.role, template.reaper) if template.reaper is not None else (template.role,)
    return tuple(f"{template.mount}/roles/{role}" for role in roles)


def compared(piece: Piece, current: Mapping[str, Any] | None) -> Change | None:
    """What stands between ``current`` (None = there is nothing) and the piece; None = nothing does."""
    if current is None:
        return Change(piece, Effect.CREATE, tuple(f"+ {line}" for line in _lines(piece.body)))
    now = {name: current.get(name) for name in piece.body}
    differing = [name for name, value in piece.body.items() if not _same(value, now[name])]
    if not differing:
        return None
    diff = _difference(piece, now, differing)
    if piece.is_fixed:
        return Change(piece, Effect.REFUSE, diff, "something else is there, and it is not changed")
    if piece.kind is Kind.POLICY:
        return _policy_change(piece, str(now["policy"]), diff)
    wider = [name for name in differing if not _is_less(name, piece.body[name], now[name])]
    why = f"may allow more: {', '.join(wider)}" if wider else ""
    return Change(piece, Effect.WIDEN if wider else Effect.NARROW, diff, why)


def _policy_change(piece: Piece, now: str, diff: tuple[str, ...]) -> Change:
    more = policy.wider(now, piece.body["policy"])
    if more is None:
        return Change(piece, Effect.WIDEN, diff, "what is there is written in another form, so it may allow less")
    if more:
        return Change(piece, Effect.WIDEN, diff, f"allows more at {', '.join(rule.path for rule in more)}")
    return Change(piece, Effect.NARROW, diff)


def _difference(piece: Piece, now: Mapping[str, Any], differing: Sequence[str]) -> tuple[str, ...]:
    if piece.kind is Kind.POLICY:
        before, after = str(now["policy"]).splitlines(), piece.body["policy"].splitlines()
        return tuple(line for line in difflib.unified_diff(before, after, n=1, lineterm="") if line[:3] not in _HEADS)
    lines = list[str]()
    for name in differing:
        lines += [f"- {name} = {_shown(now[name])}", f"+ {name} = {_shown(piece.body[name])}"]
    return tuple(lines)


_HEADS = ("---", "+++")


def _lines(body: Mapping[str, Any]) -> list[str]:
    if set(body) == {"policy"}:
        return str(body["policy"]).splitlines()
    return [f"{name} = {_shown(value)}" for name, value in body.items()]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _same(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, bool) or not isinstance(wanted, str):
        return bool(wanted == found)
    if isinstance(found, list):
        return sorted(filter(None, wanted.split(","))) == sorted(map(str, found))
    if isinstance(found, bool):
        return False
    if isinstance(found, int | float):
        return _number(wanted) == found
    return wanted.strip("/") == (found or "").strip("/") if isinstance(found, str) or found is None else False


def _number(text: str) -> float | None:
    match = _DURATION.fullmatch(text)
    number = match[1] if match else text
    return float(number) if number.isdecimal() else None


def _is_less(name: str, wanted: Any, found: Any) -> bool:
    if isinstance(wanted, str) and isinstance(found, list):
        return {one for one in wanted.split(",") if one} <= set(map(str, found))
    # A ttl of 0 is none, so it is not less.
    if not isinstance(wanted, str) or not _MEASURES.fullmatch(name) or isinstance(found, bool):
        return False
    number = _number(wanted)
    return number is not None and isinstance(found, int | float) and 0 < number < (found or float("inf"))
