//! What the slab allocator runs on.

/// A machine with memory, read under RCU. Nothing is to be implemented.
pub trait Machine: crate::machine::Machine + rcu::Machine {}

impl<M: crate::machine::Machine + rcu::Machine> Machine for M {}

/// How an operation may go about locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Waits for spinning locks: any context but NMI.
    Spin,
    /// Never waits: any context, NMI too, with any lock held.
    NoLock,
}
