"""Whether GDB says of the heap what the kernel says: for the test of these commands."""

import gdb

from . import batches, look
from .caches import Heap
from .memory import read
from .walk import Fault, Walk

# Where the shell prints such a text (`shell/commands/slab.rs`); its address and length come in
# the first two registers.
SHOW = "granary::shell::commands::slab::show"


def own(text):
    """What GDB says where the kernel says `text`."""
    heap, first = Heap(), text.split(None, 2)
    if first[0] == "cache":
        return "\n".join(look.one_cache(heap.find(first[1].rstrip(":"))))
    if first[0] == "grace":
        return "\n".join(batches.text(heap))
    if first[0].startswith("0x"):
        address = int(first[0].rstrip(":"), 16)
        return f"{address:#x}: {look.whatis(heap, address)}"
    try:
        return "\n".join([*Walk(heap).run(), "the heap is sound"])
    except Fault as fault:
        return str(fault)


def go_on_to(stop):
    """Goes on to a breakpoint, and takes it away.

    So GDB never has to step over one. QEMU sometimes says of such a step that it is done when
    the CPU is where it was: GDB then stops a second time, or loses its way.
    """
    gdb.execute("continue")
    hits = stop.hit_count
    stop.delete()
    if hits == 0:
        frame = gdb.newest_frame()
        raise gdb.GdbError(f"stopped in {frame.name()} at {frame.pc():#x}, not where it was to")


class Same(gdb.Command):
    """granary same COUNT: go on to the shell's next texts about the heap; does GDB say the same?"""

    def __init__(self):
        super().__init__("granary same", gdb.COMMAND_DATA)

    def invoke(self, argument, _from_tty):
        """Runs it."""
        if not argument.isdecimal():
            raise gdb.GdbError("granary same needs the number of texts")
        differ = 0
        for _ in range(int(argument)):
            go_on_to(gdb.Breakpoint(SHOW, internal=True))
            # Registers are signed to GDB.
            values = (int(gdb.parse_and_eval(name)) for name in ("$rdi", "$rsi"))
            registers = [value % (1 << 64) for value in values]
            theirs = read(registers[0], registers[1]).decode().rstrip("\n")
            ours = own(theirs)
            if ours == theirs:
                print(f"same: {theirs}")
            else:
                differ += 1
                print(f"the kernel says:\n{theirs}\nGDB says:\n{ours}")
            back = gdb.newest_frame().older().pc()
            go_on_to(gdb.Breakpoint(f"*{back:#x}", internal=True))
        print(f"{differ} texts differ")
