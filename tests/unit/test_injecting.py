"""What a call gets of a minted credential, in the one way that its template says."""

from dataclasses import replace

from gateway.adapters.credentials.injecting import injected
from gateway.core.call import Handout, Login
from tests.fakes.leases import KEY, READ

LOGIN = Login("v-user", "Passw0rd")


def test_a_login_goes_to_its_connector_or_into_a_header_field() -> None:
    """As a user; or as USER:PASSWORD; or a value behind its prefix, without a user."""
    assert (injected(READ, LOGIN).login, injected(READ, LOGIN).headers) == (LOGIN, {})
    assert injected(replace(READ, header="X-Login"), LOGIN).headers == {"X-Login": "v-user:Passw0rd"}
    value = injected(KEY, Login("", "ak-1"))
    assert (value.login, value.headers) == (None, {"Authorization": "Bearer ak-1"})


def test_a_process_gets_the_form_filled_in_and_nothing_else_gets_anything() -> None:
    """Neither header fields nor a user for the connector; in a file or in the variable itself."""
    template = replace(READ, variable="DSN", in_file=True, form="postgresql://{user}:{password}@db/{user}")
    found = injected(template, LOGIN)
    assert found.handout == Handout("DSN", "postgresql://v-user:Passw0rd@db/v-user", in_file=True)
    assert (found.login, found.headers) == (None, {})
    assert "Passw0rd" not in repr(found)


def test_what_was_minted_is_not_filled_in_itself() -> None:
    """A password that looks like a place to fill in is a password."""
    template = replace(READ, variable="DSN", form="{user}|{password}")
    found = injected(template, Login("{password}", "{user}{x}"))
    assert found.handout is not None
    assert found.handout.text == "{password}|{user}{x}"
