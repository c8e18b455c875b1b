"""The secret keys of one log, and what is sealed with them."""
