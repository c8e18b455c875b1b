"""Where the log is kept: databases, the writer's transactions, and what makes them one log."""
