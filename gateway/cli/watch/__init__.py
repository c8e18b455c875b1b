"""``ostiary watch``: the calls that pass the door, live; one key to explain or to approve.

``calls`` and ``state`` are pure: records and keys in, rows and wishes out. ``feed`` and ``talker`` ask the gateway,
``view`` makes lines of a state, ``terminal`` and ``lines`` are the two rims.
"""
