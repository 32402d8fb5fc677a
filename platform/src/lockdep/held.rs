//! The locks that a thread holds, and interrupts on top of it. See the protocol in
//! [`lockdep`](crate::lockdep).

use core::{
    fmt,
    panic::Location,
    ptr,
    sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use super::{Now, classes::ClassId};
use crate::{Acquisition, Context, CpuId, LockKind, lock::LockClass};

/// The most locks that a thread, with the interrupts on top of it, is seen to hold.
pub const MAX_HELD: usize = 32;

/// A lock that is held, or about to be.
#[derive(Debug, Clone, Copy)]
pub struct HeldLock {
    /// Its class.
    pub class: &'static LockClass,
    /// The class's number, if there was one left.
    pub id: Option<ClassId>,
    /// Its address.
    pub lock: usize,
    /// Its kind.
    pub kind: LockKind,
    /// Who takes it.
    pub at: &'static Location<'static>,
    /// On which CPU.
    pub cpu: CpuId,
    /// In which context.
    pub context: Context,
    /// Interrupts could come then.
    pub irqs_on: bool,
    /// It was not waited for.
    pub is_try: bool,
    /// Which of several of its class.
    pub nesting: u8,
}

impl HeldLock {
    /// What an acquisition comes to.
    #[inline]
    pub(super) fn new(acquisition: &Acquisition, id: Option<ClassId>, now: &Now) -> Self {
        Self {
            class: acquisition.class,
            id,
            lock: acquisition.lock,
            kind: acquisition.kind,
            at: acquisition.at,
            cpu: now.cpu,
            context: now.context,
            irqs_on: now.irqs_on,
            is_try: acquisition.is_try || acquisition.kind == LockKind::Local,
            nesting: acquisition.nesting,
        }
    }

    /// Whether its holder may sleep.
    #[inline]
    pub fn sleeps(&self) -> bool {
        matches!(self.kind, LockKind::Sleep | LockKind::SleepShared)
    }
}

impl fmt::Display for HeldLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            LockKind::Spin => "spin",
            LockKind::IrqSpin => "irq spin",
            LockKind::Local => "local",
            LockKind::Sleep => "sleeping",
            LockKind::SleepShared => "shared sleeping",
        };
        write!(f, "\"{}\" (level {}", self.class.name, self.class.level)?;
        if self.nesting != 0 {
            write!(f, ", nested {}", self.nesting)?;
        }
        let tried = if self.is_try { ", tried" } else { "" };
        write!(
            f,
            ") {kind} lock {:#x} at {} (cpu{}, {}, irqs {}{tried})",
            self.lock,
            self.at,
            self.cpu,
            context_name(self.context),
            if self.irqs_on { "on" } else { "off" },
        )
    }
}

/// A context in a report.
pub(super) fn context_name(context: Context) -> &'static str {
    match context {
        Context::Task => "task",
        Context::SoftIrq => "softirq",
        Context::HardIrq => "hardirq",
        Context::Nmi => "nmi",
    }
}

pub(super) fn encode_context(context: Context) -> u64 {
    match context {
        Context::Task => 0,
        Context::SoftIrq => 1,
        Context::HardIrq => 2,
        Context::Nmi => 3,
    }
}

/// From the two lowest bits.
#[inline(always)]
pub(super) fn decode_context(bits: u64) -> Context {
    match bits & 3 {
        0 => Context::Task,
        1 => Context::SoftIrq,
        2 => Context::HardIrq,
        _ => Context::Nmi,
    }
}

/// The small fields of an entry in a word: bits 0-1 context, 2-4 kind, 5 irqs on, 6 tried,
/// 8-15 class number or 0, 16-23 nesting, 24-31 CPU, 32-63 when (a count of acquisitions).
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields(u64);

impl Fields {
    #[inline]
    fn new(lock: &HeldLock, serial: u32) -> Self {
        let kind = match lock.kind {
            LockKind::Spin => 0,
            LockKind::IrqSpin => 1,
            LockKind::Local => 2,
            LockKind::Sleep => 3,
            LockKind::SleepShared => 4,
        };
        Self(
            encode_context(lock.context)
                | kind << 2
                | u64::from(lock.irqs_on) << 5
                | u64::from(lock.is_try) << 6
                | lock.id.map_or(0, |id| u64::from(id.number())) << 8
                | u64::from(lock.nesting) << 16
                | u64::from(lock.cpu.number()) << 24
                | u64::from(serial) << 32,
        )
    }

    #[inline(always)]
    pub(super) fn context(self) -> Context {
        decode_context(self.0)
    }

    #[inline(always)]
    fn kind(self) -> LockKind {
        match self.0 >> 2 & 7 {
            0 => LockKind::Spin,
            1 => LockKind::IrqSpin,
            2 => LockKind::Local,
            3 => LockKind::Sleep,
            _ => LockKind::SleepShared,
        }
    }

    #[inline(always)]
    pub(super) fn irqs_on(self) -> bool {
        self.0 & 1 << 5 != 0
    }

    #[inline(always)]
    pub(super) fn id(self) -> Option<ClassId> {
        ClassId::new((self.0 >> 8) as u8)
    }

    fn serial(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[derive(Debug)]
pub(super) struct Slot {
    /// Null while the slot is free, or is being filled or emptied.
    class: AtomicPtr<LockClass>,
    lock: AtomicUsize,
    at: AtomicPtr<Location<'static>>,
    fields: AtomicU64,
}

impl Slot {
    const fn new() -> Self {
        Self {
            class: AtomicPtr::new(ptr::null_mut()),
            lock: AtomicUsize::new(0),
            at: AtomicPtr::new(ptr::null_mut()),
            fields: AtomicU64::new(0),
        }
    }

    #[inline(always)]
    pub(super) fn lock(&self) -> usize {
        self.lock.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn fields(&self) -> Fields {
        Fields(self.fields.load(Ordering::Relaxed))
    }

    /// The entry. Of another thread's stack it may be a mixture, and is only shown.
    pub(super) fn get(&self) -> Option<HeldLock> {
        // Acquire: pairs with the Release of the class, the last field written.
        let class = self.class.load(Ordering::Acquire);
        let fields = self.fields();
        Some(HeldLock {
            // SAFETY: null, or from a `&'static LockClass`; never anything else.
            class: unsafe { class.as_ref() }?,
            id: fields.id(),
            lock: self.lock(),
            kind: fields.kind(),
            // SAFETY: null, or from a `&'static Location`; never anything else.
            at: unsafe { self.at.load(Ordering::Relaxed).as_ref() }?,
            cpu: CpuId::new((fields.0 >> 24) as u32 & 0xff)?,
            context: fields.context(),
            irqs_on: fields.irqs_on(),
            is_try: fields.0 & 1 << 6 != 0,
            nesting: (fields.0 >> 16) as u8,
        })
    }
}

/// The locks that a thread holds. Kept with the thread; until there are threads, with the
/// CPU. Only the thread and interrupts on top of it pass it to the checker; everybody may
/// look (and then sees what may be no longer so).
#[derive(Debug)]
pub struct Held {
    /// Which slots are taken.
    taken: AtomicU32,
    /// How many acquisitions there were.
    serial: AtomicU32,
    /// How many are held beyond the slots.
    beyond: AtomicU32,
    slots: [Slot; MAX_HELD],
}

impl Held {
    /// Nothing held.
    pub const fn new() -> Self {
        Self {
            taken: AtomicU32::new(0),
            serial: AtomicU32::new(0),
            beyond: AtomicU32::new(0),
            slots: [const { Slot::new() }; MAX_HELD],
        }
    }

    /// Notes a lock. `None`: no slot for it. Else how many are held.
    #[inline]
    pub(super) fn push(&self, lock: &HeldLock) -> Option<u32> {
        // Relaxed throughout, where nothing else is said: all who write run on the thread's
        // CPU of the moment, and moves of a thread are ordered by the scheduler. Load and
        // store apart: see the module.
        let serial = self.serial.load(Ordering::Relaxed).wrapping_add(1);
        self.serial.store(serial, Ordering::Relaxed);
        let taken = self.taken.load(Ordering::Relaxed);
        let Some(slot) = self.slots.get(taken.trailing_ones() as usize) else {
            self.beyond
                .store(self.beyond.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            return None;
        };
        let taken = taken | (taken + 1);
        self.taken.store(taken, Ordering::Relaxed);
        // An interrupt between here and the store above finds the slot reserved, or uses and
        // leaves it, before it is filled. Release: the reservation is not put off.
        slot.lock.store(lock.lock, Ordering::Release);
        slot.at
            .store(ptr::from_ref(lock.at).cast_mut(), Ordering::Relaxed);
        slot.fields
            .store(Fields::new(lock, serial).0, Ordering::Relaxed);
        // Release: an interrupt that sees the class sees the entry whole.
        slot.class
            .store(ptr::from_ref(lock.class).cast_mut(), Ordering::Release);
        Some(taken.count_ones())
    }

    /// Removes the lock that was taken last, of those of this class and address.
    #[inline]
    pub(super) fn pop(&self, class: &'static LockClass, lock: usize) -> Option<HeldLock> {
        let mut found: Option<(&Slot, u32)> = None;
        let now = self.serial.load(Ordering::Relaxed);
        for slot in self.slots() {
            if slot.lock() == lock && ptr::eq(slot.class.load(Ordering::Relaxed), class) {
                let age = now.wrapping_sub(slot.fields().serial());
                if found.is_none_or(|(_, youngest)| age < youngest) {
                    found = Some((slot, age));
                }
            }
        }
        let (slot, _) = found?;
        let entry = slot.get();
        self.empty(slot);
        entry
    }

    /// Frees a slot.
    fn empty(&self, slot: &Slot) {
        slot.class.store(ptr::null_mut(), Ordering::Relaxed);
        // How far the slot lies from the first.
        let index = (ptr::from_ref(slot).addr() - self.slots.as_ptr().addr()) / size_of::<Slot>();
        let taken = self.taken.load(Ordering::Relaxed);
        // Release: the class goes first.
        self.taken.store(taken & !(1 << index), Ordering::Release);
    }

    /// A release that no slot knows: whether it is of a lock beyond the slots.
    pub(super) fn pop_beyond(&self) -> bool {
        let beyond = self.beyond.load(Ordering::Relaxed);
        if beyond > 0 {
            self.beyond.store(beyond - 1, Ordering::Relaxed);
        }
        beyond > 0
    }

    /// Forgets what was taken in `context` or above it.
    pub(super) fn clear(&self, context: Context) {
        for slot in self.slots() {
            if slot.fields().context() >= context {
                self.empty(slot);
            }
        }
        if context == Context::Task {
            self.taken.store(0, Ordering::Relaxed);
            self.beyond.store(0, Ordering::Relaxed);
        }
    }

    /// The slots that are filled, in no order.
    #[inline(always)]
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        let mut left = self.taken.load(Ordering::Acquire);
        core::iter::from_fn(move || {
            while left != 0 {
                let slot = &self.slots[left.trailing_zeros() as usize];
                left &= left - 1;
                // Acquire: pairs with the Release in `push`.
                if !slot.class.load(Ordering::Acquire).is_null() {
                    return Some(slot);
                }
            }
            None
        })
    }

    /// How many locks are held.
    pub fn depth(&self) -> usize {
        (self.taken.load(Ordering::Relaxed).count_ones() + self.beyond.load(Ordering::Relaxed))
            as usize
    }

    /// Whether a lock of the class is held, as far as the slots tell.
    pub fn holds(&self, class: &LockClass) -> bool {
        self.slots()
            .any(|slot| ptr::eq(slot.class.load(Ordering::Relaxed), class))
    }

    /// The locks, in the order in which they were taken.
    pub fn locks(&self) -> impl Iterator<Item = HeldLock> + '_ {
        let now = self.serial.load(Ordering::Relaxed);
        let age = move |slot: &Slot| now.wrapping_sub(slot.fields().serial());
        // The next is the oldest of those younger than the last: no room is needed.
        let mut last = u64::MAX;
        core::iter::from_fn(move || {
            let slot = self
                .slots()
                .filter(|slot| u64::from(age(slot)) < last)
                .max_by_key(|slot| age(slot))?;
            last = u64::from(age(slot));
            slot.get()
        })
    }
}

impl Default for Held {
    fn default() -> Self {
        Self::new()
    }
}

/// A line for each lock, the one taken first in front.
impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for lock in self.locks() {
            writeln!(f, "  {lock}")?;
        }
        match self.beyond.load(Ordering::Relaxed) {
            0 => Ok(()),
            beyond => writeln!(f, "  and {beyond} more"),
        }
    }
}
