"""Who comes with an API key of this gateway."""

from gateway.adapters.identity.claims import Cause, refused
from gateway.core.api_keys import AUTH_METHOD, PREFIX, ApiKeyBook, is_sound
from gateway.core.call import Live, Principal
from gateway.core.ports import Clock


class ApiKeyIdentity:
    """Checks API keys. Closed: what is not proven good raises ``Unauthenticated``.

    A guess costs a checksum, a good form a hash; guessing is held back by the throttle at the edge, per address.
    """

    def __init__(self, clock: Clock, issuer: str, book: ApiKeyBook) -> None:
        """``issuer`` is the local one: a key's user is the user of that name there."""
        self._clock = clock
        self._issuer = issuer
        self._book = book

    @staticmethod
    def takes(token: str) -> bool:
        """Whether a credential wants to be an API key."""
        return token.startswith(PREFIX)

    def holder(self, live: Live) -> Principal:
        """Whose key this is; no I/O.

        Raises:
            Unauthenticated: it is none, is not known, was revoked, or has ended.
            Unavailable: what other gateways have revoked cannot be told.
        """
        if not is_sound(live.token):
            raise refused(Cause.MALFORMED, "the API key was not copied whole: its checksum is wrong")
        key = self._book.find(live.digest)
        if key is None:
            raise refused(Cause.UNKNOWN, "no such API key is known here")
        if key.revoked:
            raise refused(Cause.REVOKED, "the API key was revoked")
        if key.expires_us <= self._clock.now_us():
            raise refused(Cause.EXPIRED, "the API key has expired")
        self._book.used(key.id)
        return Principal(
            issuer=self._issuer,
            user=key.user,
            agent=key.agent,
            groups=key.groups,
            scopes=key.scopes,
            auth_method=AUTH_METHOD,
            jti=key.id,
            expires_us=key.expires_us,
        )

    def is_good(self, name: str) -> bool:
        """Whether the key of that id still counts."""
        return self._book.is_good(name)
