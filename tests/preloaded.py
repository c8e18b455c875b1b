"""What every command of ours imports: the process that commands are forked from holds it (``forked.py``)."""

import gc
from importlib import import_module

from gateway.cli.root import COMMANDS

for _module, _, _ in COMMANDS.values():
    import_module(f"gateway.cli.{_module}")
# A forked process that walks these objects would copy the pages they lie on.
gc.collect()
gc.freeze()
