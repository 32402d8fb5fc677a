//! Kernel stacks: slots of [`STACK_SLOT`] bytes in a range of their own. The stack is at a
//! slot's upper end and everything below it in the slot stays unmapped, so that an overflow
//! faults, and the fault's address tells whose stack it was.

use kernel_early::{
    entry::STACK_PAGES,
    layout::{PAGE_SIZE, STACK_SLOT, STACKS},
};
use platform::{CpuId, MAX_CPUS};

use super::paging;
use crate::memory::{self, Purpose};

/// What a stack is for; also its place among a CPU's slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Use {
    /// The CPU's first thread: start-up, then idle (the boot CPU: the shell too).
    Main = 0,
    /// Double faults.
    DoubleFault = 1,
    /// NMIs.
    Nmi = 2,
    /// Machine checks.
    MachineCheck = 3,
}

const USES: u64 = 4;
const SLOTS: u64 = MAX_CPUS as u64 * USES;
/// Bytes of address space that stacks may use.
pub const RANGE: u64 = SLOTS * STACK_SLOT;
/// Pages of an interrupt stack.
const INTERRUPT_PAGES: u64 = 4;

/// A mapped stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stack {
    /// Lowest byte; the page below is a guard.
    pub bottom: u64,
    /// One past the highest byte.
    pub top: u64,
}

/// No frame was left for a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfStacks;

/// A slot, found by an address in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Whose.
    pub cpu: CpuId,
    /// What for.
    pub purpose: Use,
    /// Its stack.
    pub stack: Stack,
}

impl Slot {
    /// Whether `address` is below the stack, in the slot's unmapped part.
    pub fn is_guard(&self, address: u64) -> bool {
        address < self.stack.bottom
    }
}

/// Where the stack of `cpu` for `purpose` is, whether it has been made or not.
pub fn locate(purpose: Use, cpu: CpuId) -> Stack {
    let slot = cpu.index() as u64 * USES + purpose as u64;
    let top = STACKS + (slot + 1) * STACK_SLOT;
    let pages = match purpose {
        Use::Main => STACK_PAGES,
        _ => INTERRUPT_PAGES,
    };
    Stack {
        bottom: top - pages * PAGE_SIZE,
        top,
    }
}

/// Maps the stack of `cpu` for `purpose` on memory near that CPU.
///
/// # Errors
///
/// [`OutOfStacks`]: no memory.
pub fn allocate(purpose: Use, cpu: CpuId) -> Result<Stack, OutOfStacks> {
    let stack = locate(purpose, cpu);
    let len = stack.top - stack.bottom;
    let phys =
        memory::take_pages(len / PAGE_SIZE, Purpose::Stacks, Some(cpu)).ok_or(OutOfStacks)?;
    paging::map_memory(stack.bottom, phys, len).map_err(|_| OutOfStacks)?;
    Ok(stack)
}

/// The slot that `address` lies in.
pub fn slot_of(address: u64) -> Option<Slot> {
    let index = address.checked_sub(STACKS)? / STACK_SLOT;
    if index >= SLOTS {
        return None;
    }
    let purpose = match index % USES {
        0 => Use::Main,
        1 => Use::DoubleFault,
        2 => Use::Nmi,
        _ => Use::MachineCheck,
    };
    let cpu = CpuId::new((index / USES) as u32)?;
    Some(Slot {
        cpu,
        purpose,
        stack: locate(purpose, cpu),
    })
}

/// Whether `address` lies on a stack of the interrupt stack table.
pub fn is_interrupt_stack(address: u64) -> bool {
    slot_of(address).is_some_and(|slot| slot.purpose != Use::Main)
}
