"""Real servers for a laptop, the demo and the tests: PostgreSQL and OpenBao, started from wheels and torn down."""
