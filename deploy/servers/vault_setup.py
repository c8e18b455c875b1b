"""What the gateway needs of a Vault and of PostgreSQL, as data: the very things ``docs/credentials.md`` lists.

One group role of PostgreSQL, one database role, one policy and one token role for each lease template; one AppRole for
the gateway. Nobody can do more than their template: the tokens that mint hold one policy and not ``default``.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy.servers.openbao import Request

MOUNT = "database"
_ALNUM = 'length = 24\nrule "charset" {\n  charset = "%s"\n}\n'
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
# `{{name}}` is the minted role. Each line is a statement of its own, all of them one transaction.
_CREATION = (
    'CREATE ROLE "{{{{name}}}}" LOGIN IN ROLE "{group}" CONNECTION LIMIT 2',
    "ALTER ROLE \"{{{{name}}}}\" PASSWORD '{{{{password}}}}' VALID UNTIL '{{{{expiration}}}}'",
    "ALTER ROLE \"{{{{name}}}}\" SET statement_timeout = '60s'",
    "ALTER ROLE \"{{{{name}}}}\" SET idle_session_timeout = '60s'",
    'GRANT "{{{{name}}}}" TO "{keeper}"',
)
_REVOCATION = (
    'ALTER ROLE "{{{{name}}}}" NOLOGIN',
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{{{name}}}}'",
    'REASSIGN OWNED BY "{{{{name}}}}" TO "{keeper}"',
    'DROP OWNED BY "{{{{name}}}}"',
    'DROP ROLE IF EXISTS "{{{{name}}}}"',
)


@dataclass(frozen=True, slots=True)
class Template:
    """One kind of lease.

    Attributes:
        name: of the template, its policy and its token role.
        group: PostgreSQL group role that minted roles are members of.
        ttl_s: longest a minted role lives.
    """

    name: str
    group: str
    ttl_s: int = 60


@dataclass(frozen=True, slots=True)
class Keeper:
    """What the database plugin logs in with; it can make and drop members of the groups, and no more.

    Attributes:
        user: PostgreSQL role with CREATEROLE.
        folder: folder of the database's socket.
    """

    user: str
    folder: str
    database: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """The gateway's own way in: an AppRole.

    Attributes:
        period_s: life of the gateway's token and of the tokens that mint; what a killed gateway leaves is gone then.
    """

    role_id: str
    secret_id: str = field(repr=False)
    period_s: int = 30


def groups_sql(templates: Sequence[Template], keeper: Keeper) -> list[str]:
    """Statements for PostgreSQL's superuser: the group roles, and the keeper that may hand membership out."""
    statements = [
        f"CREATE ROLE \"{keeper.user}\" LOGIN CREATEROLE PASSWORD '{keeper.password}'",
        f'GRANT pg_signal_backend TO "{keeper.user}"',
    ]
    for template in templates:
        statements += [
            f'CREATE ROLE "{template.group}" NOLOGIN',
            f'GRANT "{template.group}" TO "{keeper.user}" WITH ADMIN OPTION',
        ]
    return statements


def requests(templates: Sequence[Template], keeper: Keeper, entry: Entry) -> list[Request]:
    """What OpenBao is told at its first start."""
    connection = {
        "plugin_name": "postgresql-database-plugin",
        "allowed_roles": [template.name for template in templates],
        "connection_url": f"user={{{{username}}}} password={{{{password}}}} dbname={keeper.database} "
        f"host={keeper.folder}",
        "username": keeper.user,
        "password": keeper.password,
        "password_policy": "alnum",
        "username_template": '{{ printf "v-%s-%s" (.RoleName | truncate 20) (random 12) | lowercase }}',
        "max_open_connections": 8,
    }
    return [
        Request("passwords", "sys/policies/password/alnum", {"policy": _ALNUM % _LETTERS}),
        Request("databases", f"sys/mounts/{MOUNT}", {"type": "database"}),
        Request("connection", f"{MOUNT}/config/ostiary", connection),
        *(request for template in templates for request in _template(template, keeper, entry.period_s)),
        *way_in(gateway_policy(templates), entry),
    ]


def way_in(policy: str, entry: Entry) -> list[Request]:
    """The gateway's AppRole, and what it may do."""
    return [
        Request("approle", "sys/auth/approle", {"type": "approle"}),
        # Requests that end something have no id in their answers: their header field joins the two logs.
        Request("correlation", "sys/config/auditing/request-headers/X-Correlation-Id", {"hmac": False}),
        Request("gateway-policy", "sys/policies/acl/ostiary-gateway", {"policy": policy}),
        Request("gateway", "auth/approle/role/ostiary", _approle(entry)),
        Request("gateway-id", "auth/approle/role/ostiary/role-id", {"role_id": entry.role_id}),
        Request("gateway-key", "auth/approle/role/ostiary/custom-secret-id", {"secret_id": entry.secret_id}),
    ]


def tokens(name: str, policy: str, period_s: int) -> list[Request]:
    """The policy ``name``, and the token role of that name whose tokens have it and no other."""
    role = {
        "allowed_policies": [name],
        "token_no_default_policy": True,
        "orphan": True,
        "token_type": "service",
        "token_period": f"{period_s}s",
        "token_explicit_max_ttl": "1h",
        "renewable": True,
    }
    return [
        Request(f"policy-{name}", f"sys/policies/acl/{name}", {"policy": policy}),
        Request(f"tokens-{name}", f"auth/token/roles/{name}", role),
    ]


def template_policy(template: Template) -> str:
    """The policy of the tokens that mint: this one role, and nothing else."""
    return _policy({f"{MOUNT}/creds/{template.name}": {"capabilities": ["read"]}})


def gateway_policy(templates: Sequence[Template]) -> str:
    """The policy of the gateway itself: it makes those tokens, ends them, and ends and looks up their leases."""
    leases = {"lease_id": [f"{MOUNT}/creds/{template.name}/*" for template in templates]}
    anything: list[str] = []
    paths: dict[str, Any] = {
        f"auth/token/create/{template.name}": {"capabilities": ["create", "update"]} for template in templates
    }
    paths |= {
        "auth/token/revoke-accessor": {"capabilities": ["update"]},
        "auth/token/renew-accessor": {"capabilities": ["update"]},
        "auth/token/revoke-self": {"capabilities": ["update"]},
        "sys/leases/revoke": {"capabilities": ["update"], "allowed_parameters": leases | {"sync": anything}},
        "sys/leases/lookup": {"capabilities": ["update"], "allowed_parameters": leases},
    }
    return _policy(paths)


def _template(template: Template, keeper: Keeper, period_s: int) -> list[Request]:
    role = {
        "db_name": "ostiary",
        "creation_statements": [line.format(group=template.group, keeper=keeper.user) for line in _CREATION],
        "revocation_statements": [line.format(keeper=keeper.user) for line in _REVOCATION],
        "default_ttl": f"{template.ttl_s}s",
        "max_ttl": f"{template.ttl_s}s",
    }
    return [
        Request(f"role-{template.name}", f"{MOUNT}/roles/{template.name}", role),
        *tokens(template.name, template_policy(template), period_s),
    ]


def _approle(entry: Entry) -> dict[str, Any]:
    return {
        "token_policies": ["ostiary-gateway"],
        "token_no_default_policy": True,
        "token_period": f"{max(entry.period_s, 60)}s",
        "token_type": "service",
        "secret_id_num_uses": 0,
        "bind_secret_id": True,
    }


def _policy(paths: dict[str, Any]) -> str:
    return json.dumps({"path": paths})
