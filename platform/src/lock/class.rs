//! What kind of lock a lock is: its name, its place in the lock order, its number for the
//! order checker.
//!
//! A class is a type, so that a lock carries it without a word of memory and the order of
//! two classes can be compared when the program is compiled. [`lock_class!`](crate::lock_class) defines them.

use core::sync::atomic::{AtomicU16, Ordering};

/// The description of a lock class, one static for each.
#[derive(Debug)]
pub struct LockClass {
    /// Shown in reports.
    pub name: &'static str,
    /// A lock may be taken while holding one of a smaller level; of the same level only if
    /// its class says `nests`.
    pub level: u8,
    /// Several locks of this class may be held at a time (taken by `lock_nested`).
    pub nests: bool,
    /// The checker's number for it, from 1; 0 until it meets the class. Not part of any
    /// protocol (a number is given once, under the checker's own rules).
    id: AtomicU16,
}

impl LockClass {
    /// A class that the checker has not met.
    pub const fn new(name: &'static str, level: u8, nests: bool) -> Self {
        Self {
            name,
            level,
            nests,
            id: AtomicU16::new(0),
        }
    }

    /// The checker's number, if it gave one.
    pub fn id(&self) -> Option<u16> {
        // Acquire pairs with the Release in `set_id`: whoever sees the number sees what the
        // checker noted under it.
        match self.id.load(Ordering::Acquire) {
            0 => None,
            id => Some(id),
        }
    }

    /// Gives the number, unless it has one. The number that it has then.
    pub fn set_id(&self, id: u16) -> u16 {
        match self
            .id
            .compare_exchange(0, id, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => id,
            Err(other) => other,
        }
    }
}

/// A lock class as a type. Made by [`lock_class!`](crate::lock_class).
pub trait Class: 'static {
    /// See [`LockClass::level`].
    const LEVEL: u8;

    /// The description.
    fn class() -> &'static LockClass;
}

/// Defines lock classes: `lock_class! { pub struct RunQueue = ("run queue", 90); }`, or
/// `("tree node", 50, nests)` for one of which several may be held.
#[macro_export]
macro_rules! lock_class {
    ($($(#[$meta:meta])* $vis:vis struct $name:ident = ($text:literal, $level:expr $(, $nests:ident)?);)*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy)]
        $vis struct $name;

        impl $crate::lock::Class for $name {
            const LEVEL: u8 = $level;

            #[inline]
            fn class() -> &'static $crate::lock::LockClass {
                static CLASS: $crate::lock::LockClass =
                    $crate::lock::LockClass::new($text, $level, $crate::lock_class!(@nests $($nests)?));
                &CLASS
            }
        }
    )*};
    (@nests) => { false };
    (@nests nests) => { true };
}
