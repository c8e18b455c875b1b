"""Pure rules: no I/O, no clock, no vendor; everything here can be tested without the world."""
