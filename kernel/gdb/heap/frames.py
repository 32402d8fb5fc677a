"""Descriptors of page frames (`mm/src/frame.rs`)."""

from .memory import DIRECT_MAP, FRAME_MAP, PAGE, kind, read

HOLE, RESERVED, BOOT, FREE, LISTED, LATER, BAD, TAIL, USED = range(9)
STATES = [
    "hole",
    "reserved",
    "boot",
    "free",
    "free (page list)",
    "free (deferred)",
    "bad",
    "tail",
    "pages",
    "slab",
    "large kmalloc",
    "vmalloc",
    "page table",
    "per-CPU",
    "stack",
    "descriptors",
]
SLAB, LARGE, META = USED + 1, USED + 2, USED + 7
MAX_ORDER = 10
# Descriptors that are read at once.
BATCH = 16384


class Frame:
    """One descriptor."""

    def __init__(self, pfn, data):
        def field(offset, size):
            return int.from_bytes(data[offset : offset + size], "little")

        bits = field(0, 4)
        self.pfn = pfn
        self.state, self.order, self.zone = bits & 0xFF, bits >> 8 & 0xFF, bits >> 16 & 0xFF
        self.tag = field(12, 4)
        self.word = field(16, 8)
        self.owner = field(32, 8)
        self.links = (field(40, 8), field(48, 8))

    @property
    def node(self):
        """The node; each has two zones."""
        return self.zone // 2

    @property
    def base(self):
        """Where its memory appears."""
        return DIRECT_MAP + self.pfn * PAGE


class Frames:
    """All of them. Read when they are asked for."""

    def __init__(self, end):
        frame = kind("mm::frame::Frame")
        self.size = frame.sizeof
        offsets = {field.name: field.bitpos // 8 for field in frame.fields()}
        expected = {"word": 0, "tag": 12, "pair": 16, "owner": 32, "links": 40}
        for name, offset in expected.items():
            assert offsets[name] == offset, "descriptors have changed: heap/frames.py"
        self.end = end
        self.batches = {}

    def get(self, pfn):
        """The descriptor of a frame; None beyond the end."""
        if not 0 <= pfn < self.end:
            return None
        batch = pfn // BATCH
        if batch not in self.batches:
            first = batch * BATCH
            count = min(BATCH, self.end - first)
            self.batches[batch] = read(FRAME_MAP + first * self.size, count * self.size)
        offset = pfn % BATCH * self.size
        return Frame(pfn, self.batches[batch][offset : offset + self.size])

    def of_address(self, address):
        """The descriptor of the frame at an address; None outside the direct map."""
        return self.get((address - DIRECT_MAP) // PAGE) if address >= DIRECT_MAP else None

    def is_memory(self, address):
        """Whether there is memory at an address."""
        frame = self.of_address(address)
        return frame is not None and frame.state not in (HOLE, RESERVED)

    def of_descriptor(self, address):
        """The descriptor that lies at an address."""
        number, rest = divmod(address - FRAME_MAP, self.size)
        return self.get(number) if rest == 0 else None

    def head_of(self, frame):
        """The head of the block that a frame is of; None in holes."""
        if frame is None or frame.state == HOLE:
            return None
        if frame.state != TAIL:
            return frame
        for order in range(1, MAX_ORDER + 1):
            head = self.get(frame.pfn & ~((1 << order) - 1))
            if head.state != TAIL and head.order >= order:
                return head if head.state != HOLE else None
        return None

    def blocks(self):
        """The heads of all blocks, in order; frames of boot's one by one."""
        pfn = 0
        while pfn < self.end:
            frame = self.get(pfn)
            alone = frame.state in (HOLE, RESERVED, BOOT, TAIL)
            if frame.state not in (HOLE, RESERVED, TAIL):
                yield frame
            pfn += 1 if alone else 1 << frame.order
