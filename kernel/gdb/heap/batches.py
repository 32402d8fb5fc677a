"""What waits for grace periods, as `batches` in the shell (`mm/src/kvfree_rcu/text.rs`)."""

from .memory import PAGE, at, number, read, where, word

# `kvfree_rcu/lane.rs`, `kvfree_rcu/loose.rs`.
STAGES = ("idle", "awake", "dozing", "called")
KINDS = ("kmalloc", "vmalloc")
UNNAMED = 1
HALF = 0xFFFF_FFFF
MANY = 1 << 20


class Engine:
    """How far RCU is."""

    def __init__(self, address):
        rcu = at("rcu::engine::Rcu<K>", address)
        self.first = number(rcu["tree"]["first"])
        self.now = [number(rcu["tree"]["seq"]), number(rcu["expedited"]["seq"])]

    def numbers(self, halves):
        """Grace periods up to numbers of which these are the lower halves."""
        return [((half - self.first) & HALF) >> 2 for half in halves]

    def is_over(self, halves):
        """Whether either number has been reached."""
        ahead = [(now - half) & HALF for now, half in zip(self.now, halves)]
        return any(distance <= HALF >> 1 for distance in ahead)


def engine(heap):
    """The engine; None: there is none yet."""
    address = number(heap.slabs["rcu"])
    return Engine(address) if address else None


def awaited(heap, cookie):
    """What a batch of this cookie waits for, in words; None: it is open."""
    if cookie is None:
        return "open"
    rcu = engine(heap)
    if cookie == UNNAMED or rcu is None:
        return "closed before there was RCU"
    halves = [cookie & HALF, cookie >> 32]
    normal, expedited = rcu.numbers(halves)
    over = "over" if rcu.is_over(halves) else "not over"
    return f"normal {normal}, expedited {expedited}; {over}"


class Batch:
    """A page of pointers or a chain of heads, its cookie (None: it is open), and what is in it."""

    def __init__(self, cookie, items, page=None, kind=None):
        self.cookie, self.page, self.kind = cookie, page, kind
        # The lowest bit says whether the cache is held.
        self.items = [item & ~1 for item in items]


def pointers(heap, address, is_open):
    """The batch of a page of pointers, and the page behind it. Of no kind: there is no memory."""
    if address % PAGE or not heap.frames.is_memory(address):
        return Batch(None, [], address), 0
    page = at("mm::kvfree_rcu::loose::Page", address)
    data = read(address, PAGE)
    begin = where(page["items"]) - address
    length = min(number(page["len"]), (PAGE - begin) // 8)
    items = [int.from_bytes(data[i : i + 8], "little") for i in range(begin, begin + 8 * length, 8)]
    cookie, kind = number(page["cookie"]), number(page["kind"])
    kind = KINDS[kind] if kind < len(KINDS) else "nothing that is known"
    return Batch(None if is_open else cookie, items, address, kind), number(page["next"])


def heads(heap, first):
    """What the heads of a chain name, as far as links are sound."""
    count = 0
    while first and first % 8 == 0 and count < MANY and heap.frames.is_memory(first):
        yield word(first + 8)
        first, count = word(first), count + 1


class Lane:
    """A CPU's lane."""

    def __init__(self, heap, cpu):
        lane = heap.slabs["kvfree_rcu"]["lanes"][cpu]
        state = at("mm::kvfree_rcu::lane::State<K>", where(lane["state"]["value"]))
        self.heap, self.cpu = heap, cpu
        self.stage, self.bytes = STAGES[number(state["stage"])], number(state["bytes"])
        counts = lane["hands"]["counts"]
        self.taken = sum(number(counts[phase]) >> 1 for phase in range(2))
        self.first, self.loose = number(state["first"]), state["loose"]
        self.pages = number(self.loose["pages"])

    def batches(self):
        """Pages and chains: those that are open, then those that are closed."""
        opened = self.loose["open"]
        for kind in range(len(KINDS)):
            page = number(opened[kind])
            if page:
                yield pointers(self.heap, page, True)[0]
        next, count = number(self.loose["first"]), 0
        while next and count < MANY:
            batch, next = pointers(self.heap, next, False)
            yield batch
            count += 1
        for name in ("open_chain", "closed_chain"):
            chain = self.loose[name]
            items = list(heads(self.heap, number(chain["first"])))
            if items:
                yield Batch(None if name == "open_chain" else number(chain["cookie"]), items)

    def parts(self):
        """The addresses of the parts that the lane has in its list."""
        next, count = self.first, 0
        while next and count < MANY:
            yield next
            part = at("mm::kvfree_rcu::part::Part<K>", next)
            next = number(Part(part).inner["next"])
            count += 1

    @property
    def place(self):
        """Where what waits on it is, in words."""
        return f"waiting for a grace period on cpu{self.cpu}"


class Part:
    """What a cache has on a lane."""

    def __init__(self, part):
        self.address = where(part)
        self.objects, self.since = number(part["objects"]), number(part["open_since"])
        self.is_linked = bool(number(part["linked"]))
        self.inner = at("mm::kvfree_rcu::part::Inner<K>", where(part["inner"]))
        self.loose = number(self.inner["loose"])
        self.first = number(self.inner["sheaves"]["first"])


def sheaves(heap, cache, cpu):
    """A line for each cookie of a cache's sheaves that wait on a CPU, and for the open one."""
    same = []
    for sheaf in cache.waiting(cpu):
        if same and same[-1][0] == sheaf.cookie:
            _, objects, count = same.pop()
            same.append((sheaf.cookie, objects + sheaf.len, count + 1))
        else:
            same.append((sheaf.cookie, sheaf.len, 1))
    opened = dict(cache.cpus())[cpu][2]
    if opened:
        same.append((None, opened.len, 1))
    for cookie, objects, count in same:
        of = "sheaf" if count == 1 else "sheaves"
        yield f"  {cache.name}: {objects} objects in {count} {of} ({awaited(heap, cookie)})"


def text(heap):
    """Every lane, with what is on it."""
    rcu = engine(heap)
    if rcu:
        normal, expedited = rcu.numbers(now & HALF for now in rcu.now)
        yield f"grace periods that are over: normal {normal}, expedited {expedited}"
    else:
        yield "grace periods: there is no RCU yet"
    for lane in heap.lanes():
        yield (
            f"cpu{lane.cpu}: {lane.stage}, {lane.bytes} bytes wait, {lane.taken} objects taken"
        )
        for cache in heap.caches:
            yield from sheaves(heap, cache, lane.cpu)
        for batch in lane.batches():
            count, waits = len(batch.items), awaited(heap, batch.cookie)
            if batch.page and batch.kind is None:
                yield f"  page: {batch.page:#x} is no memory"
            elif batch.page:
                yield f"  page: {count} pointers to {batch.kind} ({waits})"
            else:
                yield f"  chain: {count} heads ({waits})"
