"""The commands `granary caches`, `cache`, `whatis`, `batches` and `walk`."""

import gdb

from . import batches, look
from .caches import Heap
from .same import Same
from .walk import Fault, Walk


class Look(gdb.Command):
    """A command that prints lines about the heap."""

    def __init__(self, name, lines, help, complete=gdb.COMPLETE_NONE):
        self.__doc__ = help
        self.lines = lines
        super().__init__(f"granary {name}", gdb.COMMAND_DATA, complete)

    def invoke(self, argument, _from_tty):
        """Runs it."""
        try:
            heap = Heap()
        except gdb.error as error:
            raise gdb.GdbError(f"the slab allocator cannot be read: {error}") from error
        for line in self.lines(heap, argument.strip()):
            print(line)


def caches(heap, argument):
    if argument:
        raise gdb.GdbError("granary caches has no argument")
    yield from look.slabinfo(heap)


def cache(heap, argument):
    if not argument:
        raise gdb.GdbError("granary cache needs the name of a cache")
    found = heap.find(argument)
    if found is None:
        raise gdb.GdbError(f"no cache is called '{argument}'; granary caches lists them")
    yield from look.one_cache(found)


def whatis(heap, argument):
    if not argument:
        raise gdb.GdbError("granary whatis needs an address")
    try:
        value = gdb.parse_and_eval(argument)
        address = int(value.cast(gdb.lookup_type("u64"))) % (1 << 64)
    except gdb.error as error:
        raise gdb.GdbError(f"granary whatis: '{argument}' is no address: {error}") from None
    yield f"{address:#x}: {look.whatis(heap, address)}"
    yield from look.callers(heap, address)


def waiting(heap, argument):
    if argument:
        raise gdb.GdbError("granary batches has no argument")
    yield from batches.text(heap)


def walk(heap, argument):
    if argument:
        raise gdb.GdbError("granary walk has no argument")
    try:
        yield from Walk(heap).run()
    except Fault as fault:
        raise gdb.GdbError(str(fault)) from None
    yield "the heap is sound"


def register():
    """Makes the commands known."""
    Look("caches", caches, "All slab caches, as /proc/slabinfo has them.")
    Look("cache", cache, "granary cache NAME: a cache, with every CPU's and node's part.")
    Look(
        "whatis",
        whatis,
        "granary whatis ADDRESS: page, cache, slab and object that an address lies in; and who "
        "allocated and freed it, where that is kept.",
        gdb.COMPLETE_EXPRESSION,
    )
    Look(
        "batches",
        waiting,
        "What was given to kfree_rcu: each CPU's lane, with its sheaves by cache, pages and chains, the grace "
        "period that each waits for, and whether that is over.",
    )
    Look("walk", walk, "Whether every page and object is in one place, and all counts agree.")
    Same()
