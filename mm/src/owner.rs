//! Who allocated and freed a block, where that is recorded.

use core::fmt;

use crate::{frame::Use, gfp::Gfp, machine::Machine};

mod listing;
mod table;

pub use listing::{Group, Groups, Symbols};
pub use table::{Entry, Owners, bytes_for};

/// Return addresses that are kept.
pub const DEPTH: usize = if cfg!(model) { 1 } else { 12 };

/// Return addresses, innermost first; 0 where there are no more.
pub type Stack = [usize; DEPTH];

/// An allocation or a free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Event {
    /// When, by [`platform::Platform::now_ns`].
    pub at_ns: u64,
    /// The thread's number.
    pub thread: u32,
    /// The CPU's number.
    pub cpu: u32,
    /// Return addresses, innermost first; 0 where there are no more.
    pub stack: Stack,
}

impl Event {
    /// The return addresses that there are, innermost first.
    pub fn callers(&self) -> &[usize] {
        let depth = self.stack.iter().position(|address| *address == 0);
        &self.stack[..depth.unwrap_or(DEPTH)]
    }

    /// What happens here and now. Any context.
    #[inline(always)]
    fn now<M: Machine>() -> Self {
        Self {
            at_ns: M::now_ns(),
            thread: M::thread_number(),
            cpu: M::current_cpu().number(),
            stack: capture::<M>(),
        }
    }
}

/// Frames of our own that a backtrace begins with: this module's two, the hook's. (Hosted
/// machines show only what a test put there.)
const OWN: usize = if cfg!(feature = "hosted") { 0 } else { 3 };

/// Who called the allocator: return addresses without those of the functions that only
/// record. Any context.
#[inline(never)]
pub fn capture<M: Machine>() -> Stack {
    let mut found = [0; DEPTH + OWN];
    let depth = M::backtrace(&mut found).min(found.len());
    let mut stack = [0; DEPTH];
    let callers = found.get(OWN..depth).unwrap_or_default();
    stack[..callers.len()].copy_from_slice(callers);
    stack
}

/// What is known of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Record {
    /// How it was allocated.
    pub gfp: Gfp,
    /// Its order.
    pub order: u8,
    /// What for.
    pub usage: Option<Use>,
    /// Whether it has not been freed since.
    pub in_use: bool,
    /// The last allocation.
    pub allocated: Option<Event>,
    /// The free after it, or before it if the block is in use.
    pub freed: Option<Event>,
}

impl Record {
    /// How many frames the block has.
    pub const fn pages(&self) -> u64 {
        1 << self.order
    }

    /// When something last happened to the block.
    fn last_ns(&self) -> u64 {
        let at = |event: &Option<Event>| event.map_or(0, |event| event.at_ns);
        at(&self.allocated).max(at(&self.freed))
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut event = |what: &str, event: &Option<Event>| match event {
            None => Ok(()),
            Some(event) => {
                write!(
                    f,
                    "  {what} by thread {} on cpu{} at {} ns:",
                    event.thread, event.cpu, event.at_ns
                )?;
                for address in event.callers() {
                    write!(f, " {address:#x}")?;
                }
                writeln!(f)
            }
        };
        event("allocated", &self.allocated)?;
        event("freed", &self.freed)
    }
}
