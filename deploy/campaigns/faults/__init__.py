"""Fault injection on the real parts: does every effect keep its intent, whatever breaks, and when?

A run is three processes that share nothing but files and sockets: an upstream that durably notes each request before it
answers (``upstream``, ``peer``), a gateway composed as in production whose ports are watched (``life``, ``probes``,
``faults``), and afterwards a judge that reads the log and the upstream's journal alone (``judge``, ``invariant``).
"""
