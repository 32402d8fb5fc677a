"""Whose an address is, and one cache in full: as `whatis` and `slabinfo CACHE` in the shell."""

from . import tracks
from .batches import awaited
from .caches import Word, place
from .frames import SLAB, STATES
from .memory import MASK, word

# `slab/debug/info.rs`: the state word of an isolated object, mixed with its address.
ISOLATED = 0x6261_645F_5F6F_626A
# Partial slabs that are shown of a node.
SHOWN = 8


def bytes_behind(cache):
    """What a debug cache keeps behind each object: `slab/debug/info.rs`."""
    if not cache.has("DEBUG"):
        return 0
    return 176 if cache.has("STORE_USER") else 8


def part_at(cache, offset):
    """What is so many bytes into an object's place."""
    byte = offset - cache.red_left
    link, tracks = cache.link, cache.tracks
    if byte < 0:
        return "left red zone"
    if byte < cache.object_size:
        return f"byte {byte}"
    if byte < cache.usable:
        return "rounding"
    if link >= cache.usable and link <= byte < link + 8:
        return "link"
    if tracks and tracks <= byte < tracks + bytes_behind(cache):
        return "tracks"
    if cache.has("RED_ZONE") and (byte < link or byte < tracks):
        return "right red zone"
    return "padding"


def place_of(heap, cache, slab, index, address):
    """Where an object is, in words."""
    try:
        if index in cache.freelist(slab):
            return "free: on its slab's freelist"
    except ValueError:
        pass
    for sheaf in cache.sheaves():
        if address in sheaf.objects:
            waits = sheaf.place.startswith("waiting") and sheaf.cookie is not None
            return f"free: {sheaf.place}" + (f" ({awaited(heap, sheaf.cookie)})" if waits else "")
    for object, where in heap.deferred():
        if object == address:
            return f"free: {where}"
    for lane in heap.lanes():
        for batch in lane.batches():
            if address in batch.items:
                return f"free: {lane.place} ({awaited(heap, batch.cookie)})"
    for object, cpu in heap.quarantined():
        if object == address:
            return f"free: quarantined on cpu{cpu}"
    if cache.has("DEBUG"):
        state = address + cache.tracks
        mixed = (state << 23 | state >> 41) & MASK
        if word(state) == ISOLATED ^ mixed:
            return "isolated: found damaged"
    return "allocated"


def whatis(heap, address):
    """What an address is in."""
    frame = heap.frames.of_address(address)
    head = heap.frames.head_of(frame)
    if head is None:
        return "no memory of the direct map"
    if head.state != SLAB:
        block = f"page {frame.pfn:#x} of a block of order {head.order} from frame {head.pfn:#x}"
        return f"{block}: {STATES[head.state]}"
    cache = heap.by_address.get(head.owner)
    if cache is None:
        return f"slab {head.pfn:#x}, whose owner {head.owner:#x} is no cache"
    words, offset = Word(head.word), address - head.base
    index = offset // cache.size
    begin = cache.first_object(head) + index * cache.size
    if index < words.objects:
        part = part_at(cache, offset - index * cache.size)
        text = f"{part} of object {index} ({begin:#x}, {cache.object_size} bytes)"
    else:
        text = "behind the last object"
    text += (
        f" of cache {cache.own_name}\nslab {head.pfn:#x} of order {head.order} on node "
        f"{head.node}: {words.in_use} of {words.objects} in use, {place(head)}"
    )
    if index < words.objects:
        text += "\n" + place_of(heap, cache, head, index, begin)
        text += "".join("\n" + track.line() for track in tracks.of(cache, begin))
    return text


def callers(heap, address):
    """The stacks of who allocated and freed an object, by name."""
    head, cache = heap.slab_at(address)
    if cache is None:
        return
    index = (address - head.base) // cache.size
    if index < Word(head.word).objects:
        for track in tracks.of(cache, cache.first_object(head) + index * cache.size):
            yield from track.callers()


def one_cache(cache):
    """A cache, with what every CPU and node has of it."""
    yield (
        f"cache {cache.name}: objects of {cache.object_size} bytes, {cache.size} apart, "
        f"aligned to {cache.align}"
    )
    yield (
        f"slabs of order {cache.order} with {cache.objects} objects, of order "
        f"{cache.min_order} with {cache.min_objects} when memory is short"
    )
    yield (
        f"sheaves of {cache.sheaf_capacity} objects, {cache.min_partial} empty slabs kept, "
        f"{cache.deferred} frees deferred, {sum(cache.quarantined().values())} quarantined, "
        f"{cache.flag_names()}"
    )
    for alias in cache.aliases():
        yield f"also called {alias}"
    waiting = {cpu: part.objects for cpu, part in cache.parts.items()}
    for cpu, sheaves in cache.cpus():
        named = zip(("main", "spare", "rcu_free"), sheaves)
        parts = [f"{name} {s.len}/{s.capacity}" if s else f"{name} -" for name, s in named]
        yield f"cpu{cpu}: " + " ".join(parts) + f" waiting {waiting[cpu]}"
    for node in cache.nodes():
        partial = list(node.listed(node.partial))
        yield (
            f"node {node.id}: {node.slabs} slabs with {node.objects} objects, "
            f"{len(partial)} partial, {len(list(node.listed(node.full)))} full (debug), "
            f"{node.waiting} wait for RCU; barn: {node.counted[0]} full, {node.counted[1]} empty"
        )
        for slab in partial[:SHOWN]:
            words = Word(slab.word)
            yield f"  slab {slab.pfn:#x}: {words.in_use} of {words.objects} in use"
        if len(partial) > SHOWN:
            yield f"  and {len(partial) - SHOWN} more"


def slabinfo(heap):
    """All caches, as `/proc/slabinfo`."""
    yield "slabinfo - version: 2.1"
    yield (
        "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> "
        ": tunables <limit> <batchcount> <sharedfactor> "
        ": slabdata <active_slabs> <num_slabs> <sharedavail>"
    )
    for cache in heap.caches:
        slabs = objects = free = 0
        for node in cache.nodes():
            slabs, objects = slabs + node.slabs, objects + node.objects
            free += sum(Word(slab.word).free for slab in node.listed(node.partial))
        yield (
            f"{cache.name:<17} {max(objects - free, 0):>6} {objects:>6} {cache.size:>6} "
            f"{cache.objects:>4} {1 << cache.order:>4} "
            f": tunables {0:>4} {0:>4} {0:>4} : slabdata {slabs:>6} {slabs:>6} {0:>6}"
        )
