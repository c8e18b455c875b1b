"""An MCP server at which persons have accounts: found out whom to ask for tokens, and written down for good."""
