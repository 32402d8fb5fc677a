//! The kernel's address space at run time: mapping memory and device registers,
//! permissions, looking an address up, and telling other CPUs about changes.
//!
//! Tables are never freed. One lock protects them all; it spins, so what allocates tables
//! under it may not sleep. [`map_frames`], which may be large, gives the lock back instead,
//! and comes back with tables.

use ::x86_64::{registers::control::Cr3, structures::paging::PageTableFlags as Flags};
use arrayvec::ArrayVec;
pub use kernel_early::tables::{MapError, Mapping};
use kernel_early::{
    handover::Handover,
    layout::{MMIO, MMIO_END, PAGE_SIZE, page_down, page_up, phys_to_virt},
    tables::AddressSpace,
};
use spin::Once;

use crate::{
    memory::{self, Purpose},
    smp,
    sync::{IrqLock, PageTables},
};

struct Kernel {
    space: AddressSpace,
    /// Next free address for device registers.
    mmio_next: u64,
}

static KERNEL: Once<IrqLock<Kernel, PageTables>> = Once::new();
static ROOT: Once<u64> = Once::new();

/// What mapped memory may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read only, never executed.
    Read,
    /// Read and written, never executed.
    ReadWrite,
    /// Read and executed, never written.
    Execute,
}

impl Access {
    fn flags(self) -> Flags {
        Flags::GLOBAL
            | match self {
                Self::Read => Flags::NO_EXECUTE,
                Self::ReadWrite => Flags::NO_EXECUTE | Flags::WRITABLE,
                Self::Execute => Flags::empty(),
            }
    }
}

/// Takes over the tables that early code built. Boot CPU, once.
pub fn init(handover: &Handover) {
    // SAFETY: early code built these tables for the kernel and uses them no more; from here
    // on only the holder of KERNEL changes them.
    let space = unsafe { AddressSpace::new(handover.root_table) };
    ROOT.call_once(|| handover.root_table);
    KERNEL.call_once(|| {
        IrqLock::new(Kernel {
            space,
            mmio_next: MMIO,
        })
    });
}

fn kernel() -> &'static IrqLock<Kernel, PageTables> {
    KERNEL.get().expect("paging is used before paging::init")
}

fn table_frame() -> Option<u64> {
    memory::take_pages(1, Purpose::PageTables, None).map(zeroed)
}

fn zeroed(frame: u64) -> u64 {
    // SAFETY: the frame was just handed to the caller alone and the physical map shows it.
    unsafe { core::ptr::write_bytes(phys_to_virt(frame) as *mut u64, 0, 512) };
    frame
}

/// Maps frames to adjacent pages from `virt` on, as far as there are frames. Task context; may
/// sleep. Interrupts are off for a table's worth of pages at a time at most. Nobody else maps
/// here.
///
/// # Errors
///
/// [`MapError`]: nothing of it is mapped, nor in any TLB.
pub fn map_frames(
    virt: u64,
    frames: &mut dyn Iterator<Item = u64>,
    access: Access,
) -> Result<(), MapError> {
    let mut frames = frames.peekable();
    // Tables for the three levels below the root, in case they are missing.
    let mut spare = ArrayVec::<u64, 3>::new();
    let mut at = virt;
    let mut result = Ok(());
    while frames.peek().is_some() {
        let mapped = {
            let mut kernel = kernel().lock();
            let mut tables = || spare.pop();
            let space = &mut kernel.space;
            space.map_frames(at, &mut frames, access.flags(), &mut tables)
        };
        match mapped {
            Ok(pages) => at += pages * PAGE_SIZE,
            Err(MapError::OutOfFrames) if refill(&mut spare) => {}
            Err(error) => {
                if let MapError::Occupied(there) = error {
                    at = there;
                }
                result = Err(error);
                break;
            }
        }
    }
    for table in spare {
        // SAFETY: taken by `refill` and not used.
        unsafe { memory::give_pages(table, 1, Purpose::PageTables) };
    }
    if result.is_err() && at > virt {
        // A CPU may have looked ahead: what it remembers goes, too.
        clear(virt, at - virt);
        smp::flush_tlb(virt, at - virt);
    }
    result
}

/// Gets tables until `spare` is full. Whether it is. May sleep.
fn refill<const N: usize>(spare: &mut ArrayVec<u64, N>) -> bool {
    while !spare.is_full() {
        match table_frame() {
            Some(table) => spare.push(table),
            None => return false,
        }
    }
    true
}

/// Removes what [`map_frames`] mapped in `virt..virt+len`. CPUs may go on using it until
/// [`smp::flush_tlb`].
pub fn clear(virt: u64, len: u64) {
    /// As much as a table has.
    const PIECE: u64 = 512 * PAGE_SIZE;
    let (mut at, end) = (virt, virt + len);
    while at < end {
        let piece = PIECE.min(end - at);
        kernel().lock().space.clear(at, piece);
        at += piece;
    }
}

/// Maps memory to `virt..` read only: every page of the range shows the one page at `phys`.
/// For ever, since the range's tables may be shared.
///
/// # Errors
///
/// [`MapError`]; nothing is promised about the part before the error.
pub fn map_to_one(virt: u64, len: u64, phys: u64) -> Result<(), MapError> {
    let flags = Access::Read.flags();
    kernel()
        .lock()
        .space
        .map_to_one(virt, len, phys, flags, &mut table_frame)
}

/// Maps memory for reading and writing.
///
/// # Errors
///
/// [`MapError`]; nothing is promised about the part before the error.
pub fn map_memory(virt: u64, phys: u64, len: u64) -> Result<(), MapError> {
    let flags = Access::ReadWrite.flags();
    kernel()
        .lock()
        .space
        .map(virt, phys, len, flags, &mut table_frame)
}

/// Maps the device registers at `phys..phys+len`, uncached, and returns their address.
/// They stay mapped for ever.
///
/// # Errors
///
/// [`MapError`]; `OutOfFrames` also when the address range is used up.
pub fn map_device(phys: u64, len: u64) -> Result<u64, MapError> {
    let flags = Access::ReadWrite.flags() | Flags::NO_CACHE | Flags::WRITE_THROUGH;
    let mut kernel = kernel().lock();
    let start = page_down(phys);
    let size = page_up(phys + len) - start;
    let virt = kernel.mmio_next;
    if MMIO_END - virt < size {
        return Err(MapError::OutOfFrames);
    }
    kernel
        .space
        .map(virt, start, size, flags, &mut table_frame)?;
    // One page stays free behind each, so that running over an end faults.
    kernel.mmio_next = virt + size + PAGE_SIZE;
    Ok(virt + (phys - start))
}

/// Changes the permissions of mapped memory, on every CPU before it returns.
///
/// # Errors
///
/// [`MapError`]; pages before the error have their new permissions.
pub fn protect(virt: u64, len: u64, access: Access) -> Result<(), MapError> {
    let result = kernel()
        .lock()
        .space
        .protect(virt, len, access.flags(), &mut table_frame);
    smp::flush_tlb(virt, len);
    result
}

/// Removes a mapping, on every CPU before it returns. The memory is the caller's again.
///
/// # Errors
///
/// [`MapError`]; pages before the error are unmapped.
pub fn unmap(virt: u64, len: u64) -> Result<(), MapError> {
    let result = kernel().lock().space.unmap(virt, len, &mut table_frame);
    smp::flush_tlb(virt, len);
    result
}

/// What `virt` maps to.
pub fn lookup(virt: u64) -> Option<Mapping> {
    kernel().lock().space.lookup(virt)
}

/// [`lookup`] without the lock, for reports and panics: the answer may be out of date.
pub fn peek(virt: u64) -> Option<Mapping> {
    let root = *ROOT.get()?;
    // SAFETY: tables are never freed and entries change atomically (aligned words), so a
    // walk beside a change sees the old or the new mapping. Nothing is written through this.
    unsafe { AddressSpace::new(root) }.lookup(virt)
}

/// Physical address of the level 4 table.
pub fn root() -> u64 {
    *ROOT.get().expect("paging is used before paging::init")
}

/// Makes an address space that shows the kernel's half, and one low page at its physical
/// address for executing: what a CPU that starts in real mode needs on its way up. Returns
/// the root's physical address, which is below 4 GiB.
///
/// # Errors
///
/// [`MapError`].
pub fn make_start_up_space(low_page: u64) -> Result<u64, MapError> {
    let root = memory::take_page_below_4g(Purpose::PageTables).ok_or(MapError::OutOfFrames)?;
    let root = zeroed(root);
    // SAFETY: a zeroed frame of our own is a valid empty table.
    let mut space = unsafe { AddressSpace::new(root) };
    space.map(
        low_page,
        low_page,
        PAGE_SIZE,
        Flags::WRITABLE,
        &mut table_frame,
    )?;
    kernel().lock().space.share_upper_half(&mut space);
    Ok(root)
}

/// Switches this CPU to the kernel's address space.
pub fn activate() {
    use ::x86_64::{PhysAddr, registers::control::Cr3Flags, structures::paging::PhysFrame};
    let frame = PhysFrame::containing_address(PhysAddr::new(root()));
    // SAFETY: the kernel's tables map everything that runs.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
}
