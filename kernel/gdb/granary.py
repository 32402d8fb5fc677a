"""Commands for the kernel in GDB: `granary`. `cargo xtask gdb` loads this file.

They read the memory of a guest that is stopped, wherever that is, and change nothing: a guest
that has crashed or hangs can be looked at as well. What they print is what the kernel's own
shell prints for the same (see each command), which `cargo xtask test boot/gdb-heap` compares.
"""

import os
import sys

import gdb

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from heap import commands


class Granary(gdb.Command):
    """Look at the kernel: `help granary` lists what at."""

    def __init__(self):
        super().__init__("granary", gdb.COMMAND_DATA, prefix=True)


Granary()
commands.register()
