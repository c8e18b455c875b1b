"""Long series of runs that leave evidence behind: what takes too long for every change, see ``docs/evidence``."""
