"""``ostiary upstream``: its subcommands."""

from typing import Any, Final

import click

from gateway.cli.client import housing
from gateway.cli.client.adopting import fitting
from gateway.cli.client.agreeing import agreed, changing_options, done
from gateway.cli.oauth.command import oauth
from gateway.cli.openapi import adding, picking, reading
from gateway.cli.openapi.adding import Target
from gateway.cli.openapi.document import Document, Refused, parsed
from gateway.cli.openapi.picking import Choice, Picked
from gateway.cli.screen import Misconfigured, shown
from gateway.core import netguard
from gateway.core.tool import EffectClass

_EFFECTS: Final = [effect.value for effect in EffectClass]
_MOST_TOLD: Final = 40


@click.group()
def upstream() -> None:
    """Add upstreams from what describes them."""


upstream.add_command(oauth)


class _Effect(click.ParamType):  # type: ignore[type-arg]
    name = "pattern=class"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """``PATTERN=CLASS`` as a pair."""
        pattern, separator, effect = str(value).rpartition("=")
        if not separator or not pattern or effect not in _EFFECTS:
            self.fail(f"{value!r} is not PATTERN=CLASS, a class being one of {', '.join(_EFFECTS)}", param, ctx)
        return pattern, effect


@upstream.command()
@click.argument("name", metavar="NAME")
@click.option("--openapi", "source", required=True, metavar="FILE|URL", help="OpenAPI 3.0 or 3.1, as JSON.")
@click.option("--base-url", help="Where the API is, if the document does not say it, or says several.")
@click.option("--select", multiple=True, metavar="PATTERN", help="Only operations of such names; again for more.")
@click.option("--leave", multiple=True, metavar="PATTERN", help="Not operations of such names; again for more.")
@click.option("--effect", "effects", multiple=True, type=_Effect(), help="Effect class of such names; again for more.")
@click.option("--credential", help="Name of the [credentials.*] or [leases.*] section that calls are sent with.")
@click.option("--allow-network", multiple=True, metavar="CIDR", help="A private network that may be dialled.")
@click.option("--unchecked-answers", is_flag=True, help="Do not hold answers against the document.")
@click.option("--replace", is_flag=True, help="Write the catalogue file anew if it says something else.")
@changing_options
def add(name: str, source: str, **given: Any) -> None:
    """Turn an OpenAPI document into tools of the gateway.

    Each operation becomes a tool of a catalogue file, NAME.catalogue.json, and the API an upstream of one fixed origin.
    GET is read, unless its words say otherwise; POST, PUT and PATCH are write, DELETE is destructive; nothing is taken
    for money. It is shown first. What cannot be carried is refused with its place, and then nothing is done.
    """
    made = _planned(name, source, **given)
    if not agreed(made, "added", dry_run=given["dry_run"], yes=given["yes"]):
        return
    backup = adding.carry_out(made)
    lines = [f"done; copies of the files as they were: {backup}", "start the gateway anew; nothing is allowed until"]
    done(made, str(backup), [*lines, f'policy allows it: allow = ["{name}.*"]'])


def _planned(name: str, source: str, **given: Any) -> adding.Plan:
    if fitting(name) != name or name == "gateway":
        raise Misconfigured(
            f"{shown(name)} cannot name an upstream", "small letters, digits, single - and _, at most 31, not `gateway`"
        )
    networks: tuple[str, ...] = given["allow_network"]
    try:
        netguard.guard(networks)
    except ValueError as error:
        raise Misconfigured(f"--allow-network: {error}", "give networks in CIDR form, such as 10.1.0.0/16") from None
    body = reading.read(source, networks)
    choice = Choice(given["select"], given["leave"], given["effects"], not given["unchecked_answers"])
    house = housing.find(given["config"], given["state"])
    try:
        document = Document(parsed(body))
        origin, prefix = picking.server(document, source if reading.is_address(source) else None, given["base_url"])
    except Refused as error:
        raise _refused(source, [error]) from None
    section: dict[str, Any] = {"kind": "http", "origin": origin}
    section |= {"credential": given["credential"]} if given["credential"] else {}
    section |= {"allow_networks": list(networks)} if networks else {}
    target = Target(name, house, section)
    picked = picking.picked(document, choice, prefix, lambda entry: adding.checked(target, entry))
    _require_fit(source, picked)
    return adding.plan(target, picked, replace=given["replace"])


def _require_fit(source: str, picked: Picked) -> None:
    if picked.problems:
        raise _refused(source, picked.problems)


def _refused(source: str, problems: list[Refused]) -> Misconfigured:
    told = [f"{shown(source)}: {shown(str(one))}" for one in problems[:_MOST_TOLD]]
    told += [f"... and {len(problems) - _MOST_TOLD} more"] if len(problems) > _MOST_TOLD else []
    return Misconfigured(
        "\n  ".join(("the document cannot be carried; nothing was changed", *told)),
        "correct it, choose operations by --select, or let some stay away by --leave",
        {
            "error": "openapi",
            "problems": [{"pointer": one.pointer, "rule": one.rule, "words": one.words} for one in problems],
        },
    )
