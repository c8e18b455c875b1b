"""The ``ostiary`` command. Subcommands are loaded from one closed table."""
