"""The ``ostiary`` command: one closed table of subcommands, each imported when it is called.

``ostiary --help`` imports none of them: the table holds their one-line help, which a test compares with their own.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import click

# name: (module, attribute, short help)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "init": ("starter", "init", "Write a commented configuration and make the keys."),
    "up": ("up", "up", "Run a development gateway on this machine."),
    "serve": ("serve", "serve", "Run the gateway of a configuration file."),
    "check": ("serve", "check", "Show the effective configuration and ask every part."),
    "rotate": ("rotations", "rotate", "Replace keys now, or show how old they are."),
    "doctor": ("doctor", "doctor", "Look at this machine and say what to mend."),
    "token": ("tokens", "token", "Issue tokens for persons and agents."),
    "key": ("api_keys", "key", "Make, list and revoke API keys, for clients without tokens."),
    "login": ("login", "login", "Log in with your browser, for later commands with the same --url."),
    "connect": ("connecting", "connect", "Connect your account at a service; without NAME, list yours."),
    "client": ("client.command", "client", "Connect agents and editors with one command, and undo it."),
    "upstream": ("openapi.command", "upstream", "Add upstreams from what describes them."),
    "tool": ("tools", "tool", "List, call and approve tools."),
    "run": ("runs", "run", "Open, show and end runs."),
    "watch": ("watch.command", "watch", "Follow the calls that pass the door, live."),
    "approval": ("approving", "approval", "List and show calls that wait for people."),
    "approve": ("approving", "approve", "Approve the call ID: it is shown whole, then signed with your key."),
    "reject": ("approving", "reject", "Reject the call ID; the agent is told the reason."),
    "reviewer": ("reviewers", "reviewer", "Make, enrol and revoke reviewers' signing keys."),
    "lease": ("leases", "lease", "List and revoke the credentials that are minted for calls."),
    "vault": ("vault", "vault", "Set up the vault for a configuration, with least privilege."),
    "kill": ("kills", "kill", "Stop an agent, user, tool, run or everything, and lift that."),
    "explain": ("explain", "explain", "Tell why a call ended as it did."),
    "audit": ("audit", "audit", "Search, verify and erase the signed log."),
    "policy": ("policy", "policy", "Check, test, replay and draft Rego policies."),
    "sandbox": ("sandbox", "sandbox", "Try this host's sandbox, and run code in it."),
    "schema": ("schema", "schema", "Print the JSON Schema of settings, policy or the log."),
}


@contextmanager
def _uncollected() -> Iterator[None]:
    # What is imported stays: a collector that looks for garbage among it takes an eighth of the time and finds none.
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Table(click.Group):
    """A group whose commands come from ``COMMANDS``."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command; None where the table has no such name."""
        row = COMMANDS.get(cmd_name)
        if row is None:
            return None
        with _uncollected():
            command: click.Command = getattr(import_module(f"gateway.cli.{row[0]}"), row[1])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, row[2]) for name, row in COMMANDS.items()])


@click.command(cls=Table, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="ostiary")
def ostiary() -> None:
    """The gateway between AI agents and their tools.

    Exit codes: 0 done, 1 refused or failed, 2 wrong usage or configuration. With --json the last line of the output is
    the answer as JSON.
    """


def main() -> None:
    """Entry point of the console script."""
    ostiary(prog_name="ostiary")
