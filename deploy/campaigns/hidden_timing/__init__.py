"""Can a hidden tool be told from a name of no tool by how long a refusal takes?

One gateway as an operator starts it, on loopback. A caller asks in turn for a tool that a deny list hides and for two
names of no tool (``doors``), in a shuffled order, thousands of times in each of eight situations (``campaign``). The
median difference within a pair is held against what two names of no tool show by the same method (``judge``).
"""
