//! The walk of the whole heap ([`mm::slab::walk`]) on this machine.

use core::fmt;

use mm::slab::walk::{Fault, Room, Tally};
use mm::slab::whatis::What;

use super::slab::slabs;
use crate::{
    hotplug, sched, standstill,
    sync::{self, IrqLock},
    time,
};

/// How often a fault must be found, with time for the others to run in between: what they were
/// in the middle of is over then.
pub const TRIES: u32 = 20;
/// How long they run in between.
const PAUSE_NS: u64 = 500_000;

static ROOM: IrqLock<Room, sync::HeapWalk> = IrqLock::new(Room::new());

/// Why there is no result, or a bad one.
#[derive(Debug, Clone, Copy)]
pub enum Error {
    /// What was found, each time at last.
    Fault(Fault),
    /// A CPU does not stop.
    NoStandstill,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::NoStandstill => f.write_str("a CPU does not stop"),
        }
    }
}

impl core::error::Error for Error {}

/// Walks the heap while all other CPUs stand still. Task context, no spinning locks.
///
/// # Errors
///
/// A [`Fault`] that stays.
pub fn walk() -> Result<Tally, Error> {
    let mut tries = 0;
    loop {
        let online = hotplug::read_lock();
        // So that no cache is created or destroyed just now.
        let caches = slabs().caches();
        // SAFETY: nobody else runs, interrupts are off, and the list of caches is locked;
        // NMIs do not use the allocator outside tests.
        let walked = standstill::with(&online, || unsafe { walk_at_rest() });
        drop((caches, online));
        let fault = match walked {
            None => return Err(Error::NoStandstill),
            Some(Ok(tally)) => return Ok(tally),
            Some(Err(fault)) => fault,
        };
        tries += 1;
        if tries == TRIES {
            return Err(Error::Fault(fault));
        }
        pause();
    }
}

/// Lets the others run for a while, after a fault that may come from what they are in the middle of.
pub fn pause() {
    sched::sleep_until(time::now_ns() + PAUSE_NS);
}

/// Walks the heap as it is.
///
/// # Errors
///
/// A [`Fault`], which may be because somebody was stopped in the middle of something.
///
/// # Safety
///
/// Nobody else runs, interrupts are off, no cache is created or destroyed.
pub unsafe fn walk_at_rest() -> Result<Tally, Fault> {
    let mut room = ROOM.lock();
    // SAFETY: as the caller promises.
    unsafe { slabs().walk(&mut room) }
}

/// What an address is in, while all other CPUs stand still. `None`: one does not stop. Task
/// context, no spinning locks.
pub fn whatis(address: usize) -> Option<What> {
    let online = hotplug::read_lock();
    let _caches = slabs().caches();
    // SAFETY: as above.
    standstill::with(&online, || unsafe { slabs().whatis(address) })
}
