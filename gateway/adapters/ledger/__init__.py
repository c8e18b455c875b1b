"""The signed log on SQLite, the runs that are rebuilt from it, and its offline verifier."""
