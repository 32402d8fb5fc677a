//! The kernel's first page tables.

use crate::{Error, PAGE, REACH, frames::Frames};
use core::{mem::MaybeUninit, ops::Range};
use x86_64::{
    PhysAddr, VirtAddr,
    structures::paging::{
        FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags,
        PhysFrame, Size1GiB, Size2MiB, Size4KiB, mapper::MapToError, page_table::PageTableEntry,
    },
};

/// Rights of ordinary data.
pub const DATA: PageTableFlags = PageTableFlags::PRESENT
    .union(PageTableFlags::WRITABLE)
    .union(PageTableFlags::NO_EXECUTE);

/// Page tables under construction, not active yet.
pub struct AddressSpace {
    tables: OffsetPageTable<'static>,
    level_4: PhysFrame,
    physical_offset: u64,
    /// Where page tables and everything mapped by [`Self::map_new`] come from.
    pub frames: Frames,
}

impl AddressSpace {
    /// Starts with nothing mapped.
    ///
    /// # Safety
    ///
    /// The frames must be unused memory, readable and writable at their physical
    /// address plus `physical_offset`, for as long as the result is in use.
    pub unsafe fn new(mut frames: Frames, physical_offset: u64) -> Result<Self, Error> {
        let level_4 = frames.allocate_frame().ok_or(Error::OutOfMemory)?;
        let table =
            (physical_offset + level_4.start_address().as_u64()) as *mut MaybeUninit<PageTable>;
        // SAFETY: the caller vouches for the frame, which nobody else refers to; as
        // uninitialised memory it is valid before it is written.
        let table = unsafe { &mut *table }.write(PageTable::new());
        // SAFETY: the table is empty, and those it will refer to come from `frames`,
        // visible at the offset.
        let tables = unsafe { OffsetPageTable::new(table, VirtAddr::new(physical_offset)) };
        Ok(Self {
            tables,
            level_4,
            physical_offset,
            frames,
        })
    }

    /// Physical address of the level 4 table.
    pub fn level_4(&self) -> u64 {
        self.level_4.start_address().as_u64()
    }

    /// An entry of the level 4 table.
    pub fn level_4_entry(&mut self, index: usize) -> &mut PageTableEntry {
        &mut self.tables.level_4_table_mut()[index]
    }

    fn map_page<S: PageSize>(
        &mut self,
        what: &'static str,
        address: u64,
        frame: u64,
        flags: PageTableFlags,
    ) -> Result<(), Error>
    where
        OffsetPageTable<'static>: Mapper<S>,
    {
        let page = Page::<S>::containing_address(VirtAddr::new(address));
        let frame = PhysFrame::<S>::containing_address(PhysAddr::new(frame));
        // SAFETY: these tables are not active, so no mapping takes effect yet; what the
        // kernel may do with aliases is for the kernel to know.
        match unsafe { self.tables.map_to(page, frame, flags, &mut self.frames) } {
            Ok(flush) => {
                flush.ignore();
                Ok(())
            }
            Err(MapToError::FrameAllocationFailed) => Err(Error::OutOfMemory),
            Err(MapToError::ParentEntryHugePage | MapToError::PageAlreadyMapped(_)) => {
                Err(Error::Mapping {
                    what,
                    address,
                    problem: "overlaps another mapping",
                })
            }
        }
    }

    /// Maps `pages` (page-aligned, canonical) to the frames from `frame` upwards.
    pub fn map_range(
        &mut self,
        what: &'static str,
        pages: Range<u64>,
        frame: u64,
        flags: PageTableFlags,
    ) -> Result<(), Error> {
        for offset in (0..pages.end - pages.start).step_by(PAGE as usize) {
            self.map_page::<Size4KiB>(what, pages.start + offset, frame + offset, flags)?;
        }
        Ok(())
    }

    /// Maps the page at `address` to a new frame that begins with `data` and is
    /// otherwise zero. Returns the frame's physical address.
    pub fn map_new(
        &mut self,
        what: &'static str,
        address: u64,
        data: &[u8],
        flags: PageTableFlags,
    ) -> Result<u64, Error> {
        let data = &data[..data.len().min(PAGE as usize)];
        let frame = self.allocate()?;
        let memory = (self.physical_offset + frame) as *mut u8;
        // SAFETY: the frame is new, so nobody refers to it, and `data` fits into it.
        unsafe {
            memory.copy_from_nonoverlapping(data.as_ptr(), data.len());
            memory
                .add(data.len())
                .write_bytes(0, PAGE as usize - data.len());
        }
        self.map_page::<Size4KiB>(what, address, frame, flags)?;
        Ok(frame)
    }

    /// Maps the page at `address` to a new frame with whatever it holds.
    pub fn map_uninit(
        &mut self,
        what: &'static str,
        address: u64,
        flags: PageTableFlags,
    ) -> Result<(), Error> {
        let frame = self.allocate()?;
        self.map_page::<Size4KiB>(what, address, frame, flags)
    }

    fn allocate(&mut self) -> Result<u64, Error> {
        let frame = FrameAllocator::<Size4KiB>::allocate_frame(&mut self.frames);
        Ok(frame.ok_or(Error::OutOfMemory)?.start_address().as_u64())
    }

    /// Maps physical memory from 0 up to `end` at `address`, both multiples of 2 MiB.
    ///
    /// Up to 4 GiB, where memory types change, in pages of 2 MiB; above in pages of
    /// 1 GiB where that is possible and `gib_pages` says the processor has them.
    pub fn map_physical(&mut self, address: u64, end: u64, gib_pages: bool) -> Result<(), Error> {
        let what = "physical memory";
        let gib_pages = gib_pages && address.is_multiple_of(Size1GiB::SIZE);
        let mut frame = 0;
        while frame < end {
            let page = address + frame;
            if gib_pages && frame >= REACH && end - frame >= Size1GiB::SIZE {
                self.map_page::<Size1GiB>(what, page, frame, DATA)?;
                frame += Size1GiB::SIZE;
            } else {
                self.map_page::<Size2MiB>(what, page, frame, DATA)?;
                frame += Size2MiB::SIZE;
            }
        }
        Ok(())
    }
}
