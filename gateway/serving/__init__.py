"""What stands around the application: sockets, connections, and what a server process is tuned with."""
