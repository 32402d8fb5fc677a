//! What the checker finds.

use core::panic::Location;

use super::{
    classes::ClassId,
    entry::HeldLock,
    graph::Path,
    usage::{Irq, Use},
};
use crate::lock::LockClass;

/// A kind of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A lock of a lower level under one of a higher level.
    Level = 1,
    /// Two classes, each taken under the other.
    AbBa,
    /// The same over three classes or more.
    Cycle,
    /// A thread waits for what it holds.
    Recursion,
    /// Two locks of one class in no certain order.
    SameClass,
    /// A class is taken in interrupts, and held while they are on.
    IrqUsage,
    /// A class that is taken in interrupts has one under it that is held while they are on.
    IrqDependency,
    /// Sleeping while a spinning or local lock is held.
    SleepUnderLock,
    /// Sleeping in an interrupt, or with preemption or interrupts off.
    SleepInAtomic,
    /// Waiting for a sleeping lock in an interrupt.
    SleepingLockInInterrupt,
    /// Waiting for a lock in an NMI.
    WaitInNmi,
    /// Released on another CPU or in another context than taken.
    ReleasedElsewhere,
    /// Released by one who does not hold it.
    NotHeld,
    /// Held where a thread or a handler ends.
    StillHeld,
    /// More locks held than the checker follows.
    TooManyHeld,
    /// More classes than the checker tells apart.
    TooManyClasses,
}

/// A finding, with what is needed to show it. Where a lock is wanted, it is in
/// [`Report::wanted`](super::Report::wanted).
#[derive(Debug, Clone, Copy)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is no heap, and a finding is rare"
)]
pub enum Finding {
    /// See [`Kind::Level`].
    Level {
        /// Held.
        held: HeldLock,
    },
    /// See [`Kind::AbBa`] (two classes) and [`Kind::Cycle`] (more).
    Cycle {
        /// Held.
        held: HeldLock,
        /// The order seen before, from the class wanted to the one held.
        path: Path,
    },
    /// See [`Kind::Recursion`].
    Recursion {
        /// Held: the same lock.
        held: HeldLock,
    },
    /// See [`Kind::SameClass`].
    SameClass {
        /// Held: another lock of the class.
        held: HeldLock,
    },
    /// See [`Kind::IrqUsage`].
    IrqUsage {
        /// The class.
        class: ClassId,
        /// The interrupts.
        irq: Irq,
        /// The use that is new.
        new: Use,
        /// Where.
        at: &'static Location<'static>,
    },
    /// See [`Kind::IrqDependency`].
    IrqDependency {
        /// The interrupts.
        irq: Irq,
        /// From the class taken in them to the one held while they are on.
        path: Path,
        /// The class whose use made it a contradiction; `None`: it was the order.
        by_use: Option<(ClassId, Use)>,
    },
    /// See [`Kind::SleepUnderLock`].
    SleepUnderLock {
        /// Held.
        held: HeldLock,
        /// Who sleeps.
        at: &'static Location<'static>,
    },
    /// See [`Kind::SleepInAtomic`].
    SleepInAtomic {
        /// Who sleeps.
        at: &'static Location<'static>,
    },
    /// See [`Kind::SleepingLockInInterrupt`].
    SleepingLockInInterrupt,
    /// See [`Kind::WaitInNmi`].
    WaitInNmi,
    /// See [`Kind::ReleasedElsewhere`].
    ReleasedElsewhere {
        /// As it was taken.
        held: HeldLock,
    },
    /// See [`Kind::NotHeld`].
    NotHeld {
        /// The lock's class.
        class: &'static LockClass,
        /// The class's number, if it has one.
        id: Option<ClassId>,
        /// The lock's address.
        lock: usize,
    },
    /// See [`Kind::StillHeld`].
    StillHeld {
        /// Held.
        held: HeldLock,
    },
    /// See [`Kind::TooManyHeld`].
    TooManyHeld,
    /// See [`Kind::TooManyClasses`].
    TooManyClasses,
}

impl Finding {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Level { .. } => Kind::Level,
            Self::Cycle { path, .. } if path.len() <= 2 => Kind::AbBa,
            Self::Cycle { .. } => Kind::Cycle,
            Self::Recursion { .. } => Kind::Recursion,
            Self::SameClass { .. } => Kind::SameClass,
            Self::IrqUsage { .. } => Kind::IrqUsage,
            Self::IrqDependency { .. } => Kind::IrqDependency,
            Self::SleepUnderLock { .. } => Kind::SleepUnderLock,
            Self::SleepInAtomic { .. } => Kind::SleepInAtomic,
            Self::SleepingLockInInterrupt => Kind::SleepingLockInInterrupt,
            Self::WaitInNmi => Kind::WaitInNmi,
            Self::ReleasedElsewhere { .. } => Kind::ReleasedElsewhere,
            Self::NotHeld { .. } => Kind::NotHeld,
            Self::StillHeld { .. } => Kind::StillHeld,
            Self::TooManyHeld => Kind::TooManyHeld,
            Self::TooManyClasses => Kind::TooManyClasses,
        }
    }

    /// The finding is the same as an earlier one if it is about the same things: classes
    /// where it is a matter of classes, else places in the source.
    pub(super) fn about(&self, wanted: Option<&HeldLock>) -> [u64; 3] {
        let class = |class: &'static LockClass| core::ptr::from_ref(class).addr() as u64;
        let place = |at: &'static Location<'static>| core::ptr::from_ref(at).addr() as u64;
        let wanted_class = wanted.map_or(0, |lock| class(lock.class));
        let wanted_at = wanted.map_or(0, |lock| place(lock.at));
        match self {
            Self::Level { held } => [class(held.class), wanted_class, 0],
            // Whichever of the two comes last.
            Self::Cycle { held, .. } => {
                let (a, b) = (class(held.class), wanted_class);
                [a.min(b), a.max(b), 0]
            }
            Self::Recursion { held } | Self::SameClass { held } => {
                [class(held.class), wanted_at, place(held.at)]
            }
            Self::IrqUsage { class, irq, .. } => [class.index() as u64, *irq as u64, 0],
            Self::IrqDependency { irq, path, .. } => {
                let end = |id: Option<ClassId>| id.map_or(0, |id| u64::from(id.number()));
                let mut classes = path.classes();
                let first = classes.next();
                [end(first), end(classes.next_back()), *irq as u64]
            }
            Self::SleepUnderLock { at, .. } | Self::SleepInAtomic { at } => [0, 0, place(at)],
            Self::SleepingLockInInterrupt => [0, 0, wanted_at],
            Self::WaitInNmi => [wanted_class, wanted_at, 0],
            Self::ReleasedElsewhere { held } | Self::StillHeld { held } => {
                [class(held.class), place(held.at), 0]
            }
            Self::NotHeld { class: of, .. } => [class(of), 0, 0],
            Self::TooManyHeld | Self::TooManyClasses => [0; 3],
        }
    }

    /// By which kind it is remembered: a place that must not sleep is one fault, whatever
    /// it is that forbids it this time.
    pub(super) fn family(&self) -> Kind {
        match self.kind() {
            Kind::SleepUnderLock | Kind::SleepingLockInInterrupt => Kind::SleepInAtomic,
            kind => kind,
        }
    }
}
