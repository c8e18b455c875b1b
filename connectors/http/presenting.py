"""TLS with a client certificate that was issued for one call; its key is never on a disk."""

import os
import ssl
import textwrap
from collections.abc import Callable

from gateway.core.call import Login
from gateway.core.errors import NotSent

_PEM_COLUMNS = 64


def presenting(fresh: Callable[[], ssl.SSLContext], login: Login) -> ssl.SSLContext:
    """A context that presents the certificate of ``login``; ``fresh`` makes one that nobody else has. Blocks.

    Raises:
        NotSent: certificate and key cannot be used.
    """
    lines = "\n".join(textwrap.wrap(login.password, _PEM_COLUMNS))
    pem = f"{login.chain}\n-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----\n"
    # The library reads files only: this one is in memory, has no name and is gone when it is closed.
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        context = fresh()
        with os.fdopen(descriptor, "wb", closefd=False) as stream:
            stream.write(pem.encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except (OSError, ValueError):  # an error of TLS is an OSError
        raise NotSent("the client certificate cannot be used", cause_code="tls") from None
    finally:
        os.close(descriptor)
    return context
