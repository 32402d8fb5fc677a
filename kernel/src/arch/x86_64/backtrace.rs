//! Walking frame pointers. The kernel is built with them, and interrupt entry links a
//! record, so a chain goes through interrupts to the bottom of the stack.

use super::{paging, stacks};

/// Longest chain that is shown.
pub const MAX_FRAMES: usize = 48;

/// Where a walk begins: the address being executed and the frame pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Instruction pointer.
    pub rip: u64,
    /// Frame pointer.
    pub rbp: u64,
}

/// Return addresses of the callers, innermost first; how many. Any context.
#[inline(never)]
pub fn callers(into: &mut [usize]) -> usize {
    let rbp: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack)) };
    let mut count = 0;
    // The first is no return address: this function itself.
    let mut places = core::iter::once(None).chain(into.iter_mut().map(Some));
    let most = places.size_hint().0;
    walk_some(Start { rip: 0, rbp }, most, |address| {
        if let Some(Some(place)) = places.next() {
            *place = address as usize;
            count += 1;
        }
    });
    count
}

/// Calls `each` with every return address from `start` outwards; the first is `start.rip`.
///
/// Trusts nothing: a frame pointer must lie in a mapped stack, be aligned, and grow; else
/// the walk ends. Any context, panics included.
pub fn walk(start: Start, each: impl FnMut(u64)) {
    walk_some(start, MAX_FRAMES, each);
}

/// [`walk`], not further than `most` addresses.
fn walk_some(start: Start, most: usize, mut each: impl FnMut(u64)) {
    each(start.rip);
    let mut frame = start.rbp;
    let mut from_interrupt_stack = stacks::is_interrupt_stack(frame);
    for _ in 1..most {
        if !plausible(frame) {
            return;
        }
        // SAFETY: `plausible` saw that both words are mapped stack memory. It may change
        // under us on a running CPU; any value is checked before it is used.
        let (caller, return_address) = unsafe {
            let record = frame as *const u64;
            (record.read_volatile(), record.add(1).read_volatile())
        };
        if return_address == 0 {
            return;
        }
        each(return_address);
        // Frames grow outwards within one stack; leaving an interrupt stack may go either way.
        let on_interrupt_stack = stacks::is_interrupt_stack(caller);
        let left_interrupt_stack = from_interrupt_stack && !on_interrupt_stack;
        if caller <= frame && !left_interrupt_stack {
            return;
        }
        from_interrupt_stack = on_interrupt_stack;
        frame = caller;
    }
}

fn plausible(frame: u64) -> bool {
    // Both words are on one page or the next; stacks are mapped page by page.
    frame.is_multiple_of(8)
        && stacks::slot_of(frame).is_some()
        && paging::peek(frame).is_some()
        && paging::peek(frame + 8).is_some()
}
