//! The walk of the whole heap: whether all that the slab allocator says of itself agrees.
//!
//! While nobody allocates or frees, every page is free, a slab's, or used for something else,
//! and every object of every slab is in exactly one place ([`At`]):
//!
//! | place | found by |
//! |---|---|
//! | on its slab's freelist | following the links from the slab's word |
//! | in a CPU's main, spare or rcu_free sheaf | looking at every possible CPU of every cache |
//! | in a full sheaf of a node's barn | looking at every node of every cache |
//! | waiting for a grace period | looking at every CPU's lane ([`kvfree_rcu`](crate::kvfree_rcu)) |
//! | deferred: freed where no lock could be waited for, and still to be taken in | the CPUs' deferred lists |
//! | in quarantine | the CPUs' quarantines |
//! | allocated | none of these |
//!
//! | the walk compares | with |
//! |---|---|
//! | descriptors of page frames | the page allocator's lists and counts ([`Mm::audit`](crate::Mm::audit)) |
//! | what is in a sheaf | slabs: it must be an object of this very cache, found nowhere else |
//! | a sheaf's own memory | the same: it must be allocated |
//! | sheaves' lengths and capacities | the cache's capacity |
//! | sheaves of CPUs and barns | the cache's count of sheaves that it keeps |
//! | a barn's stacks | their counts, and the most that a barn keeps |
//! | a slab's links | its word's counts; each names an object, and none twice |
//! | a slab's place | its word, and the list that it is on |
//! | slabs and objects of a node | the node's counts; slabs of the list, its length |
//! | deferred objects | the cache's count of them |
//! | what waits on a lane | each cache's counts of it, the lane's of bytes and pages, its list of caches; which of them have an open sheaf |
//! | objects in quarantine | the cache's count of them, for each CPU |
//!
//! # How, without memory
//!
//! What lies in sheaves and lists is written into a table of fixed size ([`Room`]), sorted by
//! address, and compared with the slabs in the order of frames. If it is more than the table
//! holds, memory is looked at in windows of a size for which it fits; the smallest window is
//! one slab, whose objects fit in any case.
//!
//! # At rest
//!
//! [`Slabs::walk`] takes no lock: nobody else may run. Who stopped the other CPUs may have stopped one in
//! the middle of something. Held locks are found first, and are faults like others; what is moved without a lock (a slab
//! between its list and the page allocator) can only be told from a fault by looking again
//! later. So a walk that finds a fault is made again after the others ran, and only a
//! fault that stays is one.

mod caches;
mod fault;
mod lanes;
mod pages;
#[cfg(all(feature = "hosted", not(model)))]
pub mod plant;
mod room;

use core::fmt;

pub use fault::{At, Fault, Problem};
pub(crate) use pages::Walked;
use room::Entry;
pub use room::Room;

use super::{Machine, Slab, Slabs};
use crate::{Layout, frame::Pfn};

/// What there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Caches.
    pub caches: u64,
    /// Slabs.
    pub slabs: u64,
    /// Objects of slabs.
    pub objects: u64,
    /// Of these: on a freelist.
    pub free: u64,
    /// In a CPU's sheaf.
    pub in_sheaves: u64,
    /// In a barn.
    pub in_barns: u64,
    /// Waiting for a grace period: in rcu_free sheaves and on lanes.
    pub waiting: u64,
    /// Freed and not taken in yet.
    pub deferred: u64,
    /// In quarantine.
    pub quarantined: u64,
    /// Page frames by what they are.
    pub pages: PageTally,
}

/// Page frames by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageTally {
    /// Free, wherever.
    pub free: u64,
    /// Slabs.
    pub slabs: u64,
    /// Large kmalloc blocks.
    pub large: u64,
    /// Used otherwise, by the page allocator's other users.
    pub other: u64,
    /// Found damaged.
    pub bad: u64,
    /// Boot's.
    pub boot: u64,
}

impl Tally {
    /// Objects that somebody uses.
    pub const fn allocated(&self) -> u64 {
        let lying = self.in_sheaves + self.in_barns + self.waiting + self.deferred;
        self.objects - self.free - lying - self.quarantined
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} objects in {} slabs of {} caches: {} allocated, {} on freelists, {} in sheaves, \
             {} in barns, {} waiting, {} deferred, {} quarantined",
            self.objects,
            self.slabs,
            self.caches,
            self.allocated(),
            self.free,
            self.in_sheaves,
            self.in_barns,
            self.waiting,
            self.deferred,
            self.quarantined
        )?;
        let PageTally {
            free,
            slabs,
            large,
            other,
            bad,
            boot,
        } = self.pages;
        write!(
            f,
            "{} pages: {free} free, {slabs} slabs, {large} large kmalloc, {other} other, \
             {bad} bad, {boot} boot",
            free + slabs + large + other + bad + boot
        )
    }
}

impl<M: Machine> Slabs<M> {
    /// Walks the whole heap; see the module. Any context but NMI, for as long as the machine has memory to
    /// look at (some milliseconds for each GiB).
    ///
    /// # Errors
    ///
    /// The first [`Fault`].
    ///
    /// # Safety
    ///
    /// Nobody allocates, frees, creates or destroys caches meanwhile: the other CPUs are stopped
    /// (wherever they are), interrupts are off, and nobody can come upon this by an NMI that
    /// does so.
    pub unsafe fn walk(&self, room: &mut Room) -> Result<Tally, Fault> {
        // SAFETY: as the caller promises, here and below.
        unsafe { self.look_for_holders()? };
        self.mm()
            .audit()
            .map_err(|fault| Fault::general(Problem::Pages(fault)))?;
        let mut tally = Tally::default();
        // SAFETY: as above.
        unsafe { self.walk_caches(&mut tally)? };
        let end = self.mm().frames().end();
        let mut from = Pfn(0);
        while from < end {
            // SAFETY: as above.
            let to = unsafe { self.fill(room, from, end) };
            if let Some((first, second)) = room.sort() {
                return Err(self.twice(first, second));
            }
            // SAFETY: as above.
            unsafe { self.walk_pages(room, from, to, &mut tally)? };
            from = to;
        }
        // SAFETY: as above.
        unsafe {
            self.walk_lanes()?;
            self.compare_counts()?;
        }
        Ok(tally)
    }

    /// Two of the table's entries have the same address.
    fn twice(&self, first: Entry, second: Entry) -> Fault {
        let object = self.mm().layout().direct_map() + first.address;
        let slab = Slab::<M>::of_address(*self.mm().frames(), object);
        Fault {
            // SAFETY: what is in sheaves was found to lie in slabs of caches.
            cache: slab.map(|slab| *unsafe { slab.cache().as_ref() }.name()),
            problem: Problem::Twice {
                object,
                first: first.at,
                second: second.at,
            },
        }
    }
}
