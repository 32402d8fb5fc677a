//! Numbers for lock classes.
//!
//! They are the program's, not a checker's: the number lies in the class, a static, and
//! there may be several checkers (one for each hosted machine). A slot is claimed with the
//! class before the class gets the slot's number; if another CPU was faster, the slot is
//! given back, which nobody has seen by number.

use core::{
    num::NonZeroU8,
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
};

use crate::lock::LockClass;

/// The most classes that are told apart.
#[cfg(not(model))]
pub const MAX_CLASSES: usize = 255;
/// The most classes that are told apart; few, because the model checker follows every word.
#[cfg(model)]
pub const MAX_CLASSES: usize = 4;

/// The number of a class: from 1, at most [`MAX_CLASSES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(NonZeroU8);

impl ClassId {
    /// The number, if there is such a class number.
    #[inline]
    pub const fn new(number: u8) -> Option<Self> {
        match NonZeroU8::new(number) {
            // INVARIANT: at most MAX_CLASSES, so `index` is below.
            Some(number) if number.get() as usize <= MAX_CLASSES => Some(Self(number)),
            _ => None,
        }
    }

    /// The class with this index.
    #[inline]
    pub(super) fn from_index(index: usize) -> Option<Self> {
        Self::new(u8::try_from(index + 1).ok()?)
    }

    /// From 0, below [`MAX_CLASSES`].
    #[inline]
    pub const fn index(self) -> usize {
        self.0.get() as usize - 1
    }

    /// The number.
    #[inline]
    pub const fn number(self) -> u8 {
        self.0.get()
    }

    /// The class that has the number.
    pub fn class(self) -> Option<&'static LockClass> {
        // Acquire: pairs with the claim.
        let class = SLOTS[self.index()].load(Ordering::Acquire);
        // SAFETY: the slots hold null or what came from a `&'static LockClass`.
        let class = unsafe { class.as_ref() }?;
        // Else it is a claim about to be given back.
        (class.id() == Some(u16::from(self.number()))).then_some(class)
    }

    /// All numbers that a class has.
    pub fn all() -> impl Iterator<Item = (Self, &'static LockClass)> {
        (0..MAX_CLASSES)
            .filter_map(Self::from_index)
            .filter_map(|id| Some((id, id.class()?)))
    }
}

static SLOTS: [AtomicPtr<LockClass>; MAX_CLASSES] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MAX_CLASSES];

/// The class's number, given now if it has none. `None`: all are given.
#[inline]
pub fn number(class: &'static LockClass) -> Option<ClassId> {
    match class.id() {
        Some(id) => ClassId::new(id as u8),
        None => register(class),
    }
}

#[cold]
#[inline(never)]
fn register(class: &'static LockClass) -> Option<ClassId> {
    let pointer = ptr::from_ref(class).cast_mut();
    for (index, slot) in SLOTS.iter().enumerate() {
        // A look first, to leave the line of a taken slot alone.
        if !slot.load(Ordering::Relaxed).is_null() {
            continue;
        }
        // Release: who finds the class by its number finds it whole (a static is, anyway).
        if slot
            .compare_exchange(
                ptr::null_mut(),
                pointer,
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .is_err()
        {
            continue;
        }
        let id = ClassId::from_index(index)?;
        let given = class.set_id(u16::from(id.number()));
        if given != u16::from(id.number()) {
            // Another CPU, or an interrupt in between, gave it a number.
            slot.store(ptr::null_mut(), Ordering::Release);
        }
        return ClassId::new(given as u8);
    }
    None
}
