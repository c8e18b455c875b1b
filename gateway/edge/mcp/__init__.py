"""MCP as it is spoken to agents: the endpoints of both eras, and what flows beside a call while it runs."""
