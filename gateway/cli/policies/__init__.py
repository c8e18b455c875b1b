"""``ostiary policy``: what works on bundles, recorded decisions and hypothetical questions.

One closed table of subcommands, each imported when it is called: ``policy check`` needs nothing of them.
"""

from importlib import import_module

import click

# name: (module, attribute, short help)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "new": ("new", "new", "Copy a package of the gallery into DIR (policies), as NAME."),
    "build": ("bundle", "build", "Write policy as one archive, its tests left out."),
    "sign": ("bundle", "sign", "Sign the archive BUNDLE (P-256, Ed25519 or RSA key), in place."),
    "status": ("bundle", "status", "Show which policy is in force, where it comes from, and why not a newer one."),
    "replay": ("replay", "replay", "Evaluate recorded decisions with the policies in DIR."),
    "try": ("attempt", "attempt", "Say what of the calls that passed the policies in DIR would stop or park."),
    "suggest": ("suggest", "suggest", "Draft a package of rules for what observe mode let pass."),
    "explain": ("rerun", "rerun", "Make a recorded decision again, and show the rules that spoke."),
    "why-not": ("whynot", "why_not", "Say what would have to be true for a caller to be allowed TOOL."),
    "decisions": ("export", "export", "List recorded decisions, or export them in OPA's decision-log shape."),
    "fmt": ("formatting", "fmt", "Format Rego as `opa fmt` does."),
}


class PolicyGroup(click.Group):
    """A group with commands of its own beside those of ``COMMANDS``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names: its own, then those of the table."""
        return [*super().list_commands(ctx), *COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of its own, or one of the table, imported now; None where there is no such name."""
        row = COMMANDS.get(cmd_name)
        if row is None:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(import_module(f"gateway.cli.policies.{row[0]}"), row[1])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any of the table."""
        own = {name: super(PolicyGroup, self).get_command(ctx, name) for name in super().list_commands(ctx)}
        rows = [(name, command.get_short_help_str(200)) for name, command in own.items() if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl([*rows, *((name, row[2]) for name, row in COMMANDS.items())])
