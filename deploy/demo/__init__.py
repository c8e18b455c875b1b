"""``make demo``: the product in three minutes, with real servers, on a machine that has nothing but Python."""
