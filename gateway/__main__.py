"""``ostiary`` and ``python -m gateway``."""

from gateway.cli.root import main

if __name__ == "__main__":
    main()
