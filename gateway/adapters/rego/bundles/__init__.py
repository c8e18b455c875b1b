"""Where policy comes from: folders, archives and addresses, signed or not, and what is kept of it."""
