"""Reading the guest's memory by addresses, types and fields of the debug information."""

import gdb

# docs/architecture.md, "Address space".
DIRECT_MAP = 0xFFFF_8880_0000_0000
FRAME_MAP = 0xFFFF_EA00_0000_0000
VMALLOC = range(0xFFFF_C900_0000_0000, 0xFFFF_E100_0000_0000)
PAGE = 4096
MASK = (1 << 64) - 1
KERNEL = "granary::machine::Kernel"


def read(address, size):
    """Bytes of memory."""
    return gdb.selected_inferior().read_memory(address, size).tobytes()


def word(address, size=8):
    """A number in memory."""
    return int.from_bytes(read(address, size), "little")


def kind(name):
    """A type by its name; `K` stands for the machine."""
    return gdb.lookup_type(name.replace("<K>", "<" + KERNEL + ">"))


def at(name, address):
    """The value of a type that lies at an address."""
    return gdb.Value(address).cast(kind(name).pointer()).dereference()


def where(value):
    """The address of a value."""
    return int(value.address)


def number(value):
    """What lies in memory there as one number: an integer, an atomic, a pointer, an optional
    pointer."""
    return word(where(value), value.type.sizeof)


def text(array_string):
    """An `ArrayString`."""
    return read(where(array_string["xs"]), number(array_string["len"])).decode()


def static(name):
    """The value of a static."""
    return gdb.parse_and_eval(name)


def per_cpu_offsets():
    """What to add to a per-CPU address, for each CPU that the machine has."""
    offsets = static("granary::arch::x86_64::percpu::OFFSETS")
    size = offsets.type.sizeof // 8
    words = [word(where(offsets) + 8 * cpu) for cpu in range(size)]
    return {cpu: offset for cpu, offset in enumerate(words) if offset != 0}
