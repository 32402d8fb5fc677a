//! Kernel stacks: slots of [`STACK_SLOT`] bytes. The stack is at a slot's upper end and
//! everything below it in the slot stays unmapped, so that an overflow faults, and the
//! fault's address tells whose stack it was.
//!
//! CPUs' own stacks have a range of their own, where the slot's number says whose it is.
//! Threads' stacks are vmalloc areas, a slot each; the descriptor of a stack's highest frame
//! says whose it is. To find that takes no lock ([`slot_of`]): page tables are never freed,
//! and neither are descriptors.

use core::sync::atomic::Ordering;

use kernel_early::{
    entry::STACK_PAGES,
    layout::{PAGE_SIZE, STACK_SLOT, STACKS, VMALLOC, VMALLOC_END},
};
use mm::{Frame, Gfp, Pfn, State, vmalloc::Request};
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
    /// The boot CPU's idle thread.
    Idle = 4,
}

/// Whose stack it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A CPU's, for one purpose.
    Cpu(CpuId, Use),
    /// The thread's that has this address ([`set_thread`]); 0: no thread's at the moment.
    Thread(usize),
}

const USES: u64 = 5;
const SLOTS: u64 = MAX_CPUS as u64 * USES;
/// Pages of an interrupt stack.
const INTERRUPT_PAGES: u64 = 4;
/// Pages of a thread's stack. Interrupts and soft interrupts run on it, too.
const THREAD_PAGES: u64 = 8;

/// What a thread's stack is, for vmalloc: a slot.
pub const THREAD_REQUEST: Request = Request::new((THREAD_PAGES * PAGE_SIZE) as usize, Gfp::KERNEL)
    .aligned(STACK_SLOT as usize)
    .guarded((STACK_SLOT / PAGE_SIZE - THREAD_PAGES) as u32, 0)
    .used_for(mm::Use::Stack);

const _: () = assert!(VMALLOC.is_multiple_of(STACK_SLOT) && VMALLOC_END.is_multiple_of(STACK_SLOT));

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
    let slot = cpu.index() as u64 * USES + purpose as u64;
    let pages = match purpose {
        Use::Main => STACK_PAGES,
        Use::Idle => THREAD_PAGES,
        Use::DoubleFault | Use::Nmi | Use::MachineCheck => INTERRUPT_PAGES,
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
    let stack = locate(purpose, cpu);
    let len = stack.top - stack.bottom;
    let phys =
        memory::take_pages(len / PAGE_SIZE, Purpose::Stacks, Some(cpu)).ok_or(OutOfStacks)?;
    paging::map_memory(stack.bottom, phys, len).map_err(|_| OutOfStacks)?;
    Ok(stack)
}

/// Notes whose a thread's stack is: the address of the thread, or 0.
pub fn set_thread(stack: Stack, thread: usize) {
    if let Some(frame) = thread_frame(stack) {
        // Release pairs with the Acquire in `slot_of`: who finds the thread sees it filled in.
        frame.extra.store(thread, Ordering::Release);
    }
}

/// The descriptor of the highest frame of a thread's stack, if there is such a stack. Takes no
/// lock.
fn thread_frame(stack: Stack) -> Option<&'static Frame> {
    let top = paging::peek(stack.top - PAGE_SIZE)?;
    let frame = memory::try_mm()?.frames().get(Pfn::of_phys(top.phys)?)?;
    let is_stack = frame.word().state() == State::Used(mm::Use::Stack);
    // Relaxed: it does not change while the area is mapped.
    let begins = frame.owner.load(Ordering::Relaxed) as u64;
    (is_stack && begins == stack.bottom).then_some(frame)
}

/// The slot that `address` lies in. Any context.
pub fn slot_of(address: u64) -> Option<Slot> {
    if (VMALLOC..VMALLOC_END).contains(&address) {
        let top = (address & !(STACK_SLOT - 1)) + STACK_SLOT;
        let stack = Stack {
            bottom: top - THREAD_PAGES * PAGE_SIZE,
            top,
        };
        // Acquire pairs with the Release in `set_thread`.
        let thread = thread_frame(stack)?.extra.load(Ordering::Acquire);
        return Some(Slot {
            owner: Owner::Thread(thread),
            stack,
        });
    }
    let index = address.checked_sub(STACKS)? / STACK_SLOT;
    if index >= SLOTS {
        return None;
    }
    let purpose = match index % USES {
        0 => Use::Main,
        1 => Use::DoubleFault,
        2 => Use::Nmi,
        3 => Use::MachineCheck,
        _ => Use::Idle,
    };
    let cpu = CpuId::new((index / USES) as u32)?;
    Some(Slot {
        owner: Owner::Cpu(cpu, purpose),
        stack: locate(purpose, cpu),
    })
}

/// Whether `address` lies on a stack of the interrupt stack table.
pub fn is_interrupt_stack(address: u64) -> bool {
    let interrupts = |purpose| matches!(purpose, Use::DoubleFault | Use::Nmi | Use::MachineCheck);
    // Threads' stacks need not be looked up.
    address >= STACKS
        && slot_of(address)
            .is_some_and(|slot| matches!(slot.owner, Owner::Cpu(_, purpose) if interrupts(purpose)))
}
