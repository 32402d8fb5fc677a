"""Caches and what hangs on them: sheaves, barns, lists of slabs."""

from functools import cached_property

from .batches import Lane, Part, heads
from .frames import SLAB, Frames
from .memory import at, kind, number, per_cpu_offsets, read, static, text, where, word

# `slab/spec.rs`, `slab/cache.rs`, `slab/page.rs`, `slab/word.rs`.
FLAG_NAMES = (
    "CONSISTENCY_CHECKS",
    "RED_ZONE",
    "POISON",
    "STORE_USER",
    "HWCACHE_ALIGN",
    "PANIC",
    "NO_MERGE",
    "TYPESAFE_BY_RCU",
    "RECLAIM_ACCOUNT",
    "NO_SHEAVES",
    "KMALLOC",
)
FLAGS = {name: 1 << bit for bit, name in enumerate(FLAG_NAMES)} | {"DEBUG": 0xF}
DYING = 1 << 6
DEBUG_FULL, WAITS_FOR_RCU = 2, 3
NONE = 0xFFFF
MANY = 1 << 20


class Word:
    """A freelist word."""

    def __init__(self, bits):
        self.head = bits & 0xFFFF
        self.in_use = bits >> 16 & 0xFFFF
        self.objects = bits >> 32 & 0xFFFF
        self.listed = bool(bits >> 48 & 1)
        self.free = self.objects - self.in_use


def place(frame):
    """Where a slab is, in words."""
    if frame.tag == DEBUG_FULL:
        return "full (debug)"
    if frame.tag == WAITS_FOR_RCU:
        return "waiting for RCU"
    return "partial" if Word(frame.word).listed else "full"


class Sheaf:
    """A sheaf, where it is, and its objects."""

    def __init__(self, place, address):
        sheaf = at("mm::slab::sheaf::Sheaf", address)
        self.place, self.address = place, address
        self.len, self.capacity = number(sheaf["len"]), number(sheaf["capacity"])
        self.next = number(sheaf["next"])
        data = read(address + sheaf.type.sizeof, 8 * min(self.len, self.capacity))
        self.objects = [
            int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)
        ]

    @property
    def cookie(self):
        """What its objects wait for, if they do: in its last place."""
        begin = self.address + kind("mm::slab::sheaf::Sheaf").sizeof
        return word(begin + 8 * (self.capacity - 1)) if self.len < self.capacity else None


class Node:
    """What a cache has of a node."""

    def __init__(self, heap, address):
        node = at("mm::slab::node::Node<K>", address)
        self.heap, self.id = heap, number(node["id"])
        self.slabs, self.objects = number(node["slabs"]), number(node["objects"])
        self.waiting = number(node["waiting"])
        lists = at("mm::slab::node::Lists", where(node["lists"]["value"]))
        self.partial, self.full = lists["partial"], lists["full"]
        sheaves = at("mm::slab::barn::Sheaves", where(node["barn"]["sheaves"]["value"]))
        self.counted = [number(sheaves[which]["len"]) for which in ("full", "empty")]
        self.sheaves = []
        for which in ("full", "empty"):
            place = f"in the barn of node {self.id}, in {'a full' if which == 'full' else 'an empty'} sheaf"
            next = number(sheaves[which]["top"])
            while next and len(self.sheaves) < 1000:
                self.sheaves.append(Sheaf(place, next))
                next = self.sheaves[-1].next

    def listed(self, which):
        """The slabs of a list."""
        next, seen = number(which["first"]), 0
        while next and seen < MANY:
            frame = self.heap.frames.of_descriptor(next)
            if frame is None:
                return
            yield frame
            next, seen = frame.links[1], seen + 1


class Cache:
    """A cache."""

    def __init__(self, heap, address):
        value = at("mm::slab::cache::KmemCache<K>", address)
        self.heap, self.value, self.address = heap, value, address
        for name in ("object_size", "usable", "size", "align", "link", "red_left", "tracks",
                     "order", "objects", "min_order", "min_objects"):
            setattr(self, name, number(value["layout"][name]))
        for name in ("flags", "hooks", "sheaf_capacity", "min_partial", "deferred", "secret", "id"):
            setattr(self, name, number(value[name]))
        self.own_name = text(value["name"]["__0"])
        self.older = number(value["older"])

    def has(self, flag):
        """Whether it has (any of) a flag."""
        return bool(self.flags & FLAGS[flag])

    def flag_names(self):
        """All its flags, in words."""
        names = [name for name in FLAG_NAMES if self.has(name)]
        return "flags " + " | ".join(names) if names else "no flags"

    @property
    def name(self):
        """The name in lists."""
        return f"{self.own_name}~{self.id}" if self.hooks & DYING else self.own_name

    def aliases(self):
        """Its further names."""
        next = number(self.value["aliases"])
        while next:
            alias = at("mm::slab::registry::Alias", next)
            yield text(alias["name"]["__0"])
            next = number(alias["next"])

    def nodes(self):
        """What it has of each node with memory."""
        nodes = self.value["nodes"]
        for index in range(nodes.type.sizeof // 8):
            address = word(where(nodes) + 8 * index)
            if address:
                yield Node(self.heap, address)

    def per_cpu(self):
        """Each CPU, with what it has of the cache."""
        addr = number(self.value["cpus"]["addr"])
        for cpu, offset in self.heap.cpus.items():
            yield cpu, at("mm::slab::percpu::CpuSlab<K>", (addr + offset) % (1 << 64))

    @property
    def kept(self):
        """The count of sheaves that it keeps."""
        return sum(number(own["kept"]) for _, own in self.per_cpu()) % (1 << 64)

    @cached_property
    def parts(self):
        """What it has on each CPU's lane, by CPU."""
        return {cpu: Part(own["part"]) for cpu, own in self.per_cpu()}

    def waiting(self, cpu):
        """Its closed sheaves on a CPU's lane, the oldest first."""
        next, seen = self.parts[cpu].first, 0
        while next and seen < MANY:
            sheaf = Sheaf(f"waiting for a grace period on cpu{cpu}", next)
            yield sheaf
            next, seen = sheaf.next, seen + 1
    def quarantined(self):
        """Each CPU, with the count of its objects in that one's quarantine."""
        return {cpu: number(own["quarantined"]) for cpu, own in self.per_cpu()}

    def cpus(self):
        """Each CPU, with its main, spare and rcu_free sheaf (None: it has none)."""
        for cpu, own in self.per_cpu():
            locked = own["sheaves"]["value"]
            sheaves = at("mm::slab::percpu::CpuSheaves", where(locked))
            found = []
            for name in ("main", "spare", "rcu_free"):
                sheaf = number(sheaves[name])
                there = sheaf and self.heap.frames.of_address(sheaf)
                found.append(Sheaf(f"in the {name} sheaf of cpu{cpu}", sheaf) if there else None)
            yield cpu, found

    def sheaves(self):
        """All its sheaves."""
        for _, found in self.cpus():
            yield from (sheaf for sheaf in found if sheaf)
        for cpu in self.heap.cpus:
            yield from self.waiting(cpu)
        for node in self.nodes():
            yield from node.sheaves

    def first_object(self, slab):
        """Where the first object of a slab begins."""
        return slab.base + self.red_left

    def index_of(self, slab, address):
        """The index of the object that begins at an address; None: there is none."""
        index, rest = divmod(address - self.first_object(slab), self.size)
        return index if rest == 0 and 0 <= index < Word(slab.word).objects else None

    def freelist(self, slab):
        """The indexes of a slab's free objects. Raises ValueError if a link is wrong."""
        head = Word(slab.word)
        data = read(slab.base, 4096 << slab.order)
        index, seen = head.head, set()
        while index != NONE:
            if index >= head.objects or index in seen:
                raise ValueError(len(seen))
            seen.add(index)
            yield index
            offset = self.red_left + index * self.size + self.link
            link = int.from_bytes(data[offset : offset + 8], "little")
            if self.secret:
                place = slab.base + offset
                link ^= self.secret ^ int.from_bytes(place.to_bytes(8, "little"), "big")
            index = NONE if link == 0 else ~link & (1 << 64) - 1


class Heap:
    """The allocator."""

    def __init__(self):
        self.slabs = at("mm::slab::Slabs<K>", where(static(SLABS)))
        mm = at("mm::mm::Mm<K>", number(self.slabs["mm"]))
        self.frames = Frames(number(mm["map"]["end"]))
        self.cpus = per_cpu_offsets()
        self.caches = []
        next = number(self.slabs["registry"]["newest"])
        while next and len(self.caches) < 10000:
            self.caches.append(Cache(self, next))
            next = self.caches[-1].older
        self.by_address = {cache.address: cache for cache in self.caches}

    def find(self, name):
        """The cache of a name; None."""
        for cache in self.caches:
            if name == cache.name or name in cache.aliases():
                return cache
        return None

    def slab_at(self, address):
        """The slab that an address lies in, and its cache; each None if it is none."""
        head = self.frames.head_of(self.frames.of_address(address))
        if head is None or head.state != SLAB:
            return None, None
        return head, self.by_address.get(head.owner)

    def deferred(self):
        """The objects that wait to be freed, with their place."""
        cpus = self.slabs["deferred"]["cpus"]
        for cpu in self.cpus:
            next, seen = number(cpus[cpu]["objects"]["head"]), 0
            while next and seen < MANY:
                yield next, f"deferred on cpu{cpu}"
                _, cache = self.slab_at(next)
                next = word(next + cache.link) if cache else 0
                seen += 1
            for memory in heads(self, number(cpus[cpu]["rcu"]["head"])):
                yield memory, f"deferred on cpu{cpu}"

    def lanes(self):
        """Every CPU's lane."""
        return [Lane(self, cpu) for cpu in self.cpus]

    def quarantined(self):
        """The objects in quarantine, with their CPU."""
        cpus = self.slabs["quarantine"]["cpus"]
        entry = kind("mm::slab::quarantine::fifo::Entry").sizeof
        for cpu in self.cpus:
            fifo = at("mm::slab::quarantine::fifo::Fifo", where(cpus[cpu]["fifo"]["value"]))
            next, index = number(fifo["first"]), number(fifo["begin"])
            for _ in range(number(fifo["len"])):
                segment = at("mm::slab::quarantine::fifo::Segment", next)
                entries = segment["entries"]
                # An entry begins with the object.
                yield word(where(entries) + index * entry), cpu
                index += 1
                if index == entries.type.sizeof // entry:
                    next, index = number(segment["next"]), 0


# The allocator's static.
SLABS = "granary::memory::slab::SLABS"
