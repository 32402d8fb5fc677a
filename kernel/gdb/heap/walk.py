"""The walk of the whole heap, as `kmem walk` in the shell (`mm/src/slab/walk.rs`)."""

from .caches import Word, place
from .frames import BAD, BOOT, FREE, LARGE, LATER, LISTED, META, SLAB
from .memory import FRAME_MAP, PAGE, VMALLOC, number

MAX_SHEAVES = 10


class Fault(Exception):
    """Something that does not agree."""


def expect(good, text):
    """Something that must be so."""
    if not good:
        raise Fault(text)


class Walk:
    """One walk."""

    def __init__(self, heap):
        self.heap = heap
        # Where each object is that is in a sheaf, deferred or in quarantine; by address.
        self.places = {}
        places = ("free", "in_sheaves", "in_barns", "waiting", "deferred", "quarantined")
        self.counts = dict.fromkeys(places, 0)
        self.pages = dict.fromkeys(("free", "slabs", "large", "other", "bad", "boot"), 0)
        # By cache and node: slabs, objects, waiting, partial, full.
        self.found = {}
        self.slabs = self.objects = 0

    def note(self, address, where, cache):
        """Something that lies in a sheaf, or is one."""
        other = self.places.setdefault(address, where)
        name = f"cache {cache.name}: " if cache else ""
        expect(other is where, f"{name}the object {address:#x} is {other} and {where}")

    def of_cache(self, cache, address, where):
        """An object must be one of its cache."""
        slab, owner = self.heap.slab_at(address)
        good = owner is cache and cache.index_of(slab, address) is not None
        expect(good, f"cache {cache.name}: {address:#x} {where} is no object of the cache")

    def sheaves(self, cache):
        """All sheaves of a cache."""
        for sheaf in cache.sheaves():
            where = sheaf.place
            fits = 0 < sheaf.capacity == cache.sheaf_capacity and sheaf.len <= sheaf.capacity
            if "a full" in where:
                fits = fits and sheaf.len > 0
            if "an empty" in where:
                fits = fits and sheaf.len == 0
            if where.startswith("waiting"):
                # The last place has the cookie.
                fits = fits and 0 < sheaf.len < sheaf.capacity
            expect(
                fits,
                f"cache {cache.name}: {sheaf.len} of {sheaf.capacity} objects {where}; "
                f"the cache's sheaves have {cache.sheaf_capacity}",
            )
            head = self.heap.frames.head_of(self.heap.frames.of_address(sheaf.address))
            allocated = head is not None and head.state in (SLAB, LARGE)
            expect(
                allocated,
                f"the sheaf at {sheaf.address:#x}, with objects {where}, is not allocated",
            )
            self.note(sheaf.address, "in use as a sheaf", None)
            for address in sheaf.objects:
                self.of_cache(cache, address, where)
                self.note(address, where, cache)
            kind = "in_barns" if "barn" in where else "in_sheaves"
            waits = "rcu_free" in where or where.startswith("waiting")
            self.counts["waiting" if waits else kind] += sheaf.len

    def barns_and_lists(self, cache):
        """Counts of sheaves and barns, links of lists."""
        found = len(list(cache.sheaves()))
        expect(
            found == cache.kept,
            f"cache {cache.name}: CPUs and barns have {found} sheaves, counted {cache.kept}",
        )
        for node in cache.nodes():
            for which, counted in zip(("a full", "an empty"), node.counted):
                found = sum(which in sheaf.place for sheaf in node.sheaves)
                barn = f"cache {cache.name}: the barn of node {node.id} has {found}"
                kind = which.split()[1]
                expect(found == counted, f"{barn} {kind} sheaves, counted {counted}")
                expect(found <= MAX_SHEAVES, f"{barn} {kind} sheaves, and {MAX_SHEAVES} at most")
            for which, named in ((node.partial, "partial"), (node.full, "full (debug)")):
                before = 0
                for number, slab in enumerate(node.listed(which)):
                    good = slab.state == SLAB and slab.owner == cache.address
                    good = good and place(slab) == named and slab.node == node.id
                    expect(
                        good,
                        f"cache {cache.name}: frame {slab.pfn:#x} is in a list of node "
                        f"{node.id}, and does not belong there",
                    )
                    expect(
                        slab.links[0] == before,
                        f"cache {cache.name}: a list of node {node.id} has broken links "
                        f"behind {number} slabs",
                    )
                    before = self.heap.frames.size * slab.pfn + FRAME_MAP

    def deferred(self):
        """What waits to be freed."""
        found, other = dict.fromkeys(self.heap.caches, 0), 0
        for address, where in self.heap.deferred():
            slab, cache = self.heap.slab_at(address)
            if slab is None:
                other += 1
                continue
            expect(cache, f"{address:#x}, {where}, is no object of a cache")
            self.of_cache(cache, address, where)
            self.note(address, where, cache)
            found[cache] += 1
        for cache, count in found.items():
            expect(
                count == cache.deferred,
                f"cache {cache.name}: {count} frees are deferred, counted {cache.deferred}",
            )
            self.counts["deferred"] += count
        counted = number(self.heap.slabs["kvfree_rcu"]["deferred"])
        expect(other == counted, f"{other} frees are deferred, counted {counted}")

    def loose(self, lane):
        """What waits in pages and chains of a CPU: objects of each cache, and bytes."""
        cpu, pages, size = lane.cpu, 0, 0
        loose = dict.fromkeys(self.heap.caches, 0)
        for batch in lane.batches():
            if batch.page:
                pages += 1
                frame = self.heap.frames.of_address(batch.page)
                expect(
                    frame is not None and (frame.state, frame.order) == (META, 0),
                    f"the page at {batch.page:#x}, with pointers of cpu{cpu}, is not allocated",
                )
            for address in batch.items:
                slab, cache = self.heap.slab_at(address)
                if cache:
                    self.of_cache(cache, address, lane.place)
                    self.note(address, lane.place, cache)
                    loose[cache] += 1
                    size += cache.size
                    continue
                block = self.heap.frames.of_address(address)
                large = block is not None and block.state == LARGE
                good = slab is None and (large or address in VMALLOC)
                expect(good, f"{address:#x} {lane.place} is no memory that can be freed")
                size += PAGE << block.order if large else PAGE
        self.counts["waiting"] += sum(loose.values())
        expect(
            pages == lane.pages,
            f"the lane of cpu{cpu} has {pages} pages of pointers, counted {lane.pages}",
        )
        return loose, size

    def lane(self, lane):
        """What waits for a grace period on a CPU."""
        cpu, linked = lane.cpu, []
        loose, size = self.loose(lane)
        for cache, count in loose.items():
            part, rcu_free = cache.parts[cpu], dict(cache.cpus())[cpu][2]
            closed = sum(sheaf.len for sheaf in cache.waiting(cpu))
            name, size = f"cache {cache.name}:", size + closed * cache.size
            expect(
                count + closed == part.objects,
                f"{name} {count + closed} objects wait for a grace period on cpu{cpu}, "
                f"counted {part.objects}",
            )
            expect(
                count == part.loose,
                f"{name} {count} objects are in pages and chains of cpu{cpu}, counted {part.loose}",
            )
            is_open = rcu_free is not None
            has, known = ("an", "none") if is_open else ("no", "one")
            expect(
                is_open == (part.since != 0),
                f"{name} cpu{cpu} has {has} rcu_free sheaf, its lane knows of {known}",
            )
            has, what = ("has", "nothing") if part.is_linked else ("misses", "something")
            expect(
                part.is_linked == (is_open or closed > 0),
                f"{name} the lane of cpu{cpu} {has} the cache, of which {what} is there",
            )
            linked += [part.address] if part.is_linked else []
        expect(size == lane.bytes, f"{size} bytes wait on cpu{cpu}, counted {lane.bytes}")
        found = list(lane.parts())
        expect(
            sorted(found) == sorted(linked),
            f"the lane of cpu{cpu} has {len(found)} caches, {len(linked)} say to be there",
        )

    def quarantined(self):
        """What is in quarantine."""
        found = {}
        for address, cpu in self.heap.quarantined():
            where = f"quarantined on cpu{cpu}"
            _, cache = self.heap.slab_at(address)
            expect(cache, f"{address:#x}, {where}, is no object of a cache")
            self.of_cache(cache, address, where)
            self.note(address, where, cache)
            found[cache, cpu] = found.get((cache, cpu), 0) + 1
            self.counts["quarantined"] += 1
        for cache in self.heap.caches:
            for cpu, counted in cache.quarantined().items():
                count = found.get((cache, cpu), 0)
                expect(
                    count == counted,
                    f"cache {cache.name}: {count} objects are quarantined on cpu{cpu}, "
                    f"counted {counted}",
                )

    def slab(self, slab):
        """One slab."""
        cache = self.heap.by_address.get(slab.owner)
        expect(cache, f"slab {slab.pfn:#x} belongs to {slab.owner:#x}, which is no cache")
        words, name = Word(slab.word), f"cache {cache.name}: slab {slab.pfn:#x}"
        objects = {cache.min_order: cache.min_objects, cache.order: cache.objects}
        expect(
            objects.get(slab.order) == words.objects,
            f"{name} of order {slab.order} has {words.objects} objects",
        )
        try:
            free = list(cache.freelist(slab))
        except ValueError as after:
            raise Fault(f"{name}: the link behind {after} free objects is wrong") from None
        expect(len(free) == words.free, f"{name}: {len(free)} objects are free, counted {words.free}")
        for index in free:
            address = cache.first_object(slab) + index * cache.size
            other = self.places.get(address)
            expect(
                other is None,
                f"cache {cache.name}: the object {address:#x} is on its slab's freelist and {other}",
            )
        where, debug = place(slab), cache.has("DEBUG")
        fits = {
            "partial": words.free > 0,
            "full": words.free == 0 and not debug,
            "full (debug)": words.free == 0 and debug,
            "waiting for RCU": words.in_use == 0 and cache.has("TYPESAFE_BY_RCU"),
        }
        expect(fits[where], f"{name} is {where}, with {words.in_use} of {words.objects} in use")
        self.slabs, self.objects = self.slabs + 1, self.objects + words.objects
        self.counts["free"] += len(free)
        sums = self.found.setdefault((cache, slab.node), dict.fromkeys(fits, (0, 0)))
        count, total = sums[where]
        sums[where] = (count + 1, total + words.objects)

    def compare(self):
        """Counts of nodes, with the slabs that were found."""
        for cache in self.heap.caches:
            for node in cache.nodes():
                none = dict.fromkeys(("partial", "full", "full (debug)", "waiting for RCU"), (0, 0))
                sums = self.found.get((cache, node.id), none)
                waiting, _ = sums["waiting for RCU"]
                there = [sums[where] for where in none if where != "waiting for RCU"]
                for what, found, counted in (
                    ("slabs", sum(slabs for slabs, _ in there), node.slabs),
                    ("objects", sum(objects for _, objects in there), node.objects),
                    ("slabs that wait for RCU", waiting, node.waiting),
                    ("partial slabs", sums["partial"][0], len(list(node.listed(node.partial)))),
                    ("full slabs", sums["full (debug)"][0], len(list(node.listed(node.full)))),
                ):
                    expect(
                        found == counted,
                        f"cache {cache.name}: node {node.id}: {found} {what}, counted {counted}",
                    )

    def run(self):
        """All of it; the lines that say what there is."""
        for cache in self.heap.caches:
            self.sheaves(cache)
            self.barns_and_lists(cache)
        self.deferred()
        for lane in self.heap.lanes():
            self.lane(lane)
        self.quarantined()
        for head in self.heap.frames.blocks():
            size = 1 if head.state == BOOT else 1 << head.order
            kinds = {FREE: "free", LISTED: "free", LATER: "free", BAD: "bad", BOOT: "boot"}
            kinds.update({SLAB: "slabs", LARGE: "large"})
            self.pages[kinds.get(head.state, "other")] += size
            if head.state == SLAB:
                self.slab(head)
        self.compare()
        counts, pages = self.counts, self.pages
        yield (
            f"{self.objects} objects in {self.slabs} slabs of {len(self.heap.caches)} caches: "
            f"{self.objects - sum(counts.values())} allocated, {counts['free']} on freelists, "
            f"{counts['in_sheaves']} in sheaves, {counts['in_barns']} in barns, "
            f"{counts['waiting']} waiting, {counts['deferred']} deferred, "
            f"{counts['quarantined']} quarantined"
        )
        yield (
            f"{sum(pages.values())} pages: {pages['free']} free, {pages['slabs']} slabs, "
            f"{pages['large']} large kmalloc, {pages['other']} other, {pages['bad']} bad, "
            f"{pages['boot']} boot"
        )
