"""Facts of the MCP wire both sides of the gateway need: revisions, JSON-RPC, header values, event streams. Pure."""
