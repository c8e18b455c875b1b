"""Is any role, lease, token or session left when a gateway is killed between two steps of a lease, again and again?

A real gateway before a real OpenBao and PostgreSQL kills itself with SIGKILL at a named step of the way that
``core/leasing.py`` describes: when it is over, or while the vault or the database is at it (``victim``). Four clients
call it meanwhile, so other leases are at other steps. Then it is started again on the same state, and once it has
swept, what is left is told by the vault's listing of leases and accessors and by PostgreSQL's own catalogues.

The tokens have a period of a minute and are looked for within seconds: what is gone by then was ended by the recovery,
not by its age. One thing cannot be ended so: a token whose accessor was not durable yet. Nobody knows it, so nobody can
mint with it; the campaign notes each of these, and waits at its end until they, too, are gone.

And a vault that finds its client gone between the two entries it keeps of a lease ends the role, and keeps one entry: a
lease of nobody, which no token's end reaches. The campaign allows no more of them than the vault's log tells of.

At one step the database's commits are held up and the gateway is killed from beside, while one that makes a login is on
its way: each time the vault keeps no lease of the role, and the recovery must have it dropped all the same (ADR 42).
"""
