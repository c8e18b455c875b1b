"""``ostiary policy``: what works on recorded decisions and on hypothetical questions."""
