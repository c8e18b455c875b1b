"""Can anything a client sends to the MCP endpoints break the gateway, or reach a tool without being governed?

A gateway composed as in production, with its real policy, ledger and MCP connectors, and two MCP servers behind it that
count what reaches them (``upstream``). Two agents with different rights talk to it in seeded conversations
(``author``), in both eras and at both endpoints: requests made by a grammar (``grammar``), requests with one fault that
must be refused (``faults``), and requests mutated at random, of which nothing is known (``mutation``). Every answer is
judged by its form and by what its caller may read (``answers``); afterwards the log and the servers' journals are held
against each other (``invariant``): each call that a server received has its own earlier durable intent, of the agent
that sent it, and policy allows it.
"""
