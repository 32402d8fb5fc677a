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

/// What a CPU's stack is for; also its place among the CPU's slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Use {
    /// The CPU's first thread: start-up, then idle (the boot CPU: start-up, then the first
    /// thread).
    Main = 0,
    /// Double faults.
    DoubleFault = 1,
    /// NMIs.
    Nmi = 2,
    /// Machine checks.
    MachineCheck = 3,
}

/// Whose stack it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A CPU's, for one purpose.
    Cpu(CpuId, Use),
    /// The thread's that has this number of stack.
    Thread(usize),
}

const USES: u64 = 4;
const CPU_SLOTS: u64 = MAX_CPUS as u64 * USES;
/// Stacks for threads.
pub const THREADS: usize = 1024;
const SLOTS: u64 = CPU_SLOTS + THREADS as u64;
/// Bytes of address space that stacks may use.
pub const RANGE: u64 = SLOTS * STACK_SLOT;
/// Pages of an interrupt stack.
const INTERRUPT_PAGES: u64 = 4;
/// Pages of a thread's stack. Interrupts and soft interrupts run on it, too.
const THREAD_PAGES: u64 = 8;

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
    pub owner: Owner,
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
    of_owner(Owner::Cpu(cpu, purpose))
}

/// Where a stack is, whether it has been made or not.
pub fn of_owner(owner: Owner) -> Stack {
    let (slot, pages) = match owner {
        Owner::Cpu(cpu, purpose) => (
            cpu.index() as u64 * USES + purpose as u64,
            match purpose {
                Use::Main => STACK_PAGES,
                _ => INTERRUPT_PAGES,
            },
        ),
        Owner::Thread(index) => (CPU_SLOTS + index as u64, THREAD_PAGES),
    };
    let top = STACKS + (slot + 1) * STACK_SLOT;
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
    map(Owner::Cpu(cpu, purpose), Some(cpu))
}

/// Maps the thread stack with this number.
///
/// # Errors
///
/// [`OutOfStacks`]: no memory.
pub fn allocate_for_thread(index: usize) -> Result<Stack, OutOfStacks> {
    map(Owner::Thread(index), None)
}

fn map(owner: Owner, near: Option<CpuId>) -> Result<Stack, OutOfStacks> {
    let stack = of_owner(owner);
    let len = stack.top - stack.bottom;
    let phys = memory::take_pages(len / PAGE_SIZE, Purpose::Stacks, near).ok_or(OutOfStacks)?;
    paging::map_memory(stack.bottom, phys, len).map_err(|_| OutOfStacks)?;
    Ok(stack)
}

/// The slot that `address` lies in.
pub fn slot_of(address: u64) -> Option<Slot> {
    let index = address.checked_sub(STACKS)? / STACK_SLOT;
    if index >= SLOTS {
        return None;
    }
    let owner = match index.checked_sub(CPU_SLOTS) {
        Some(thread) => Owner::Thread(thread as usize),
        None => {
            let purpose = match index % USES {
                0 => Use::Main,
                1 => Use::DoubleFault,
                2 => Use::Nmi,
                _ => Use::MachineCheck,
            };
            Owner::Cpu(CpuId::new((index / USES) as u32)?, purpose)
        }
    };
    Some(Slot {
        owner,
        stack: of_owner(owner),
    })
}

/// Whether `address` lies on a stack of the interrupt stack table.
pub fn is_interrupt_stack(address: u64) -> bool {
    slot_of(address)
        .is_some_and(|slot| matches!(slot.owner, Owner::Cpu(_, purpose) if purpose != Use::Main))
}
