"""The vault's policies: what each token may do, derived from what the gateway asks for and nothing else.

One source for ``ostiary vault``, for ``ostiary check``, for the demo and for the tests.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from gateway.core.leasing import Provider, Template

_BLOCK = re.compile(r'path "(?P<path>[^"]+)" \{\n(?P<body>(?:  [^\n]+\n)+)\}\n')
_LINE = re.compile(r"  (?P<key>[a-z_]+) = (?P<value>[^\n]+)\n")
_MEMBER = re.compile(r'("(?:[a-z_]+|\*)") =')
_UPDATE = ("update",)
# Response-wrapping is demanded: a secret id passes no proxy and no audit log in the clear, and is taken out once.
_WRAPPED = ("1s", "120s")


@dataclass(frozen=True, slots=True)
class Rule:
    """One path of a policy.

    Attributes:
        path: below ``/v1/``.
        capabilities: what may be done there.
        parameters: the only members a body may have, each with the values it may have (none listed = any); no member
            at all where it is empty; None = any members.
        wrapping: shortest and longest life of the wrapping that is demanded of the answer.
    """

    path: str
    capabilities: tuple[str, ...]
    parameters: tuple[tuple[str, tuple[Any, ...]], ...] | None = None
    wrapping: tuple[str, str] | None = None

    def covers(self, other: "Rule") -> bool:
        """Whether whatever ``other`` allows is allowed by this one, too."""
        same = self.path == other.path and set(other.capabilities) <= set(self.capabilities)
        free = self.wrapping is None or self.wrapping == other.wrapping
        if self.parameters is None or self.parameters == other.parameters:
            return same and free
        if other.parameters is None:
            return False
        mine = dict(self.parameters)
        inside = all(
            name in mine and (not mine[name] or (bool(values) and _texts(values) <= _texts(mine[name])))
            for name, values in other.parameters
        )
        return same and free and inside

    @property
    def text(self) -> str:
        """The rule as a policy has it."""
        lines = [f"capabilities = {json.dumps(list(self.capabilities))}"]
        if self.parameters == ():  # an empty list of those allowed would allow all
            lines.append('denied_parameters = { "*" = [] }')
        elif self.parameters is not None:
            lines.append(f"allowed_parameters = {_hcl({name: list(values) for name, values in self.parameters})}")
        if self.wrapping is not None:
            lines += [f'min_wrapping_ttl = "{self.wrapping[0]}"', f'max_wrapping_ttl = "{self.wrapping[1]}"']
        return f'path "{self.path}" {{\n' + "".join(f"  {line}\n" for line in lines) + "}\n"


@dataclass(frozen=True, slots=True)
class Transit:
    """The vault's key that wraps the key of payloads."""

    mount: str
    key: str


@dataclass(frozen=True, slots=True)
class Duties:
    """What the gateway does besides minting.

    Attributes:
        transit: wraps the key of payloads.
        rewraps: rotates that key.
        secret_id: ``MOUNT/role/NAME`` of its AppRole where it asks for its next secret id itself.
        roots: ``MOUNT/CONNECTION`` of databases whose root password it rotates.
        shelf: ``MOUNT/PATH`` of a kv engine, version 2, where gateways on one log lay sealed keys for each other.
    """

    transit: Transit | None = None
    rewraps: bool = False
    secret_id: str | None = None
    roots: tuple[str, ...] = ()
    shelf: str | None = None


def text(rules: Iterable[Rule]) -> str:
    """A policy."""
    return "\n".join(rule.text for rule in rules)


def parsed(policy: str) -> tuple[Rule, ...] | None:
    """The rules of a policy in the form ``text`` has; None = it is in another form, so it cannot be told what it does.

    What is written here for paths that never hold quotes is all that is read.
    """
    rules, at = list[Rule](), 0
    for match in _BLOCK.finditer(policy):
        if policy[at : match.start()].strip():
            return None
        rule = _rule(match["path"], match["body"])
        if rule is None:
            return None
        rules.append(rule)
        at = match.end()
    return tuple(rules) if not policy[at:].strip() else None


def wider(now: str, then: str) -> tuple[Rule, ...] | None:
    """The rules of ``then`` that allow what ``now`` does not; None = it cannot be told."""
    before, after = parsed(now), parsed(then)
    if before is None or after is None:
        return None
    return tuple(rule for rule in after if not any(old.covers(rule) for old in before))


def minting(template: Template) -> tuple[Rule, ...]:
    """What the template's minting tokens may do: the one thing they are for."""
    match template.provider:
        case Provider.DATABASE:
            roles = (template.role, template.reaper)
            return tuple(Rule(f"{template.mount}/creds/{role}", ("read",)) for role in roles)
        case Provider.PKI:
            return (Rule(f"{template.mount}/issue/{template.role}", _UPDATE),)
        case Provider.KV:
            return (Rule(f"{template.mount}/data/{template.role}", ("read",)),)
        case Provider.OAUTH_USER:
            place = f"ostiary/connections/{template.role}/+"
            return (
                Rule(f"{template.mount}/data/{place}", ("create", "read", "update")),
                Rule(f"{template.mount}/metadata/{place}", ("create", "update", "delete")),
            )
    assert_never(template.provider)


def gateway(templates: Sequence[Template], duties: Duties) -> tuple[Rule, ...]:
    """What the gateway's own token may do: make and end minting tokens, end and look up their leases, and its duties.

    It can mint nothing and read no secret but what gateways on its log lay there for each other.
    """
    roles = sorted({template.token_role for template in templates})
    rules = [Rule(f"auth/token/create/{role}", ("create", "update")) for role in roles]
    if templates:
        rules += [Rule("auth/token/renew-accessor", _UPDATE), Rule("auth/token/revoke-accessor", _UPDATE)]
    rules += [Rule("auth/token/revoke-self", _UPDATE), Rule("sys/capabilities-self", _UPDATE)]
    prefixes = _prefixes(templates)
    if prefixes:
        ids = ("lease_id", tuple(f"{one}/*" for one in prefixes))
        rules += [
            Rule("sys/leases/revoke", _UPDATE, (ids, ("sync", ()))),
            Rule("sys/leases/lookup", _UPDATE, (ids,)),
        ]
    return (*rules, *_dutiful(duties))


def _dutiful(duties: Duties) -> tuple[Rule, ...]:
    rules = list[Rule]()
    if duties.transit is not None:
        mount, key = duties.transit.mount, duties.transit.key
        bound = ("associated_data", ())
        rules += [
            Rule(f"{mount}/encrypt/{key}", _UPDATE, (("plaintext", ()), bound)),
            Rule(f"{mount}/decrypt/{key}", _UPDATE, (("ciphertext", ()), bound)),
        ]
        if duties.rewraps:
            rules.append(Rule(f"{mount}/keys/{key}/rotate", _UPDATE, ()))
    if duties.secret_id is not None:
        rules += [
            Rule(f"auth/{duties.secret_id}/secret-id", _UPDATE, (), _WRAPPED),
            Rule(f"auth/{duties.secret_id}/secret-id/destroy", _UPDATE, (("secret_id", ()),)),
        ]
    rules += [Rule(_root(one), _UPDATE, ()) for one in duties.roots]
    if duties.shelf is not None:
        mount, _, path = duties.shelf.partition("/")
        # Written once, never replaced: no `update`. Nobody has to list them, as the log names them.
        rules += [Rule(f"{mount}/data/{path}/+", ("create", "read")), Rule(f"{mount}/metadata/{path}/+", ("delete",))]
    return tuple(rules)


def break_glass(templates: Sequence[Template]) -> tuple[Rule, ...]:
    """What ``ostiary kill`` may do: list the leases of the templates, and end all of one template at once."""
    return (
        *(Rule(f"sys/leases/revoke-prefix/{one}", ("sudo", "update")) for one in _prefixes(templates)),
        *(Rule(f"sys/leases/lookup/{one}", ("list", "sudo")) for one in _prefixes(templates)),
        Rule("auth/token/revoke-self", _UPDATE),
    )


def introducer(secret_id: str) -> tuple[Rule, ...]:
    """What whoever hands the gateway its first secret id may do: get one, wrapped."""
    return (Rule(f"auth/{secret_id}/secret-id", _UPDATE, (), _WRAPPED),)


def forbidden(templates: Sequence[Template], name: str, approle: str = "approle") -> tuple[str, ...]:
    """Paths that the gateway's own token must be refused: each would make it more than a maker of minting tokens."""
    entries = [f"auth/{approle}/role/{name}{suffix}" for suffix in ("", "-admin", "-break-glass")]
    return (
        *entries,
        *(f"{entry}/secret-id" for entry in entries[1:]),
        *(f"sys/policies/acl/{policy}" for policy in sorted({template.token_policy for template in templates})),
        *(rule.path for template in templates for rule in minting(template)),
        *(f"sys/leases/revoke-prefix/{one}" for one in _prefixes(templates)),
        *(f"sys/policies/acl/{policy}" for policy in (f"{name}-gateway", f"{name}-admin", f"{name}-break-glass")),
        *(f"auth/token/roles/{role}" for role in sorted({template.token_role for template in templates})),
        "auth/token/create",
        "auth/token/create-orphan",
        "auth/token/lookup-accessor",
        "auth/token/accessors",
        "identity/entity",
        "identity/entity-alias",
        "sys/audit",
        "sys/auth",
        "sys/leases/revoke-force/x",
        "sys/mounts",
        "sys/raw/x",
        "sys/seal",
    )


def _root(connection: str) -> str:
    mount, _, name = connection.rpartition("/")
    return f"{mount}/rotate-root/{name}"


def _prefixes(templates: Sequence[Template]) -> list[str]:
    return sorted({template.lease_prefix for template in templates if template.lease_prefix is not None})


def _texts(values: Iterable[Any]) -> set[str]:
    return {json.dumps(value, sort_keys=True) for value in values}


def _hcl(value: Any) -> str:
    if isinstance(value, Mapping):
        members = ", ".join(f"{json.dumps(name)} = {_hcl(one)}" for name, one in value.items())
        return f"{{ {members} }}" if members else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_hcl, value))}]"
    return json.dumps(value)


def _rule(path: str, body: str) -> Rule | None:
    said: dict[str, Any] = {}
    for match in _LINE.finditer(body):
        try:
            said[match["key"]] = json.loads(_MEMBER.sub(r"\1:", match["value"]))
        except ValueError:
            return None
    if said.get("denied_parameters") == {"*": []}:
        said["allowed_parameters"] = {}
        del said["denied_parameters"]
    known = {"capabilities", "allowed_parameters", "min_wrapping_ttl", "max_wrapping_ttl"}
    if not said.keys() <= known or not isinstance(said.get("capabilities"), list):
        return None
    given: Mapping[str, Any] | None = said.get("allowed_parameters")
    parameters = None if given is None else tuple((name, tuple(values)) for name, values in given.items())
    least, most = said.get("min_wrapping_ttl"), said.get("max_wrapping_ttl")
    return Rule(path, tuple(said["capabilities"]), parameters, None if least is None else (least, str(most)))
