//! The locks that a thread holds, and interrupts on top of it. See the protocol in
//! [`lockdep`](crate::lockdep).

use core::{
    fmt,
    panic::Location,
    ptr,
    sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use super::entry::{Fields, HeldLock};
use crate::{Context, lock::LockClass};

/// The most locks that a thread, with the interrupts on top of it, is seen to hold.
pub const MAX_HELD: usize = 32;

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
        let at = self.at.load(Ordering::Relaxed);
        // SAFETY: null, or from a `&'static LockClass`; never anything else.
        let class = unsafe { class.as_ref() }?;
        // SAFETY: null, or from a `&'static Location`; never anything else.
        let at = unsafe { at.as_ref() }?;
        self.fields().entry(class, self.lock(), at)
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

    /// How many are held beyond the slots.
    pub(super) fn beyond(&self) -> u32 {
        self.beyond.load(Ordering::Relaxed)
    }

    /// How many locks are held.
    pub fn depth(&self) -> usize {
        (self.taken.load(Ordering::Relaxed).count_ones() + self.beyond()) as usize
    }

    /// Whether a lock of the class is held, as far as the slots tell.
    pub fn holds(&self, class: &LockClass) -> bool {
        self.slots()
            .any(|slot| ptr::eq(slot.class.load(Ordering::Relaxed), class))
    }

    /// The locks, in the order in which they were taken.
    pub fn locks(&self) -> impl Iterator<Item = HeldLock> + '_ {
        self.locks_by_age(self.serial(), u32::MAX)
    }

    /// [`locks`](Self::locks), without those taken since [`serial`](Self::serial) was this.
    pub(super) fn locks_as_of(&self, serial: u32) -> impl Iterator<Item = HeldLock> + '_ {
        // What is younger has an age that wrapped.
        self.locks_by_age(serial, u32::MAX / 2)
    }

    /// How many acquisitions there were, modulo 2^32.
    pub(super) fn serial(&self) -> u32 {
        self.serial.load(Ordering::Relaxed)
    }

    fn locks_by_age(&self, now: u32, oldest: u32) -> impl Iterator<Item = HeldLock> + '_ {
        let age = move |slot: &Slot| now.wrapping_sub(slot.fields().serial());
        // The next is the oldest of those younger than the last: no room is needed.
        let mut last = u64::from(oldest) + 1;
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
        match self.beyond() {
            0 => Ok(()),
            beyond => writeln!(f, "  and {beyond} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CpuId, LockKind};

    static CLASS: LockClass = LockClass::new("of a test", 1, true);

    fn entry(lock: usize) -> HeldLock {
        HeldLock {
            class: &CLASS,
            id: None,
            lock,
            kind: LockKind::Spin,
            at: Location::caller(),
            cpu: CpuId::BOOT,
            context: Context::Task,
            irqs_on: true,
            is_try: false,
            nesting: 0,
        }
    }

    /// The slot that an interrupt finds reserved, and not filled yet, shows nothing of who
    /// had it before.
    #[test]
    fn reserved_and_not_filled() {
        let held = Held::new();
        held.push(&entry(1));
        held.push(&entry(2));
        assert!(held.pop(&CLASS, 2).is_some());
        // As far as a push gets before the interrupt.
        held.taken.store(0b11, Ordering::Relaxed);
        assert_eq!(held.slots().count(), 1);
        assert!(held.pop(&CLASS, 2).is_none());
        held.push(&entry(3));
        assert!(held.locks().map(|lock| lock.lock).eq([1, 3]));
        assert!(held.pop(&CLASS, 3).is_some());
        assert_eq!(held.taken.load(Ordering::Relaxed), 0b11);
    }
}
