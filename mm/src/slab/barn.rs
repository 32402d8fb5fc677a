//! A node's barn: sheaves, full and empty, of one cache, for the CPUs of the node.

use core::ptr::NonNull;

use platform::{lock::IrqSpinLock, lock_class};

use super::{Machine, sheaf::Sheaf, stats::Contention};

lock_class! {
    /// A barn's sheaves.
    pub struct BarnLock = ("slab barn", 82);
}

/// The most full sheaves that a barn keeps, as in Linux.
pub const MAX_FULL: usize = 10;
/// The most empty ones.
pub const MAX_EMPTY: usize = 10;

/// A stack of sheaves, linked by [`Sheaf::next`].
#[derive(Debug, Default)]
pub(crate) struct Stack {
    pub top: Option<NonNull<Sheaf>>,
    pub len: usize,
}

// SAFETY: sheaves have one owner, which here is who owns the stack.
unsafe impl Send for Stack {}

/// What the lock protects.
#[derive(Debug, Default)]
pub(crate) struct Sheaves {
    pub full: Stack,
    pub empty: Stack,
}

/// A barn.
pub(crate) struct Barn<M: Machine> {
    pub sheaves: IrqSpinLock<Sheaves, M, BarnLock>,
    /// How often the lock was taken, and had to be waited for.
    pub contention: Contention,
}

impl<M: Machine> Barn<M> {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            sheaves: IrqSpinLock::new(Sheaves::default()),
            contention: Contention::default(),
        }
    }
}
