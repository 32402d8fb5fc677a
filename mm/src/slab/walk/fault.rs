//! What a walk finds, in words.

use core::fmt;

use platform::{CpuId, NodeId};

use crate::{
    audit,
    frame::Pfn,
    slab::{Place, name::Name, word::Freelist},
};

/// Where an object is that is not allocated; or where a sheaf is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// On its slab's freelist.
    Freelist,
    /// In a CPU's main sheaf.
    Main(CpuId),
    /// In a CPU's spare sheaf.
    Spare(CpuId),
    /// In the sheaf in which a CPU gathers what waits for a grace period.
    RcuFree(CpuId),
    /// On a CPU's lane, closed: it waits for its grace period.
    Waiting(CpuId),
    /// In a full sheaf of a node's barn.
    BarnFull(NodeId),
    /// In an empty one (nothing may be).
    BarnEmpty(NodeId),
    /// Freed on a CPU where no lock could be waited for, and not taken in yet.
    Deferred(CpuId),
    /// It is the memory of a sheaf, so it is allocated.
    IsSheaf,
    /// Freed, and in a CPU's quarantine.
    Quarantined(CpuId),
}

impl At {
    /// As a number, for tables.
    pub(super) const fn to_bits(self) -> u16 {
        let (kind, number) = match self {
            Self::Freelist => (0, 0),
            Self::Main(cpu) => (1, cpu.number()),
            Self::Spare(cpu) => (2, cpu.number()),
            Self::RcuFree(cpu) => (3, cpu.number()),
            Self::BarnFull(node) => (4, node.number()),
            Self::BarnEmpty(node) => (5, node.number()),
            Self::Deferred(cpu) => (6, cpu.number()),
            Self::IsSheaf => (7, 0),
            Self::Waiting(cpu) => (8, cpu.number()),
            Self::Quarantined(cpu) => (9, cpu.number()),
        };
        kind << 8 | number as u16
    }

    /// From [`to_bits`](Self::to_bits).
    pub(super) fn from_bits(bits: u16) -> Self {
        let number = bits & 0xff;
        let cpu = CpuId::new(u32::from(number)).unwrap_or(CpuId::BOOT);
        let node = NodeId::from_index(usize::from(number)).unwrap_or(NodeId::FIRST);
        match bits >> 8 {
            0 => Self::Freelist,
            1 => Self::Main(cpu),
            2 => Self::Spare(cpu),
            3 => Self::RcuFree(cpu),
            4 => Self::BarnFull(node),
            5 => Self::BarnEmpty(node),
            6 => Self::Deferred(cpu),
            8 => Self::Waiting(cpu),
            9 => Self::Quarantined(cpu),
            _ => Self::IsSheaf,
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Freelist => f.write_str("on its slab's freelist"),
            Self::Deferred(cpu) => write!(f, "deferred on cpu{cpu}"),
            Self::Quarantined(cpu) => write!(f, "quarantined on cpu{cpu}"),
            Self::IsSheaf => f.write_str("in use as a sheaf"),
            Self::Main(cpu) => write!(f, "in the main sheaf of cpu{cpu}"),
            Self::Spare(cpu) => write!(f, "in the spare sheaf of cpu{cpu}"),
            Self::Waiting(cpu) => write!(f, "waiting for a grace period on cpu{cpu}"),
            Self::RcuFree(cpu) => write!(f, "in the rcu_free sheaf of cpu{cpu}"),
            Self::BarnFull(node) => write!(f, "in the barn of node {node}, in a full sheaf"),
            Self::BarnEmpty(node) => write!(f, "in the barn of node {node}, in an empty sheaf"),
        }
    }
}

/// What does not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A CPU has the lock of its sheaves: it is in the middle of something.
    SheavesHeld(CpuId),
    /// A CPU has the lock of its page lists.
    PagesHeld(CpuId),
    /// The lock of a CPU's quarantine is held.
    QuarantineHeld(CpuId),
    /// The lock of a node's barn is held.
    BarnHeld(NodeId),
    /// The lock of a node's lists is held.
    ListHeld(NodeId),
    /// The page allocator's own accounts.
    Pages(audit::Fault),
    /// A sheaf is not where memory is, or its memory is free.
    SheafMemory(At, usize),
    /// A sheaf's length and capacity, where it is, and the capacity of the cache's sheaves.
    Sheaf(At, u32, u32, u32),
    /// Sheaves of CPUs and barns: found, counted. One too few got lost.
    Sheaves(u64, u64),
    /// A barn's full or empty sheaves: found, counted.
    BarnCount(NodeId, &'static str, usize, usize),
    /// A barn has so many full or empty sheaves, and may have at most this many.
    BarnLimit(NodeId, &'static str, usize, usize),
    /// What is in a sheaf is no object of the cache.
    Stranger(At, usize),
    /// An object is in two places.
    Twice {
        /// Its address.
        object: usize,
        /// One of them.
        first: At,
        /// The other.
        second: At,
    },
    /// Objects that wait to be freed: found, counted.
    Deferred(u64, u64),
    /// Objects that wait for a grace period on a CPU's lane: found, counted.
    Waiting(CpuId, u64, u64),
    /// Of these, in pages and chains: found, counted.
    Loose(CpuId, u64, u64),
    /// A CPU has an rcu_free sheaf, or none, and its lane takes the opposite to be so.
    Open(CpuId, bool),
    /// A CPU's lane has the cache in its list, or not, and the opposite is needed.
    Linked(CpuId, bool),
    /// Caches in the list of a CPU's lane: found, and those that say to be there.
    Parts(CpuId, u64, u64),
    /// The pages of pointers of a CPU's lane: found, counted.
    Pointers(CpuId, u64, u64),
    /// A page of pointers of a CPU's lane is not allocated for that.
    PointerPage(CpuId, usize),
    /// Bytes on a CPU's lane: found, counted.
    LaneBytes(CpuId, u64, u64),
    /// What is there is no memory that could be freed.
    Unfreeable(At, usize),
    /// The lock of a CPU's lane is held.
    LaneHeld(CpuId),
    /// Objects in a CPU's quarantine: found, counted.
    Quarantined(CpuId, u64, u64),
    /// A slab belongs to nothing that is a cache.
    Owner(Pfn, usize),
    /// A slab's order, and the objects that its word has.
    Order(Pfn, usize, usize),
    /// The link that follows so many free objects of a slab names no object, or one that was
    /// there before.
    Link(Pfn, usize),
    /// Objects on a slab's freelist, and how many its word has free.
    Free(Pfn, usize, usize),
    /// A slab is not where its word says.
    Place(Pfn, Place, Freelist),
    /// A frame in a list of slabs is not one that belongs there.
    Listed(NodeId, Pfn),
    /// A list's links are broken behind so many slabs.
    ListLinks(NodeId, usize),
    /// A node's list of this name: slabs found by their descriptors, and on the list.
    ListLen(NodeId, &'static str, u64, u64),
    /// A node's count of this name: found, counted.
    Count(NodeId, &'static str, u64, u64),
}

/// Something that does not agree, and the cache that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The cache; `None`: of none.
    pub cache: Option<Name>,
    /// What it is.
    pub problem: Problem,
}

impl Fault {
    /// About no cache.
    pub(super) const fn general(problem: Problem) -> Self {
        Self {
            cache: None,
            problem,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cache) = &self.cache {
            write!(f, "cache {cache}: ")?;
        }
        self.problem.fmt(f)
    }
}

impl core::error::Error for Fault {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SheavesHeld(cpu) => write!(f, "cpu{cpu} is using its sheaves"),
            Self::PagesHeld(cpu) => write!(f, "cpu{cpu} is using its page lists"),
            Self::QuarantineHeld(cpu) => write!(f, "the quarantine of cpu{cpu} is locked"),
            Self::BarnHeld(node) => write!(f, "the barn of node {node} is locked"),
            Self::ListHeld(node) => write!(f, "the lists of node {node} are locked"),
            Self::Pages(fault) => write!(f, "pages: {fault}"),
            Self::SheafMemory(at, sheaf) => {
                write!(
                    f,
                    "the sheaf at {sheaf:#x}, with objects {at}, is not allocated"
                )
            }
            Self::Sheaf(at, len, capacity, of_cache) => write!(
                f,
                "{len} of {capacity} objects {at}; the cache's sheaves have {of_cache}"
            ),
            Self::Sheaves(found, counted) => {
                write!(f, "CPUs and barns have {found} sheaves, counted {counted}")
            }
            Self::BarnCount(node, which, found, counted) => write!(
                f,
                "the barn of node {node} has {found} {which} sheaves, counted {counted}"
            ),
            Self::BarnLimit(node, which, found, most) => write!(
                f,
                "the barn of node {node} has {found} {which} sheaves, and {most} at most"
            ),
            Self::Stranger(at, object) => {
                write!(f, "{object:#x} {at} is no object of the cache")
            }
            Self::Twice {
                object,
                first,
                second,
            } => write!(f, "the object {object:#x} is {first} and {second}"),
            Self::Deferred(found, counted) => {
                write!(f, "{found} frees are deferred, counted {counted}")
            }
            Self::Waiting(cpu, found, counted) => write!(
                f,
                "{found} objects wait for a grace period on cpu{cpu}, counted {counted}"
            ),
            Self::Loose(cpu, found, counted) => write!(
                f,
                "{found} objects are in pages and chains of cpu{cpu}, counted {counted}"
            ),
            Self::Open(cpu, is_open) => {
                let (has, known) = if *is_open {
                    ("an", "none")
                } else {
                    ("no", "one")
                };
                write!(
                    f,
                    "cpu{cpu} has {has} rcu_free sheaf, its lane knows of {known}"
                )
            }
            Self::Linked(cpu, is_linked) => {
                let (has, what) = if *is_linked {
                    ("has", "nothing")
                } else {
                    ("misses", "something")
                };
                write!(
                    f,
                    "the lane of cpu{cpu} {has} the cache, of which {what} is there"
                )
            }
            Self::Parts(cpu, found, linked) => write!(
                f,
                "the lane of cpu{cpu} has {found} caches, {linked} say to be there"
            ),
            Self::Pointers(cpu, found, counted) => write!(
                f,
                "the lane of cpu{cpu} has {found} pages of pointers, counted {counted}"
            ),
            Self::PointerPage(cpu, page) => write!(
                f,
                "the page at {page:#x}, with pointers of cpu{cpu}, is not allocated"
            ),
            Self::LaneBytes(cpu, found, counted) => {
                write!(f, "{found} bytes wait on cpu{cpu}, counted {counted}")
            }
            Self::Unfreeable(at, memory) => {
                write!(f, "{memory:#x} {at} is no memory that can be freed")
            }
            Self::LaneHeld(cpu) => write!(f, "the lane of cpu{cpu} is locked"),
            Self::Quarantined(cpu, found, counted) => {
                write!(
                    f,
                    "{found} objects are quarantined on cpu{cpu}, counted {counted}"
                )
            }
            Self::Owner(slab, owner) => {
                write!(f, "slab {slab} belongs to {owner:#x}, which is no cache")
            }
            Self::Order(slab, order, objects) => {
                write!(f, "slab {slab} of order {order} has {objects} objects")
            }
            Self::Link(slab, after) => write!(
                f,
                "slab {slab}: the link behind {after} free objects is wrong"
            ),
            Self::Free(slab, found, counted) => {
                write!(
                    f,
                    "slab {slab}: {found} objects are free, counted {counted}"
                )
            }
            Self::Place(slab, place, word) => {
                write!(f, "slab {slab} is {}, with {word:?}", place.name())
            }
            Self::Listed(node, frame) => write!(
                f,
                "frame {frame} is in a list of node {node}, and does not belong there"
            ),
            Self::ListLinks(node, after) => write!(
                f,
                "a list of node {node} has broken links behind {after} slabs"
            ),
            Self::ListLen(node, list, found, listed) => write!(
                f,
                "node {node}: {found} slabs are {list}, {listed} are listed"
            ),
            Self::Count(node, what, found, counted) => {
                write!(f, "node {node}: {found} {what}, counted {counted}")
            }
        }
    }
}
