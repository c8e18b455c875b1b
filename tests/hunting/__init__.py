"""The hunt: everything a run wrote, logged, listed or raised, searched for every secret in every encoding."""
