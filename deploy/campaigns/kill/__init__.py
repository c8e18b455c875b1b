"""Is anything lost, made up or left open when a gateway is killed, again and again, on one and the same log?

A real gateway (``ostiary serve``, policy workers and all) is loaded by 32 clients on kept-alive connections, over REST
and MCP, and its process group is killed with SIGKILL at a seeded moment: under load, while the log is being opened,
while the write-ahead log is moved into the database, while it is shutting down. Then it is started again on the same
state. The tool is a process of its own that is never killed and notes every effect before it answers (``tool``). After
each death what is on disk is judged (``judge``) against what the clients were told, what the tool did and every
checkpoint that was ever handed out.

With ``--store postgres`` two gateways write one log in a real PostgreSQL, and either is killed while the other goes on;
before each judgement the load rests, and the survivor must have ended by itself what the dead one left open.

A killed process loses nothing it has handed to the kernel: this shows the order of things and what a start makes of
what it finds. That a commit reaches the disk itself is SQLite's ``synchronous = full``; no SIGKILL can test it.
"""
