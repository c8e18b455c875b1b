"""Programs that check the log with nobody's code but other people's."""
