"""``ostiary`` as a developer might run it in trouble: every logger of every library at its most talkative."""

import logging

from gateway import logs
from gateway.cli.root import main

_quiet = logs.configure


def talkative() -> None:
    """Run the command line with logs from DEBUG on."""
    logs.configure = lambda redact, level="DEBUG": _quiet(redact, "DEBUG")
    logging.raiseExceptions = True
    main()


if __name__ == "__main__":
    talkative()
