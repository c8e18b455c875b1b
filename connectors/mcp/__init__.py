"""MCP upstreams: one class per transport (``http``, ``stdio``), both protocol eras behind each."""
