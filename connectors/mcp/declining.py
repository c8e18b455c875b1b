"""What a server is told that asks where nobody can be asked, in the handshake era.

The specification lets a server ask on a stream that is no call's own. Where it is not plain which call it means, who
would be shown such a question, under which permit, in which record? A client is asked while a call of its own waits.
What comes otherwise is declined at once, so that no server waits in silence.
"""

from gateway.core.mcpwire import eras
from gateway.core.mcpwire.jsonrpc import Request, encode_failure, encode_response

PING = "ping"


def declined(request: Request, *, is_askable: bool = False) -> bytes:
    """The answer to a request that belongs to no call whose client can be asked; a ping is none of these.

    Args:
        request: what the server asks.
        is_askable: whether it was told that there are clients that can be asked.
    """
    if request.method == PING:
        return encode_response(request.id, b"{}")
    if is_askable:
        # The code is that of later revisions, which forbid such questions.
        return encode_failure(request.id, eras.INVALID_PARAMS, "not answered (asked outside of a call)")
    return encode_failure(request.id, eras.METHOD_NOT_FOUND, "not offered")
