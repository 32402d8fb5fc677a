//! Who allocated and freed a block, where that is recorded.

use core::fmt;

use crate::gfp::Gfp;

/// Return addresses that are kept.
pub const DEPTH: usize = 12;

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
    pub stack: [usize; DEPTH],
}

/// What is known of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Record {
    /// How it was allocated.
    pub gfp: Gfp,
    /// Its order.
    pub order: u8,
    /// The last allocation.
    pub allocated: Option<Event>,
    /// The free after it, or before it if the block is in use.
    pub freed: Option<Event>,
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
                for address in event.stack.iter().take_while(|address| **address != 0) {
                    write!(f, " {address:#x}")?;
                }
                writeln!(f)
            }
        };
        event("allocated", &self.allocated)?;
        event("freed", &self.freed)
    }
}
