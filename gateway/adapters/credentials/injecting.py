"""What a call gets of a minted credential: a user for its connector, or header fields."""

from gateway.core.call import Login
from gateway.core.leasing import Provider, Template

_VALUES = frozenset({Provider.KV, Provider.OAUTH_USER})


def injected(template: Template, login: Login) -> tuple[dict[str, str], Login | None]:
    """Header fields, and the user that was minted."""
    if template.provider in _VALUES:
        assert template.header is not None  # the settings say so
        return {template.header: template.prefix + login.password}, None
    return {} if template.header is None else {template.header: f"{login.user}:{login.password}"}, login
