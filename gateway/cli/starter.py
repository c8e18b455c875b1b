"""``ostiary init``: a commented configuration that starts as it is, and the keys it needs."""

from pathlib import Path

import click

from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.adapters.ledger.keyring.keys import create_or_load
from gateway.cli import home
from gateway.cli.screen import Misconfigured, answer, json_option

GATEWAY = """\
# Ostiary. `ostiary check --config gateway.toml` shows what is in force; `ostiary schema gateway` lists every key.
# Paths are relative to this file. Secrets never stand here: they come from the environment or from files.

state = "state"                     # keys, signed log, admin socket; mode 0700
environment = "development"         # what policy reads as context.env
catalogue = ["catalogue.toml"]      # what you say about tools

[listen]
host = "127.0.0.1"                  # beyond loopback, TLS is needed
port = 8470
# external_url = "https://gateway.example.org"   # where callers reach the gateway
# tls_certificate = "cert.pem"
# tls_key = "key.pem"

[identity]
issuer = "urn:ostiary:local"        # iss of the tokens `ostiary token issue` makes
audience = ["ostiary"]              # aud they must name
run_max_s = 86400                   # longest a run and its agent's token may last, seconds

[policy]
bundles = ["policies"]              # your Rego and data, besides the shipped packages
mode = "enforce"                    # observe: record decisions on reads and writes without enforcing them

# [limits]
# principal_per_minute = 6000

# Calls that wait for people. Tools of effect class money need one person where policies/data.json says nothing else
# (docs/approvals.md); `ostiary reviewer keygen` and `enrol` make somebody a reviewer.
# [approvals]
# ttl_s = 3600                      # longest a call waits

# An MCP server as a child process. It is pinned: a tool that changes its words is quarantined.
# [upstreams.time]
# kind = "mcp"
# command = ["/opt/mcp/bin/mcp-server-time"]
# trust = "first_use"
# [upstreams.time.sandbox]          # without one it may do whatever the gateway's user may (docs/sandbox.md)
# read = ["/opt/mcp"]

# An MCP server by URL, with a credential the agent never sees.
# [upstreams.wiki]
# kind = "mcp"
# url = "https://wiki.example.org/mcp"
# credential = "wiki"

# [credentials.wiki]
# prefix = "Bearer "
# env = "WIKI_TOKEN"

# A database: its tools are the statements the catalogue declares.
# [upstreams.erp]
# kind = "sql"
# database = "erp.sqlite"

# PostgreSQL: each call gets a user of its own, minted by your OpenBao or Vault and gone after it. It needs
# pip install 'ostiary[postgres]'; what the vault must allow, docs/credentials.md says and `ostiary check` tries.
# [vault]
# address = "https://vault.example.org:8200"
# role_id = "ostiary-gateway"
# secret_id = { env = "VAULT_SECRET_ID" }

# [leases.erp-read]
# role = "erp-read"

# [upstreams.orders]
# kind = "sql"
# url = "postgresql://db.example.org/erp"
# read_lease = "erp-read"

# An HTTP API with one origin.
# [upstreams.vendors]
# kind = "http"
# origin = "https://vendors.example.org"

# Code that agents send, each program in a sandbox box of its own (docs/sandbox.md; try `ostiary sandbox probe`).
# [upstreams.code]
# kind = "code"
"""

CATALOGUE = """\
# What you say about tools; above all the effect class: read, write, destructive or money. Without an entry a tool of an
# MCP server is destructive. `ostiary schema catalogue` lists every key.

# A tool of an MCP server (its description and schema come from the server and are pinned):
# [[tool]]
# server = "time"
# name = "get_current_time"
# effect = "read"

# A tool of a database: the agent never sends SQL, parameters are bound.
# [[tool]]
# server = "erp"
# name = "find_order"
# effect = "read"
# description = "A purchase order by its number."
# input_schema = { type = "object", required = ["number"], properties = { number = { type = "string" } }, \
additionalProperties = false }
# [tool.sql]
# statement = "SELECT number, vendor, total FROM orders WHERE number = :number"
# parameters = ["number"]
# [tool.limits]
# per_minute = 60

# A tool that runs Python in the sandbox.
# [[tool]]
# server = "code"
# name = "run"
# effect = "write"
# description = "Runs a Python program."
# input_schema = { type = "object", required = ["code"], properties = { code = { type = "string" } }, \
additionalProperties = false }
# [tool.code.limits]
# memory_mb = 256
"""

DATA = """\
{
  "gateway": {
    "scope": {
      "agents": {
        "example-agent": { "allow": ["time.*"], "deny": [] }
      },
      "users": {
        "example-user": { "allow": ["time.*"], "deny": [] }
      },
      "groups": {}
    },
    "limits": {},
    "approval": { "tools": {}, "effects": {}, "unattended": [] }
  }
}
"""

RULES = """\
# METADATA
# title: House rules
# description: >-
#   A package that only denies can never loosen anything. Each reason has a stable id and a message for people.
# schemas:
#   - input: schema["policy-input.v1"]
package gateway.policies.house

deny contains {
	"id": "house.destructive_is_off",
	"msg": "tools that destroy data are off until somebody decides otherwise",
} if {
	input.phase == "call"
	input.tool.effect == "destructive"
}
"""

RULES_TEST = """\
package gateway.tests.house

import data.gateway.policies.house

call(effect) := {"phase": "call", "tool": {"fqn": "erp.purge", "effect": effect}}

test_destructive_is_denied if {
	some reason in house.deny with input as call("destructive")
	reason.id == "house.destructive_is_off"
}

test_a_read_is_not_denied if count(house.deny) == 0 with input as call("read")
"""

_FILES = {
    "gateway.toml": GATEWAY,
    "catalogue.toml": CATALOGUE,
    "policies/data.json": DATA,
    "policies/house/house.rego": RULES,
    "policies/house/house_test.rego": RULES_TEST,
}


@click.command()
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path, file_okay=False))
@json_option
def init(folder: Path) -> None:
    """Write a commented configuration and make the keys.

    DIR gets gateway.toml, catalogue.toml and policies/; its state folder gets the keys. Nothing is overwritten.
    """
    there = [name for name in (*_FILES, "state/keys") if (folder / name).exists()]
    if there:
        raise Misconfigured(f"{folder / there[0]} exists already; nothing was written", "give an empty folder")
    try:
        for name, text in _FILES.items():
            _write(folder / name, text)
    except OSError as error:
        raise Misconfigured(f"{error.filename}: {error.strerror}", "give a folder you may write to") from None
    _make_keys(folder / "gateway.toml")
    document = {"config": str(folder / "gateway.toml"), "state": str(folder / "state"), "files": list(_FILES)}
    answer(document, _next_steps(folder))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:  # "x": also refuses what appeared since the check
        file.write(text)


def _make_keys(config: Path) -> None:
    settings = home.read(config)
    home.prepare(settings.state)
    try:
        create_or_load(settings.state / "keys", settings.audit.origin)
    except StateRefused as error:
        raise Misconfigured(str(error)) from None


def _next_steps(folder: Path) -> list[str]:
    config, state = folder / "gateway.toml", folder / "state"
    return [
        f"wrote {config}, catalogue.toml, policies/ and the keys in {state / 'keys'}",
        "",
        "next:",
        f"  edit {config} and name your upstreams",
        f"  ostiary check --config {config}",
        f"  ostiary serve --config {config}",
        f"  ostiary token issue --user example-user --agent example-agent --state {state}",
        "",
        f"keep a copy of {state / 'keys' / 'log.vkey'} elsewhere: with it anybody can verify the log",
    ]
