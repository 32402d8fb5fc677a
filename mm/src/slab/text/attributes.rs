//! `/sys/kernel/slab/<cache>/*`.
//!
//! Names and formats are Linux's. A number for each node follows the sum where there are
//! several (`960 N0=300 N1=660`), likewise one for each CPU (`807 C0=185 C2=622`); those that
//! are 0 are left out.

use core::{
    fmt::{self, Write},
    sync::atomic::Ordering::Relaxed,
};

use arrayvec::ArrayVec;
use platform::{MAX_CPUS, MAX_NODES};

use crate::slab::{
    Caches, Flags, KmemCache, Machine,
    layout::ObjectLayout,
    stats::{Contention, Stat},
    text::Usage,
};

/// Why a value was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The attribute is only read.
    ReadOnly,
    /// It takes this, and nothing else.
    NotA(&'static str),
    /// The cache does not do that, for this reason.
    NotHere(&'static str),
}

/// What an attribute shows, and what is done with a value that is written.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Aliases,
    Align,
    Constructor,
    /// Whether the cache has a flag.
    Flag(Flags),
    /// There is no such thing here, and none in Linux any more: always 0.
    Nothing(&'static str),
    Contention,
    Deferred,
    MinPartial,
    ObjectSize,
    /// For each CPU: what waits for a grace period, times this of the cache.
    OfLanes(fn(&ObjectLayout) -> u64),
    /// For each node.
    OfNodes(fn(&Usage) -> u64),
    ObjectsPerSlab,
    Order,
    /// For each CPU.
    Quarantined,
    DefragRatio,
    SheafCapacity,
    Shrink,
    Size,
    /// A counter, which 0 resets.
    Counter(Stat),
    UserSize,
    Validate,
}

/// A file in a cache's folder.
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    /// Its name.
    pub name: &'static str,
    kind: Kind,
}

const fn of(name: &'static str, kind: Kind) -> Attribute {
    Attribute { name, kind }
}

/// The attributes of each cache, by name.
static ATTRIBUTES: &[Attribute] = &[
    of("aliases", Kind::Aliases),
    of("align", Kind::Align),
    of("alloc_fastpath", Kind::Counter(Stat::AllocFastpath)),
    of("alloc_lock_taken", Kind::Counter(Stat::AllocLockTaken)),
    of(
        "alloc_node_mismatch",
        Kind::Counter(Stat::AllocNodeMismatch),
    ),
    of("alloc_slab", Kind::Counter(Stat::AllocSlab)),
    of("alloc_slowpath", Kind::Counter(Stat::AllocSlowpath)),
    of("barn_get", Kind::Counter(Stat::BarnGet)),
    of("barn_get_fail", Kind::Counter(Stat::BarnGetFail)),
    of("barn_put", Kind::Counter(Stat::BarnPut)),
    of("barn_put_fail", Kind::Counter(Stat::BarnPutFail)),
    of(
        "cmpxchg_double_fail",
        Kind::Counter(Stat::CmpxchgDoubleFail),
    ),
    of("contention", Kind::Contention),
    of("cpu_partial", Kind::Nothing("0")),
    of("cpu_slabs", Kind::Nothing("0")),
    of("ctor", Kind::Constructor),
    of("deferred", Kind::Deferred),
    of("destroy_by_rcu", Kind::Flag(Flags::TYPESAFE_BY_RCU)),
    of("free_add_partial", Kind::Counter(Stat::FreeAddPartial)),
    of("free_deferred", Kind::Counter(Stat::FreeDeferred)),
    of("free_fastpath", Kind::Counter(Stat::FreeFastpath)),
    of("free_lock_taken", Kind::Counter(Stat::FreeLockTaken)),
    of("free_rcu_sheaf", Kind::Counter(Stat::FreeRcuSheaf)),
    of("free_rcu_sheaf_fail", Kind::Counter(Stat::FreeRcuSheafFail)),
    of("free_remote", Kind::Counter(Stat::FreeRemote)),
    of(
        "free_remove_partial",
        Kind::Counter(Stat::FreeRemovePartial),
    ),
    of("free_slab", Kind::Counter(Stat::FreeSlab)),
    of("free_slowpath", Kind::Counter(Stat::FreeSlowpath)),
    of("hwcache_align", Kind::Flag(Flags::HWCACHE_ALIGN)),
    of("min_partial", Kind::MinPartial),
    of("object_size", Kind::ObjectSize),
    of("objects", Kind::OfNodes(Usage::active)),
    of(
        "objects_partial",
        Kind::OfNodes(|usage| usage.partial_objects - usage.free),
    ),
    of("objs_per_slab", Kind::ObjectsPerSlab),
    of("order", Kind::Order),
    of("order_fallback", Kind::Counter(Stat::OrderFallback)),
    of("partial", Kind::OfNodes(|usage| usage.partial)),
    of("poison", Kind::Flag(Flags::POISON)),
    of("quarantined", Kind::Quarantined),
    of("rcu_waiting", Kind::OfLanes(|_| 1)),
    of(
        "rcu_waiting_bytes",
        Kind::OfLanes(|layout| layout.size.into()),
    ),
    of("reclaim_account", Kind::Flag(Flags::RECLAIM_ACCOUNT)),
    of("red_zone", Kind::Flag(Flags::RED_ZONE)),
    of("remote_node_defrag_ratio", Kind::DefragRatio),
    of("sanity_checks", Kind::Flag(Flags::CONSISTENCY_CHECKS)),
    of("sheaf_alloc", Kind::Counter(Stat::SheafAlloc)),
    of("sheaf_capacity", Kind::SheafCapacity),
    of("sheaf_flush", Kind::Counter(Stat::SheafFlush)),
    of("sheaf_free", Kind::Counter(Stat::SheafFree)),
    of("sheaf_prefill_fast", Kind::Counter(Stat::SheafPrefillFast)),
    of(
        "sheaf_prefill_oversize",
        Kind::Counter(Stat::SheafPrefillOversize),
    ),
    of("sheaf_prefill_slow", Kind::Counter(Stat::SheafPrefillSlow)),
    of("sheaf_refill", Kind::Counter(Stat::SheafRefill)),
    of("sheaf_return_fast", Kind::Counter(Stat::SheafReturnFast)),
    of("sheaf_return_slow", Kind::Counter(Stat::SheafReturnSlow)),
    of("shrink", Kind::Shrink),
    of("slab_size", Kind::Size),
    of("slabs", Kind::OfNodes(|usage| usage.slabs)),
    of("slabs_cpu_partial", Kind::Nothing("0(0)")),
    of("store_user", Kind::Flag(Flags::STORE_USER)),
    of("total_objects", Kind::OfNodes(|usage| usage.objects)),
    of("trace", Kind::Nothing("0")),
    of("usersize", Kind::UserSize),
    of("validate", Kind::Validate),
    of("waiting", Kind::OfNodes(|usage| usage.waiting)),
];

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadOnly => f.write_str("cannot be written"),
            Self::NotA(what) => write!(f, "the value is not {what}"),
            Self::NotHere(why) => f.write_str(why),
        }
    }
}

impl core::error::Error for StoreError {}

impl Attribute {
    /// The attributes of every cache, by name. Counters are there in builds that count
    /// (feature `slab_stats`).
    pub fn all() -> impl Iterator<Item = &'static Self> {
        let counts = cfg!(feature = "slab_stats");
        let is_there = move |of: &&Self| counts || !matches!(of.kind, Kind::Counter(_));
        ATTRIBUTES.iter().filter(is_there)
    }

    /// The attribute of a name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::all().find(|attribute| attribute.name == name)
    }

    /// Whether it takes values.
    pub fn is_writable(&self) -> bool {
        match self.kind {
            Kind::Counter(_)
            | Kind::MinPartial
            | Kind::DefragRatio
            | Kind::Shrink
            | Kind::Validate => true,
            // As in Linux, where it takes 0 only.
            Kind::Nothing(_) => self.name == "cpu_partial",
            _ => false,
        }
    }

    /// Writes a cache's value. Not in NMI.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn show<M: Machine>(
        &self,
        caches: &Caches<'_, M>,
        cache: &KmemCache<M>,
        out: &mut dyn Write,
    ) -> fmt::Result {
        let layout = cache.layout();
        let number: u64 = match self.kind {
            Kind::Aliases => caches.aliases(cache).count() as u64,
            Kind::Align => layout.align.into(),
            Kind::Flag(flag) => cache.flags().contains(flag).into(),
            Kind::Deferred => cache.deferred.load(Relaxed),
            Kind::MinPartial => cache.min_partial.load(Relaxed).into(),
            Kind::ObjectSize => layout.object_size.into(),
            Kind::ObjectsPerSlab => layout.objects.into(),
            Kind::Order => layout.order.into(),
            Kind::DefragRatio => cache.remote_node_defrag_ratio.load(Relaxed).into(),
            Kind::SheafCapacity => cache.sheaf_capacity.load(Relaxed).into(),
            Kind::Size => layout.size.into(),
            Kind::UserSize => cache.usercopy.1.into(),
            Kind::Shrink | Kind::Validate => return Ok(()),
            Kind::Nothing(text) => return writeln!(out, "{text}"),
            Kind::Constructor => return show_constructor(cache, out),
            Kind::Contention => return show_contention(cache, out),
            Kind::OfLanes(each) => {
                let parts: ArrayVec<_, MAX_CPUS> = cache
                    .parts()
                    .map(|(cpu, part)| (cpu.number(), part.objects() * each(layout)))
                    .collect();
                return show_parts(out, 'C', &parts);
            }
            Kind::OfNodes(part) => {
                let parts: ArrayVec<_, MAX_NODES> = cache
                    .usage_by_node()
                    .map(|(node, usage)| (node.number(), part(&usage)))
                    .collect();
                return show_parts(out, 'N', &parts);
            }
            Kind::Quarantined => {
                let parts: ArrayVec<_, MAX_CPUS> = M::possible_cpus()
                    .iter()
                    .map(|cpu| (cpu.number(), cache.quarantined_on(cpu)))
                    .collect();
                return show_parts(out, 'C', &parts);
            }
            Kind::Counter(stat) => {
                let parts: ArrayVec<_, MAX_CPUS> = M::possible_cpus()
                    .iter()
                    .map(|cpu| (cpu.number(), cache.stat_on(stat, cpu)))
                    .collect();
                return show_parts(out, 'C', &parts);
            }
        };
        writeln!(out, "{number}")
    }

    /// Takes a value for a cache, which the caller keeps. Nothing changes on an error. May
    /// sleep; correct while others allocate and free.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn store<M: Machine>(&self, cache: &KmemCache<M>, value: &str) -> Result<(), StoreError> {
        let value = value.trim();
        let number = || value.parse::<u32>().ok();
        match self.kind {
            Kind::MinPartial => {
                let least = number().ok_or(StoreError::NotA("a number of slabs"))?;
                cache.min_partial.store(least, Relaxed);
            }
            Kind::DefragRatio => {
                let ratio = number().filter(|ratio| *ratio <= 100);
                let ratio = ratio.ok_or(StoreError::NotA("a number from 0 to 100"))?;
                cache.remote_node_defrag_ratio.store(ratio, Relaxed);
            }
            Kind::Shrink if value == "1" => _ = cache.shrink(),
            Kind::Validate if value == "1" => return validate(cache),
            Kind::Shrink | Kind::Validate => return Err(StoreError::NotA("1")),
            Kind::Counter(stat) if value == "0" => cache.reset_stat(stat),
            Kind::Nothing(_) if self.is_writable() && value == "0" => {}
            Kind::Counter(_) => return Err(StoreError::NotA("0")),
            Kind::Nothing(_) if self.is_writable() => return Err(StoreError::NotA("0")),
            _ => return Err(StoreError::ReadOnly),
        }
        Ok(())
    }
}

fn validate<M: Machine>(cache: &KmemCache<M>) -> Result<(), StoreError> {
    match cache.validate() {
        0 => Ok(()),
        _ => Err(StoreError::NotHere("faults were found and reported")),
    }
}

/// A sum, and what it is made of.
fn show_parts(out: &mut dyn Write, letter: char, parts: &[(u32, u64)]) -> fmt::Result {
    let sum = parts.iter().map(|(_, part)| part);
    write!(out, "{}", sum.copied().fold(0, u64::wrapping_add))?;
    for (number, part) in parts.iter().filter(|(_, part)| *part != 0) {
        write!(out, " {letter}{number}={part}")?;
    }
    writeln!(out)
}

/// The constructor's address, which is all that is known of it here; nothing without one.
fn show_constructor<M: Machine>(cache: &KmemCache<M>, out: &mut dyn Write) -> fmt::Result {
    match cache.constructor {
        Some(constructor) => writeln!(out, "{:#x}", constructor as usize),
        None => Ok(()),
    }
}

/// A line for each lock: how often it was taken, and had to be waited for.
fn show_contention<M: Machine>(cache: &KmemCache<M>, out: &mut dyn Write) -> fmt::Result {
    writeln!(out, "node lock      taken  contended")?;
    for node in cache.all_nodes() {
        for (name, counts) in [("list", &node.contention), ("barn", &node.barn.contention)] {
            let Contention { taken, contended } = counts;
            let (taken, contended) = (taken.load(Relaxed), contended.load(Relaxed));
            writeln!(out, "{:>4} {name} {taken:>10} {contended:>10}", node.id)?;
        }
    }
    Ok(())
}
