"""Who last allocated and freed an object of a STORE_USER cache: `mm/src/slab/debug/info.rs`."""

import gdb

from .memory import MASK, at, number, read, word

# Where they lie behind an object, and what they consist of.
TRACKS = {"allocated": 8, "freed": 88}
WORDS = 10
# The location's address, the time, thread and CPU come first, the checksum last.
STACK = slice(3, 9)


def checksum(address, words):
    """The checksum of a track's words that stand at an address."""
    total = address
    for value in words:
        total = (((total << 9 | total >> 55) & MASK) ^ value) * 0x9E37_79B9_7F4A_7C15 & MASK
    return total


def location(address):
    """A `Location`, as `file:line:column`."""
    place = at("core::panic::location::Location", address)
    text = place["filename"]
    while text.type.fields()[0].name != "data_ptr":
        text = text[text.type.fields()[0]]
    name = read(number(text["data_ptr"]), number(text["length"])).rstrip(b"\0").decode()
    return f"{name}:{number(place['line'])}:{number(place['col'])}"


class Track:
    """An allocation or a free."""

    def __init__(self, name, address):
        words = [word(address + 8 * index) for index in range(WORDS)]
        self.name, self.happened = name, any(words)
        *values, found = words
        self.overwritten = self.happened and (
            found != checksum(address, values) or values[0] == 0
        )
        self.location, self.at_ns, self.who = values[:3]
        self.stack = []
        for caller in values[STACK]:
            if caller == 0:
                break
            self.stack.append(caller)

    def line(self):
        """What the kernel says of it."""
        if self.overwritten:
            return f"  {self.name}: the track was overwritten"
        callers = "".join(f" {caller:#x}" for caller in self.stack)
        return (
            f"  {self.name} at {location(self.location)} by thread {self.who & 0xFFFF_FFFF} "
            f"on cpu{self.who >> 32} at {self.at_ns} ns:{callers}"
        )

    def callers(self):
        """Its stack, a line for each function."""
        if self.overwritten:
            return
        yield f"  {self.name} by:"
        for index, caller in enumerate(self.stack):
            # A return address is behind its call; the call itself names the right line.
            inside = caller - 1
            found = gdb.find_pc_line(inside)
            name = gdb.execute(f"info symbol {inside:#x}", to_string=True).split(" in section")[0]
            place = f" at {found.symtab.filename}:{found.line}" if found.symtab else ""
            yield f"    #{index} {inside:#018x} {name.strip()}{place}"


def of(cache, begin):
    """Both of an object, if they are kept and there are some."""
    if not cache.has("STORE_USER"):
        return []
    tracks = [Track(name, begin + cache.tracks + offset) for name, offset in TRACKS.items()]
    return [track for track in tracks if track.happened]
