//! What can be switched on to find misuse of pages, and where the allocator asks for it.
//!
//! The allocator's hot paths test one word ([`Debug::any`]); if it is not 0 they go the long
//! way, which calls the hooks. Each kind of check has a bit of the word:
//!
//! | bit | set and cleared by | the hooks then |
//! |---|---|---|
//! | `POISON` | [`set_poison`](Debug::set_poison) | fill what is freed; compare what was filled |
//! | `OWNER` | [`start_owners`](Debug::start_owners), for ever | record who allocates and frees |
//! | `FAULT` | [`faults`](Debug::faults) | let the knobs decide who fails |
//!
//! All may be switched on with the first page. Poison and faults can be switched at run time
//! too, the record of owners cannot: its table is boot memory, and a record that does not
//! know the blocks that were there before it would call them strangers.
//!
//! # Poison at run time
//!
//! Only what was freed since poison is on is filled, so each frame has to say whether it is:
//! while a frame is free, its [`extra`](crate::Frame::extra) is nobody's, and holds a *mark*
//! if it is filled. Each time that poison is switched on marks get another value.
//!
//! | event | with `POISON` |
//! |---|---|
//! | free | fill, then mark with the value of now |
//! | allocation | compare if the mark has the value of now; clear the mark |
//!
//! Hooks are called by who owns the block at that moment, so marks are plain words. A frame
//! that is allocated or freed without the hooks, because poison was off or whoever does it
//! has not seen yet that it is on, may keep a mark though its owner writes to it. That does no
//! harm: if it is freed with the hooks it is filled again; if it is freed without, poison was
//! off then, and when it is on again the mark has an old value.

use core::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
};

use platform::Mark;

use crate::{
    fault::{Knobs, PageFaults},
    frame::{FrameMap, PAGE_SIZE, Pfn, Use},
    gfp::Gfp,
    machine::Machine,
    owner::{Entry, Owners, Record},
    poison::{self, Damage},
};

const POISON: u32 = 1 << 0;
const OWNER: u32 = 1 << 1;
const FAULT: u32 = 1 << 2;

/// The marks of filled frames begin with this, so that they are no addresses: no owner's
/// pointer, left in `extra`, is one.
const MARK: u64 = 0x5eed_aaaa_0000_0000;

/// The switches and the hooks. See the module.
pub struct Debug<M: Machine> {
    any: AtomicU32,
    /// How often poison was switched on.
    poisons: AtomicU32,
    owners: Owners<M>,
    faults: PageFaults<M>,
}

impl<M: Machine> Debug<M> {
    /// All is off.
    pub const fn off() -> Self {
        Self {
            any: AtomicU32::new(0),
            poisons: AtomicU32::new(0),
            owners: Owners::new(),
            faults: PageFaults::new(),
        }
    }

    /// Whether the hooks must be called.
    #[inline(always)]
    pub fn any(&self) -> bool {
        self.bits() != 0
    }

    #[inline(always)]
    fn bits(&self) -> u32 {
        // Relaxed: see the module for those who see a change late.
        self.any.load(Ordering::Relaxed)
    }

    fn is_on(&self, bit: u32) -> bool {
        self.bits() & bit != 0
    }

    /// From now on pages are filled when they are freed and compared when they are allocated,
    /// or not. Pages that were freed before it was last switched on are not compared.
    pub fn set_poison(&self, on: bool) {
        if !on {
            self.any.fetch_and(!POISON, Ordering::Relaxed);
        } else if !self.poison() {
            // Before the bit: who sees that poison is on marks with the new value. If two
            // switch on at the same time what was marked in between is not compared.
            self.poisons.fetch_add(1, Ordering::Relaxed);
            self.any.fetch_or(POISON, Ordering::Release);
        }
    }

    /// Whether pages are filled and checked.
    pub fn poison(&self) -> bool {
        self.is_on(POISON)
    }

    /// From now on, for ever, who allocates and frees is recorded in `entries`
    /// ([`owner::bytes_for`](crate::owner::bytes_for), all zeros). To be called before pages
    /// are allocated. `false`: it is recorded already.
    pub fn start_owners(&self, entries: &'static [Entry]) -> bool {
        let started = self.owners.start(entries);
        if started {
            self.any.fetch_or(OWNER, Ordering::Relaxed);
        }
        started
    }

    /// The record of owners.
    pub fn owners(&self) -> &Owners<M> {
        &self.owners
    }

    /// What is known of a frame's last user, for reports. Any context.
    pub fn record(&self, pfn: Pfn) -> Option<Record> {
        self.owners.last_of(pfn).map(|(_, record)| record)
    }

    /// Calls `f` with the knobs of fault injection, to look at or to set.
    pub fn faults<R>(&self, f: impl FnOnce(&PageFaults<M>) -> R) -> R {
        let result = f(&self.faults);
        // The bit follows the knobs. Who stores it looks at them again afterwards, so of two
        // who change them at the same time the last to store the bit has seen both changes.
        // SeqCst: the knobs' and the bit's stores and loads are to have one order.
        loop {
            let armed = self.faults.attr.is_armed();
            core::sync::atomic::fence(Ordering::SeqCst);
            M::mark(Mark::Step);
            if armed {
                self.any.fetch_or(FAULT, Ordering::SeqCst);
            } else {
                self.any.fetch_and(!FAULT, Ordering::SeqCst);
            }
            core::sync::atomic::fence(Ordering::SeqCst);
            if self.faults.attr.is_armed() == armed {
                return result;
            }
        }
    }

    /// The knobs of fault injection, without those of pages, as they are.
    pub fn fault_knobs(&self) -> Knobs {
        self.faults.attr.knobs()
    }

    // The hooks.

    /// An allocation begins. `true`: it shall fail. Any context.
    #[cold]
    pub fn before_alloc(&self, gfp: Gfp, order: usize) -> bool {
        self.is_on(FAULT) && self.faults.should_fail(gfp, order)
    }

    /// A block was taken, and is not handed out yet. Any context.
    ///
    /// # Errors
    ///
    /// It was written to while it was free. Nobody shall use it.
    ///
    /// # Safety
    ///
    /// The caller owns the block, which is one of `frames`.
    #[cold]
    pub unsafe fn on_alloc(
        &self,
        frames: &FrameMap<M::Layout>,
        pfn: Pfn,
        order: usize,
        usage: Use,
        gfp: Gfp,
    ) -> Result<(), Damage> {
        let bits = self.bits();
        if bits & POISON != 0 {
            // SAFETY: as the caller promises.
            unsafe { self.check(frames, pfn, order)? };
        }
        if bits & OWNER != 0 {
            self.owners.note_alloc(pfn, order, usage, gfp);
        }
        Ok(())
    }

    /// A block is about to be given back. Any context.
    ///
    /// # Safety
    ///
    /// The caller owns the block, which is one of `frames`, and nobody uses it any more.
    #[cold]
    pub unsafe fn on_free(&self, frames: &FrameMap<M::Layout>, pfn: Pfn, order: usize, usage: Use) {
        let bits = self.bits();
        if bits & OWNER != 0 {
            self.owners.note_free(pfn, order, usage);
        }
        if bits & POISON == 0 {
            return;
        }
        let mark = self.mark();
        // SAFETY: the block's memory, which is the caller's.
        unsafe { poison::fill(frames.address_of(pfn), PAGE_SIZE << order) };
        for offset in 0..1 << order {
            // SAFETY: a frame of the block.
            let frame = unsafe { frames.at(pfn.add(offset)) };
            // Relaxed: the block is handed on by locks.
            frame.extra.store(mark, Ordering::Relaxed);
        }
    }

    /// What filled frames are marked with now.
    fn mark(&self) -> usize {
        // Acquire, on behalf of the bit that was seen: not older than that.
        core::sync::atomic::fence(Ordering::Acquire);
        (MARK | u64::from(self.poisons.load(Ordering::Relaxed))) as usize
    }

    /// Clears the marks of a block, and looks at the frames that had one.
    ///
    /// # Safety
    ///
    /// As for [`on_alloc`](Self::on_alloc).
    unsafe fn check(
        &self,
        frames: &FrameMap<M::Layout>,
        pfn: Pfn,
        order: usize,
    ) -> Result<(), Damage> {
        let mark = self.mark();
        let mut result = Ok(());
        for offset in 0..1 << order {
            let pfn = pfn.add(offset);
            // SAFETY: a frame of the block.
            let frame = unsafe { frames.at(pfn) };
            // Relaxed: as in `on_free`.
            let filled = frame.extra.load(Ordering::Relaxed) == mark;
            frame.extra.store(0, Ordering::Relaxed);
            if !filled {
                continue;
            }
            // SAFETY: the frame's memory, whole pages.
            if let Err(damage) = unsafe { poison::check(frames.address_of(pfn), PAGE_SIZE) } {
                // The first is the one that is told of.
                result = result.and(Err(damage.in_frame(pfn)));
            }
        }
        result
    }
}

impl<M: Machine> Default for Debug<M> {
    fn default() -> Self {
        Self::off()
    }
}

impl<M: Machine> fmt::Debug for Debug<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Debug")
            .field("poison", &self.poison())
            .field("owners", &self.owners)
            .field("faults", &self.faults)
            .finish()
    }
}
