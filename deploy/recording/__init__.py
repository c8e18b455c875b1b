"""Recordings of a terminal: a command runs on a pseudo-terminal, and what it printed becomes an animated picture.

The picture depends on what was printed and not on how fast: lines appear at a steady pace in their last form, and what
differs from run to run (ids, durations, times, ports) is masked. So a recording changes when the output truly does.
"""
