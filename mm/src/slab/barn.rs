//! A node's barn: sheaves, full and empty, of one cache, for the CPUs of the node.
//!
//! All moves are made under the barn's lock, by the CPU that holds the sheaf outside; a sheaf is
//! in the barn or somebody's, never both. A *full* sheaf has objects (as many as it has room
//! for, unless a prefilled one came back), an *empty* one has none.
//!
//! | arrow | from | to | who |
//! |---|---|---|---|
//! | `barn.exchange_empty` | a CPU's empty main; a full one here | the empty one here, the full one the CPU's main | an allocation |
//! | `barn.get_full` | a full one here | the taker's | an allocation without a sheaf to give, bulk, prefill |
//! | `barn.exchange_full` | a CPU's full main; an empty one here | the full one here, the empty one the CPU's main | a free |
//! | `barn.get_empty` | an empty one here | the taker's | a free, prefill |
//! | `barn.put_full` | the giver's | a full one here | a free with a fresh sheaf, a return of a prefilled one |
//! | `barn.put_empty` | the giver's | an empty one here | whoever has one too many |
//! | `barn.too_many` | the giver's | the giver's: there are [`MAX_FULL`] or [`MAX_EMPTY`] of its kind | |
//! | `barn.busy` | | nothing: the lock is taken, and the caller may not wait | `NoLock` |
//! | `barn.take_all` | all here | the taker's | shrink, destroy |
//!
//! Ordering: the lock's. What is in the sheaf was written by its last owner before it gave
//! the sheaf (and the lock) away. The counts beside the lock let who wants something that is not
//! there go without taking it: a glance, by which nothing is moved.

use core::ptr::NonNull;

use platform::{
    Mark, Platform,
    lock::{IrqSpinGuard, IrqSpinLock},
    lock_class,
    sync::{AtomicU32, Ordering},
};

use super::{Mode, sheaf::Sheaf, stats::Contention};

lock_class! {
    /// A barn's sheaves.
    pub struct BarnLock = ("slab barn", 82);
}

/// The most full sheaves that a barn keeps, as in Linux.
pub const MAX_FULL: usize = 10;
/// The most empty ones.
pub const MAX_EMPTY: usize = 10;

/// A stack of sheaves, linked by [`Sheaf::next`]. Owns them: who drops one that is not empty
/// leaks them.
#[derive(Debug, Default)]
pub struct Stack {
    /// The latest.
    pub top: Option<NonNull<Sheaf>>,
    /// How many.
    pub len: usize,
}

// SAFETY: sheaves have one owner, which here is who owns the stack.
unsafe impl Send for Stack {}

impl Stack {
    /// Puts a sheaf on it.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf, which is a real one (not the permanent empty one), and gives it up.
    pub unsafe fn push(&mut self, sheaf: NonNull<Sheaf>) {
        // SAFETY: the caller's.
        unsafe { (*sheaf.as_ptr()).next = self.top };
        self.top = Some(sheaf);
        self.len += 1;
    }

    /// Takes the latest, which is the caller's then.
    pub fn pop(&mut self) -> Option<NonNull<Sheaf>> {
        let sheaf = self.top?;
        // SAFETY: sheaves here are the stack's.
        self.top = unsafe { (*sheaf.as_ptr()).next.take() };
        self.len -= 1;
        Some(sheaf)
    }

    /// The sheaves, to be looked at.
    pub fn iter(&self) -> impl Iterator<Item = NonNull<Sheaf>> {
        // SAFETY: as above; nothing changes while this is borrowed.
        core::iter::successors(self.top, |sheaf| unsafe { (*sheaf.as_ptr()).next })
    }
}

/// What the lock protects.
#[derive(Debug, Default)]
pub struct Sheaves {
    /// Sheaves with objects.
    pub full: Stack,
    /// Sheaves without.
    pub empty: Stack,
}

/// Why a sheaf was not put in, or exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There are as many of its kind as there may be.
    TooMany,
    /// There is none to be exchanged for.
    NoOther,
    /// The lock is taken.
    Busy,
}

/// A barn.
pub struct Barn<P: Platform> {
    /// Its sheaves.
    pub sheaves: IrqSpinLock<Sheaves, P, BarnLock>,
    /// How many are full and empty, for a glance; written by the lock's holder.
    full: AtomicU32,
    empty: AtomicU32,
    /// How often the lock was taken, and had to be waited for.
    pub contention: Contention,
}

/// The lock, held; keeps the counts right.
struct Open<'a, P: Platform> {
    sheaves: IrqSpinGuard<'a, Sheaves, P, BarnLock>,
    barn: &'a Barn<P>,
}

impl<P: Platform> Drop for Open<'_, P> {
    fn drop(&mut self) {
        // Relaxed: a glance is all that is made of them.
        let full = self.sheaves.full.len as u32;
        self.barn.full.store(full, Ordering::Relaxed);
        let empty = self.sheaves.empty.len as u32;
        self.barn.empty.store(empty, Ordering::Relaxed);
    }
}

impl<P: Platform> Barn<P> {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            sheaves: IrqSpinLock::new(Sheaves::default()),
            full: AtomicU32::new(0),
            empty: AtomicU32::new(0),
            contention: Contention::default(),
        }
    }

    /// Full sheaves, and empty ones; a glance. Any context.
    pub fn glance(&self) -> (usize, usize) {
        // Relaxed: a glance.
        let full = self.full.load(Ordering::Relaxed);
        (full as usize, self.empty.load(Ordering::Relaxed) as usize)
    }

    fn open(&self, mode: Mode) -> Option<Open<'_, P>> {
        let (sheaves, waited) = match mode {
            // A look before, so that the order checker is told of a lock that waits.
            Mode::Spin => {
                let held = self.sheaves.holder().is_some();
                (self.sheaves.lock(), held)
            }
            Mode::NoLock => (self.sheaves.try_lock()?, false),
        };
        self.contention.note(waited);
        // The interesting place for an NMI.
        P::mark(Mark::Step);
        Some(Open {
            sheaves,
            barn: self,
        })
    }

    /// Exchanges an empty sheaf for a full one. `Ok`: the full one, and the empty one if there are
    /// too many of those (never in `NoLock`: then it is refused). Context as `mode` says.
    ///
    /// # Errors
    ///
    /// [`Refused`]; the sheaf is still the caller's.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf: a real one, empty.
    pub unsafe fn exchange_empty(
        &self,
        empty: NonNull<Sheaf>,
        mode: Mode,
    ) -> Result<(NonNull<Sheaf>, Option<NonNull<Sheaf>>), Refused> {
        if self.glance().0 == 0 {
            return Err(Refused::NoOther);
        }
        let mut open = self.open(mode).ok_or(Refused::Busy)?;
        let sheaves = &mut *open.sheaves;
        let too_many = sheaves.empty.len >= MAX_EMPTY;
        if too_many && mode == Mode::NoLock {
            return Err(Refused::TooMany);
        }
        let full = sheaves.full.pop().ok_or(Refused::NoOther)?;
        if too_many {
            return Ok((full, Some(empty)));
        }
        // SAFETY: the caller's.
        unsafe { sheaves.empty.push(empty) };
        Ok((full, None))
    }

    /// Exchanges a full sheaf for an empty one. Context as `mode` says.
    ///
    /// # Errors
    ///
    /// [`Refused`]; the sheaf is still the caller's.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf: a real one, with objects.
    pub unsafe fn exchange_full(
        &self,
        full: NonNull<Sheaf>,
        mode: Mode,
    ) -> Result<NonNull<Sheaf>, Refused> {
        match self.glance() {
            (MAX_FULL.., _) => return Err(Refused::TooMany),
            (_, 0) => return Err(Refused::NoOther),
            _ => {}
        }
        let mut open = self.open(mode).ok_or(Refused::Busy)?;
        let sheaves = &mut *open.sheaves;
        if sheaves.full.len >= MAX_FULL {
            return Err(Refused::TooMany);
        }
        let empty = sheaves.empty.pop().ok_or(Refused::NoOther)?;
        // SAFETY: the caller's.
        unsafe { sheaves.full.push(full) };
        Ok(empty)
    }

    /// Takes a full sheaf, if there is one. Context as `mode` says.
    pub fn get_full(&self, mode: Mode) -> Option<NonNull<Sheaf>> {
        if self.glance().0 == 0 {
            return None;
        }
        self.open(mode)?.sheaves.full.pop()
    }

    /// Takes an empty sheaf, if there is one. Context as `mode` says.
    pub fn get_empty(&self, mode: Mode) -> Option<NonNull<Sheaf>> {
        if self.glance().1 == 0 {
            return None;
        }
        self.open(mode)?.sheaves.empty.pop()
    }

    /// Puts a full sheaf in. Context as `mode` says.
    ///
    /// # Errors
    ///
    /// [`Refused`]; the sheaf is still the caller's.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf: a real one, with objects.
    pub unsafe fn put_full(&self, full: NonNull<Sheaf>, mode: Mode) -> Result<(), Refused> {
        if self.glance().0 >= MAX_FULL {
            return Err(Refused::TooMany);
        }
        let mut open = self.open(mode).ok_or(Refused::Busy)?;
        if open.sheaves.full.len >= MAX_FULL {
            return Err(Refused::TooMany);
        }
        // SAFETY: the caller's.
        unsafe { open.sheaves.full.push(full) };
        Ok(())
    }

    /// Puts an empty sheaf in. Context as `mode` says.
    ///
    /// # Errors
    ///
    /// [`Refused`]; the sheaf is still the caller's.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf: a real one, empty.
    pub unsafe fn put_empty(&self, empty: NonNull<Sheaf>, mode: Mode) -> Result<(), Refused> {
        if self.glance().1 >= MAX_EMPTY {
            return Err(Refused::TooMany);
        }
        let mut open = self.open(mode).ok_or(Refused::Busy)?;
        if open.sheaves.empty.len >= MAX_EMPTY {
            return Err(Refused::TooMany);
        }
        // SAFETY: the caller's.
        unsafe { open.sheaves.empty.push(empty) };
        Ok(())
    }

    /// Takes all, full and empty. Not in NMI.
    pub fn take_all(&self) -> Sheaves {
        self.open(Mode::Spin)
            .map(|mut open| core::mem::take(&mut *open.sheaves))
            .unwrap_or_default()
    }
}

impl<P: Platform> Default for Barn<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl Contention {
    /// The lock was taken, by the caller, who holds it; `waited`: it seemed held before.
    #[inline]
    pub fn note(&self, waited: bool) {
        // Load and store apart will do: only the lock's holder writes. Relaxed: a statistic.
        self.taken
            .store(self.taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if waited {
            let contended = self.contended.load(Ordering::Relaxed);
            self.contended.store(contended + 1, Ordering::Relaxed);
        }
    }
}
