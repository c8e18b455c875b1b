"""What a call gets of a minted credential: a user for its connector, header fields, or what its process starts with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.core.call import Handout, Login
from gateway.core.leasing import Provider, Template

_VALUES = frozenset({Provider.KV, Provider.OAUTH_USER})


@dataclass(frozen=True, slots=True)
class Injection:
    """What ``core.call.Lease`` holds of it."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    login: Login | None = None
    handout: Handout | None = None


def injected(template: Template, login: Login) -> Injection:
    """In the one way that the template says."""
    if template.variable is not None:
        return Injection(handout=Handout(template.variable, _filled_in(template.form, login), template.in_file))
    if template.provider in _VALUES:
        assert template.header is not None  # the settings say so
        return Injection({template.header: template.prefix + login.password})
    return Injection({} if template.header is None else {template.header: f"{login.user}:{login.password}"}, login)


def _filled_in(form: str, login: Login) -> str:
    # Part by part: what was minted is not looked into for further places to fill in.
    values = {"user": login.user, "password": login.password}
    pieces = form.replace("}", "{").split("{")
    return "".join(piece if place % 2 == 0 else values[piece] for place, piece in enumerate(pieces))
