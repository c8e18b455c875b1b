"""``ostiary audit export``: bundles that a stranger verifies without this code."""
