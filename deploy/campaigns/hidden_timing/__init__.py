"""Can a hidden tool be told from a name of no tool by how long a refusal takes?

One gateway as an operator starts it, on loopback. A caller asks in turn for a tool that no list gives them and for two
names of no tool (``doors``), in a shuffled order, thousands of times in each of eight situations (``campaign``). The
median difference within a pair is held against what two names of no tool show by the same method (``judge``).

All three names are alike to the rules, so that it is the gateway that is measured. Rules that say something else of a
hidden tool's name than of other names, such as a deny list with that very name, take their own time over it.
"""
