//! How long it took to destroy caches, what was waited for, and who asked for it.
//!
//! Each destroy fills a [`DestroyRecord`] as it goes, in memory of its own, and at its end adds it to what is kept here, under one
//! lock, which is taken once: the last records, sums, a histogram, and sums by the stack of who called. Nothing is allocated. An
//! alias that goes is no destroy.

use platform::{lock::IrqSpinLock, lock_class};

use super::{KmemCache, Machine, Slabs, name::Name};
use crate::kvfree_rcu::InFlight;

lock_class! {
    /// What is known of caches that were destroyed.
    pub struct RecordsLock = ("slab destroy records", 84);
}

/// Return addresses of a caller that are kept.
pub const DEPTH: usize = 6;
/// Records that are kept.
pub const RECORDS: usize = 32;
/// Callers of whom there are sums.
pub const STACKS: usize = 16;
/// Buckets of the histogram; the last one has all that is longer.
pub const BUCKETS: usize = 40;

/// Frames of our own that a backtrace begins with. (Hosted machines show only what a test put there.)
const OWN: usize = if cfg!(feature = "hosted") { 0 } else { 3 };

/// A cache that was destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestroyRecord {
    /// Its name.
    pub name: Name,
    /// Its number.
    pub id: u64,
    /// When that was asked for, in nanoseconds.
    pub at_ns: u64,
    /// Nanoseconds until it was gone, or a zombie.
    pub took_ns: u64,
    /// Nanoseconds that the caller was kept. The same, unless it lingered.
    pub call_ns: u64,
    /// What was done because something was in flight. Who makes others' grace period or call with his own has it in
    /// his record, and they not in theirs.
    pub did: InFlight,
    /// Slabs that went back to the page allocator.
    pub slabs: u64,
    /// Objects in use.
    pub leaked: u64,
    /// It was done in the background.
    pub lingering: bool,
    /// Who asked for it: return addresses, the innermost first, then zeros.
    pub stack: [usize; DEPTH],
}

impl DestroyRecord {
    /// Who asked for it.
    pub fn callers(&self) -> &[usize] {
        callers(&self.stack)
    }
}

fn callers(stack: &[usize; DEPTH]) -> &[usize] {
    let depth = stack.iter().position(|address| *address == 0);
    &stack[..depth.unwrap_or(DEPTH)]
}

/// Times of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// Their sum, in nanoseconds.
    pub total_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl Times {
    fn add(&mut self, ns: u64) {
        self.count += 1;
        self.total_ns = self.total_ns.saturating_add(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// The average; 0: of none.
    pub fn average_ns(&self) -> u64 {
        self.total_ns.checked_div(self.count).unwrap_or(0)
    }
}

/// How many took how long: bucket `n` has those of at least 2^(n-1) nanoseconds and less than 2^n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram(pub [u64; BUCKETS]);

impl Histogram {
    fn add(&mut self, ns: u64) {
        self.0[Self::bucket(ns)] += 1;
    }

    /// The bucket of a time.
    pub const fn bucket(ns: u64) -> usize {
        let bucket = u64::BITS - ns.leading_zeros();
        if bucket as usize >= BUCKETS {
            BUCKETS - 1
        } else {
            bucket as usize
        }
    }
}

/// All that were destroyed since the last reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestroyTimes {
    /// Those that were waited for.
    pub direct: Times,
    /// How long each of them took.
    pub histogram: Histogram,
    /// Those that lingered: from the call until it was gone.
    pub lingering: Times,
    /// How long each of them took.
    pub lingering_histogram: Histogram,
    /// How long callers were kept that have no place among the [stacks](Slabs::destroy_stack).
    pub others: Times,
}

impl DestroyTimes {
    const NONE: Self = {
        let (times, histogram) = (
            Times {
                count: 0,
                total_ns: 0,
                max_ns: 0,
            },
            Histogram([0; BUCKETS]),
        );
        Self {
            direct: times,
            histogram,
            lingering: times,
            lingering_histogram: histogram,
            others: times,
        }
    };
}

/// What one caller's destroys took of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct StackTimes {
    stack: [usize; DEPTH],
    /// How long it was kept.
    pub times: Times,
}

impl StackTimes {
    /// The caller: return addresses, the innermost first.
    pub fn callers(&self) -> &[usize] {
        callers(&self.stack)
    }
}

/// What the lock protects.
struct State {
    records: [Option<DestroyRecord>; RECORDS],
    /// How many came: the next one's place, round and round.
    next: usize,
    times: DestroyTimes,
    stacks: [StackTimes; STACKS],
}

impl State {
    fn add(&mut self, record: &DestroyRecord) {
        self.records[self.next % RECORDS] = Some(*record);
        self.next = (self.next + 1) % (2 * RECORDS);
        let all = &mut self.times;
        let (times, histogram) = if record.lingering {
            (&mut all.lingering, &mut all.lingering_histogram)
        } else {
            (&mut all.direct, &mut all.histogram)
        };
        times.add(record.took_ns);
        histogram.add(record.took_ns);
        let mut stacks = self.stacks.iter_mut();
        let own = stacks.find(|of| of.times.count == 0 || of.stack == record.stack);
        match own {
            Some(own) => {
                own.stack = record.stack;
                own.times.add(record.call_ns);
            }
            None => all.others.add(record.call_ns),
        }
    }
}

/// All that is kept.
pub(crate) struct Records<M: Machine>(IrqSpinLock<State, M, RecordsLock>);

impl<M: Machine> Records<M> {
    /// Nothing was destroyed.
    pub fn new() -> Self {
        Self(IrqSpinLock::new(State {
            records: [const { None }; RECORDS],
            next: 0,
            times: DestroyTimes::NONE,
            stacks: [StackTimes::default(); STACKS],
        }))
    }

    pub fn add(&self, record: &DestroyRecord) {
        self.0.lock().add(record);
    }
}

/// A destroy that is under way; its destroyer's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ending {
    pub at_ns: u64,
    /// Of one that lingers: how long its caller was kept.
    pub lingers_ns: Option<u64>,
    pub did: InFlight,
    /// Slabs that there were.
    slabs: u64,
    stack: [usize; DEPTH],
}

impl Ending {
    /// The destroy of a cache, which was asked for at that time by who calls this.
    #[inline(never)]
    pub fn begin<M: Machine>(cache: &KmemCache<M>, at_ns: u64) -> Self {
        let mut found = [0; DEPTH + OWN];
        let depth = M::backtrace(&mut found).min(found.len());
        let mut stack = [0; DEPTH];
        let callers = found.get(OWN..depth).unwrap_or_default();
        stack[..callers.len()].copy_from_slice(callers);
        Self {
            at_ns,
            slabs: cache.all_slabs(),
            stack,
            ..Self::default()
        }
    }

    /// What there is to be said at its end, but for how long it took.
    pub fn record<M: Machine>(&self, cache: &KmemCache<M>, leaked: u64) -> DestroyRecord {
        DestroyRecord {
            name: cache.name,
            id: cache.id,
            at_ns: self.at_ns,
            took_ns: 0,
            call_ns: 0,
            did: self.did,
            slabs: self.slabs.saturating_sub(cache.all_slabs()),
            leaked,
            lingering: self.lingers_ns.is_some(),
            stack: self.stack,
        }
    }
}

impl<M: Machine> KmemCache<M> {
    /// Slabs of all nodes, and those that wait for a grace period.
    fn all_slabs(&self) -> u64 {
        let of_node = |node: super::node::NodeCounts| node.slabs + node.waiting;
        self.all_nodes().map(|node| of_node(node.counts())).sum()
    }
}

impl<M: Machine> Slabs<M> {
    /// The end of a destroy, of which only the times are missing.
    pub(super) fn note_destroy(&self, mut record: DestroyRecord, ending: &Ending) {
        record.took_ns = M::now_ns().saturating_sub(ending.at_ns);
        record.call_ns = ending.lingers_ns.unwrap_or(record.took_ns);
        self.records.add(&record);
    }

    /// The cache that was destroyed last, since the last reset: also one that lingered. Any context but NMI.
    pub fn last_destroy(&self) -> Option<DestroyRecord> {
        self.destroy_record(0)
    }

    /// The record of a cache that was destroyed `before` others. `None`: it is not kept. Any context but NMI.
    pub fn destroy_record(&self, before: usize) -> Option<DestroyRecord> {
        let state = self.records.0.lock();
        let back = before.checked_add(1).filter(|back| *back <= RECORDS)?;
        state.records[(state.next + 2 * RECORDS - back) % RECORDS]
    }

    /// Sums and histograms. Any context but NMI.
    pub fn destroy_times(&self) -> DestroyTimes {
        self.records.0.lock().times
    }

    /// The sums of a caller, by its number: callers are numbered as they come. `None`: there is none. Any context but NMI.
    pub fn destroy_stack(&self, number: usize) -> Option<StackTimes> {
        let stack = *self.records.0.lock().stacks.get(number)?;
        (stack.times.count > 0).then_some(stack)
    }

    /// Forgets all of it. Any context but NMI.
    pub fn reset_destroys(&self) {
        let mut state = self.records.0.lock();
        state.records.fill(None);
        state.times = DestroyTimes::NONE;
        state.stacks.fill(StackTimes::default());
    }
}
