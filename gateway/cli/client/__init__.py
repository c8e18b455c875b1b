"""``ostiary client``: agents' own configuration files, connected to the gateway and given back."""
