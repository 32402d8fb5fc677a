//! In which contexts locks of a class are taken, and with which interrupts on.

use core::{panic::Location, ptr, sync::atomic::AtomicPtr};

use super::{
    Now,
    classes::{ClassId, MAX_CLASSES},
};
use crate::{
    Context,
    sync::{AtomicU32, Ordering, const_unless_model, fence},
};

/// A way in which a class was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Use {
    /// Taken at all.
    Taken = 0,
    /// Waited for in an interrupt handler.
    InHardIrq = 1,
    /// Waited for in a soft interrupt.
    InSoftIrq = 2,
    /// Held while interrupts could come.
    HardIrqsOn = 3,
    /// Held while soft interrupts could come.
    SoftIrqsOn = 4,
    /// Tried, with success, in an NMI.
    NmiTry = 5,
}

/// All of them.
pub(super) const USES: [Use; 6] = [
    Use::Taken,
    Use::InHardIrq,
    Use::InSoftIrq,
    Use::HardIrqsOn,
    Use::SoftIrqsOn,
    Use::NmiTry,
];

impl Use {
    /// Its bit.
    pub(super) const fn bit(self) -> u32 {
        1 << self as u8
    }

    /// As a half sentence about the class.
    pub fn text(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::InHardIrq => "taken in hardirq",
            Self::InSoftIrq => "taken in softirq",
            Self::HardIrqsOn => "held with hardirqs on",
            Self::SoftIrqsOn => "held with softirqs on",
            Self::NmiTry => "tried in nmi",
        }
    }
}

/// A kind of interrupt that locks must be kept from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Irq {
    /// Handlers of interrupts.
    Hard,
    /// Deferred work at their end.
    Soft,
}

impl Irq {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Hard, Self::Soft];

    /// Waited for in it: a class that is so used must be safe from it.
    pub fn inside(self) -> Use {
        match self {
            Self::Hard => Use::InHardIrq,
            Self::Soft => Use::InSoftIrq,
        }
    }

    /// Held while it could come: a class that is so used is not safe from it.
    pub fn enabled(self) -> Use {
        match self {
            Self::Hard => Use::HardIrqsOn,
            Self::Soft => Use::SoftIrqsOn,
        }
    }
}

/// The uses, as bits, that holding a lock means now.
#[inline]
pub fn uses_of_holding(now: &Now) -> u32 {
    (u32::from(now.irqs_on) << Use::HardIrqsOn as u8)
        | (u32::from(now.softirqs_on) << Use::SoftIrqsOn as u8)
}

/// The uses, as bits, that taking a lock means now; `waits`: by waiting for it.
#[inline]
pub fn uses_of_taking(now: &Now, waits: bool) -> u32 {
    let context = match (now.context, waits) {
        (Context::HardIrq, true) => Use::InHardIrq.bit(),
        (Context::SoftIrq, true) => Use::InSoftIrq.bit(),
        (Context::Nmi, false) => Use::NmiTry.bit(),
        _ => 0,
    };
    Use::Taken.bit() | context | uses_of_holding(now)
}

/// The uses of a class.
#[derive(Debug)]
struct Uses {
    /// Those that were looked at, whatever came of it.
    known: AtomicU32,
    /// Those that count.
    counted: AtomicU32,
}

impl Uses {
    const_unless_model! {
        fn new() -> Self {
            Self { known: AtomicU32::new(0), counted: AtomicU32::new(0) }
        }
    }
}

/// A place in the source; null until noted.
type Place = AtomicPtr<Location<'static>>;

/// The uses of all classes, and where each was seen first.
#[derive(Debug)]
pub struct Usage {
    uses: [Uses; MAX_CLASSES],
    places: [[Place; USES.len()]; MAX_CLASSES],
}

impl Usage {
    /// Without uses.
    #[cfg(not(model))]
    pub const fn new() -> Self {
        Self {
            uses: [const { Uses::new() }; MAX_CLASSES],
            places: [const { [const { Place::new(ptr::null_mut()) }; USES.len()] }; MAX_CLASSES],
        }
    }

    /// Without uses.
    #[cfg(model)]
    pub fn new() -> Self {
        Self {
            uses: core::array::from_fn(|_| Uses::new()),
            places: [const { [const { Place::new(ptr::null_mut()) }; USES.len()] }; MAX_CLASSES],
        }
    }

    /// Those of `uses` that were not looked at.
    #[inline(always)]
    pub fn unknown(&self, class: ClassId, uses: u32) -> u32 {
        // Relaxed: a bit not seen yet costs a second look, no more.
        uses & !self.uses[class.index()].known.load(Ordering::Relaxed)
    }

    /// The use was looked at.
    pub fn set_known(&self, class: ClassId, what: Use) {
        // Relaxed: as in `unknown`.
        self.uses[class.index()]
            .known
            .fetch_or(what.bit(), Ordering::Relaxed);
    }

    /// Makes the use count, and notes the first place. What is searched after this sees it
    /// or is seen by who adds what it does not see.
    pub fn add(&self, class: ClassId, what: Use, at: &'static Location<'static>) {
        // The first one stays. Release, to find the place whole (a static is, anyway).
        let _ = self.places[class.index()][what as usize].compare_exchange(
            ptr::null_mut(),
            ptr::from_ref(at).cast_mut(),
            Ordering::Release,
            Ordering::Relaxed,
        );
        // Release: the place is found by who finds the bit.
        self.uses[class.index()]
            .counted
            .fetch_or(what.bit(), Ordering::AcqRel);
        // As in `Graph::add`.
        fence(Ordering::SeqCst);
    }

    /// The use counts no more.
    pub fn withdraw(&self, class: ClassId, what: Use) {
        self.uses[class.index()]
            .counted
            .fetch_and(!what.bit(), Ordering::Relaxed);
    }

    /// Whether the use counts.
    pub fn has(&self, class: ClassId, what: Use) -> bool {
        // Acquire: its place is seen.
        self.uses[class.index()].counted.load(Ordering::Acquire) & what.bit() != 0
    }

    /// Where the use was seen first.
    pub fn place(&self, class: ClassId, what: Use) -> Option<&'static Location<'static>> {
        let place = self.places[class.index()][what as usize].load(Ordering::Acquire);
        // SAFETY: null, or from the `&'static Location` in `add`.
        unsafe { place.as_ref() }
    }

    /// Forgets all uses of a class.
    pub fn forget(&self, class: ClassId) {
        let uses = &self.uses[class.index()];
        uses.counted.store(0, Ordering::Relaxed);
        uses.known.store(0, Ordering::Relaxed);
        for place in &self.places[class.index()] {
            place.store(ptr::null_mut(), Ordering::Relaxed);
        }
    }
}
