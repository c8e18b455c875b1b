"""``ostiary vault``: what the vault must hold for this configuration, compared and written."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from gateway.adapters.credentials import SecretSource, read_secret
from gateway.adapters.vault.provisioning import Provisioner
from gateway.cli import home
from gateway.cli.screen import Failed, Misconfigured, answer, json_option, wants_json
from gateway.core import vault_looks, vault_plan, vault_policy
from gateway.core.errors import Unavailable
from gateway.core.leasing import VaultFault
from gateway.core.vault_plan import Change, Effect, Needs
from gateway.parts import minting, vaulting
from gateway.settings import GatewaySettings, SettingsError

_TOKEN = "OSTIARY_VAULT_TOKEN"  # noqa: S105 - the name of a variable
_config = click.option(
    "--config", required=True, type=click.Path(path_type=Path), help="Configuration file (gateway.toml)."
)
_token = click.option(
    "--token-file", type=click.Path(path_type=Path), help=f"File with a token of the admin policy [${_TOKEN}]."
)


@dataclass(frozen=True, slots=True)
class Seen:
    """How a vault differs from what it must hold.

    Attributes:
        problems: what the operator has to mend; it is not written from here.
    """

    changes: tuple[Change, ...]
    problems: tuple[str, ...]
    held: int


@click.group()
def vault() -> None:
    """Set up the vault for a configuration, with least privilege."""


@vault.command()
@_config
@_token
@json_option
def plan(config: Path, token_file: Path | None) -> None:
    """Show how the vault differs from what this configuration needs.

    Exit code 0 = in no way. Nothing is written.
    """
    settings, needs = _needed(config)
    with _opened(settings, token_file) as provisioner:
        seen = _seen(provisioner, needs)
    _say(seen)
    if seen.changes or seen.problems:
        raise click.exceptions.Exit(1)


@vault.command()
@_config
@_token
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--widen", is_flag=True, help="Also change what is there so that it allows more.")
@json_option
def apply(config: Path, token_file: Path | None, *, yes: bool, widen: bool) -> None:
    """Write what differs, after showing it.

    Nothing is written where something that is there would come to allow more, unless --widen is given.
    """
    settings, needs = _needed(config)
    with _opened(settings, token_file) as provisioner:
        seen = _seen(provisioner, needs)
        _check_may(seen, yes=yes, widen=widen)
        for change in seen.changes:
            _asked(lambda piece=change.piece: provisioner.write(piece))
        left = _seen(provisioner, needs)
    written = [change.piece.path for change in seen.changes]
    lines = [*(f"written  {path}" for path in written), *_lines(left)]
    answer({"written": written, **_document(left)}, lines)
    if left.changes or left.problems:
        raise click.exceptions.Exit(1)


@vault.command("policy")
@click.argument("which")
@_config
@json_option
def policy_(which: str, config: Path) -> None:
    """Print a policy: gateway, break-glass, admin, introducer, or that of a lease template.

    No vault is asked. `admin` is what `ostiary vault apply` needs; `introducer` is what whoever gives the gateway its
    first secret id needs.
    """
    _, needs = _needed(config)
    rules = _policies(needs).get(which)
    if rules is None:
        names = ", ".join(_policies(needs))
        raise click.BadParameter(f"{which!r} is none of {names}", param_hint="WHICH")
    text = vault_policy.text(rules)
    answer({"name": which, "policy": text}, text.splitlines())


def _policies(needs: Needs) -> dict[str, Sequence[vault_policy.Rule]]:
    found: dict[str, Sequence[vault_policy.Rule]] = {
        "gateway": vault_policy.gateway(needs.templates, needs.duties),
        "admin": vault_plan.admin_policy(needs),
        "break-glass": vault_policy.break_glass(needs.templates),
    }
    if needs.approle is not None:
        found["introducer"] = vault_policy.introducer(f"{needs.approle}/role/{needs.name}")
    return {**{one.name: vault_policy.minting(one) for one in needs.templates}, **found}


def _needed(config: Path) -> tuple[GatewaySettings, Needs]:
    settings = home.read(config)
    try:
        return settings, vaulting.needs(settings)
    except SettingsError as error:
        raise home.unusable(error) from None


def _opened(settings: GatewaySettings, token_file: Path | None) -> Provisioner:
    source = SecretSource(env=None if token_file else _TOKEN, file=token_file)
    try:
        token = read_secret("the vault's admin token", source, os.environ)
    except Unavailable as error:
        raise Misconfigured(error.detail, f"set {_TOKEN}, or give --token-file") from None
    assert settings.vault is not None  # or there would be no needs
    return Provisioner(minting.address(settings.vault), token)


def _seen(provisioner: Provisioner, needs: Needs) -> Seen:
    pieces = vault_plan.pieces(needs)
    compared = [vault_plan.compared(one, _asked(lambda one=one: provisioner.read(one.path))) for one in pieces]
    changes = tuple(change for change in compared if change is not None)
    missing = {change.piece.path for change in changes if change.effect is Effect.CREATE}
    problems = [vault_looks.audit_problem(_asked(lambda: provisioner.read("sys/audit")) or {})]
    for template in needs.templates:
        if f"sys/mounts/{template.mount}" in missing:
            continue  # it holds nothing, and says so once it is there
        found = [_asked(lambda path=path: provisioner.read(path)) for path in vault_plan.looked_at(template)]
        if found:
            problems.append(vault_looks.problem(template, found[0]))
        if template.reaper is not None and found[0] is not None:
            problems.append(vault_looks.reaper_problem(template, found[1]))
    return Seen(changes, tuple(filter(None, problems)), len(pieces) - len(changes))


def _asked(question: Any) -> Any:
    try:
        return question()
    except VaultFault as fault:
        raise Failed(fault.detail, fault.fix) from None


def _check_may(seen: Seen, *, yes: bool, widen: bool) -> None:
    refused = [change for change in seen.changes if change.effect is Effect.REFUSE]
    if refused:
        _say(seen)
        raise Failed(f"{refused[0].piece.path}: {refused[0].why}; nothing was written", "choose another mount")
    wider = [change for change in seen.changes if change.effect is Effect.WIDEN]
    if wider and not widen:
        _say(seen)
        raise Failed(f"{wider[0].piece.path} {wider[0].why}; nothing was written", "look, then --widen")
    if not seen.changes or yes:
        return
    if wants_json():
        raise Misconfigured("with --json nobody is asked", "give --yes, too")
    _say(seen)
    click.confirm("Write this?", abort=True)


def _say(seen: Seen) -> None:
    answer(_document(seen), _lines(seen))


def _document(seen: Seen) -> dict[str, Any]:
    changes = [
        {"path": one.piece.path, "effect": one.effect, "why": one.why, "diff": list(one.diff)} for one in seen.changes
    ]
    return {"changes": changes, "problems": list(seen.problems), "held": seen.held}


def _lines(seen: Seen) -> Iterable[str]:
    for change in seen.changes:
        yield f"{change.effect:7}  {change.piece.path}{f'  ({change.why})' if change.why else ''}"
        yield from (f"         {line}" for line in change.diff)
    yield from (f"mend     {problem}" for problem in seen.problems)
    yield f"{seen.held} as they should be, {len(seen.changes)} differ, {len(seen.problems)} to be mended by hand"
