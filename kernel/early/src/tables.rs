//! Page tables: map, protect, unmap, look up, with 4 KiB and 2 MiB pages.
//!
//! Every table is reached through the physical map. Nothing here flushes a TLB and nothing
//! locks: the caller owns the address space and knows who runs on it.

use x86_64::{
    PhysAddr,
    structures::paging::{PageTable, PageTableFlags as Flags, page_table::PageTableEntry},
};

use crate::layout::{PAGE_SIZE, phys_to_virt};

/// A large page, in bytes.
pub const LARGE_PAGE: u64 = 2 << 20;
/// Flags that a caller of [`AddressSpace::map`] may give.
const CALLER: Flags = Flags::WRITABLE
    .union(Flags::NO_EXECUTE)
    .union(Flags::NO_CACHE)
    .union(Flags::WRITE_THROUGH)
    .union(Flags::GLOBAL);

/// Why a mapping operation stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapError {
    /// An address or a length is not page-aligned, or the range wraps around.
    Unaligned,
    /// No frame for a page table.
    OutOfFrames,
    /// Something is mapped at this virtual address already.
    Occupied(u64),
    /// Nothing is mapped at this virtual address.
    Missing(u64),
}

/// What a virtual address maps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// Physical address of the byte asked for.
    pub phys: u64,
    /// Size of the page it is in, in bytes.
    pub size: u64,
    /// Writes are allowed (at every level).
    pub writable: bool,
    /// Instruction fetches are allowed (at every level).
    pub executable: bool,
    /// Kept in the TLB across address space changes.
    pub global: bool,
    /// Not cached.
    pub uncached: bool,
}

/// A source of zeroed frames for page tables.
pub type FrameSource<'a> = &'a mut dyn FnMut() -> Option<u64>;

/// A four-level address space.
///
/// # Invariants
///
/// `root` and every table below it are frames that belong to this address space and are
/// reachable through the physical map.
#[derive(Debug)]
pub struct AddressSpace {
    root: u64,
}

impl AddressSpace {
    /// An address space with the root table `root` (a physical address).
    ///
    /// # Safety
    ///
    /// `root` must hold a valid level 4 table whose tables nobody else changes while this
    /// value is used, and the physical map must be there.
    pub const unsafe fn new(root: u64) -> Self {
        Self { root }
    }

    /// Physical address of the root table, as CR3 wants it.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Maps `virt..virt+len` to `phys..`, in large pages where both sides allow it.
    ///
    /// # Errors
    ///
    /// See [`MapError`]; what was mapped before the error stays mapped.
    pub fn map(
        &mut self,
        virt: u64,
        phys: u64,
        len: u64,
        flags: Flags,
        frames: FrameSource<'_>,
    ) -> Result<(), MapError> {
        if !(virt | phys | len).is_multiple_of(PAGE_SIZE)
            || virt.checked_add(len).is_none() && len != 0
        {
            return Err(MapError::Unaligned);
        }
        let flags = (flags & CALLER) | Flags::PRESENT;
        let mut done = 0;
        while done < len {
            let (at, to) = (virt + done, phys + done);
            let large = (at | to).is_multiple_of(LARGE_PAGE) && len - done >= LARGE_PAGE;
            let level = if large { 2 } else { 1 };
            let entry = self.entry_create(at, level, frames)?;
            if !entry.is_unused() {
                return Err(MapError::Occupied(at));
            }
            if large {
                entry.set_addr(PhysAddr::new(to), flags | Flags::HUGE_PAGE);
                done += LARGE_PAGE;
            } else {
                entry.set_addr(PhysAddr::new(to), flags);
                done += PAGE_SIZE;
            }
        }
        Ok(())
    }

    /// Maps `frames` to adjacent small pages from `virt` on, up to the end of the table that
    /// holds their entries (so at most 512). How many; fewer than fit only if `frames` ended.
    ///
    /// # Errors
    ///
    /// [`MapError::OutOfFrames`]: no frame was taken out of `frames`, and nothing mapped.
    /// [`MapError::Occupied`]: what was mapped before stays mapped.
    pub fn map_frames(
        &mut self,
        virt: u64,
        frames: &mut dyn Iterator<Item = u64>,
        flags: Flags,
        tables: FrameSource<'_>,
    ) -> Result<u64, MapError> {
        if !virt.is_multiple_of(PAGE_SIZE) {
            return Err(MapError::Unaligned);
        }
        let flags = (flags & CALLER) | Flags::PRESENT;
        let places = self.entries_create(virt, tables)?;
        let mut done = 0;
        for (place, frame) in places.iter_mut().zip(frames) {
            if !place.is_unused() {
                return Err(MapError::Occupied(virt + done * PAGE_SIZE));
            }
            place.set_addr(PhysAddr::new(frame), flags);
            done += 1;
        }
        Ok(done)
    }

    /// Removes what [`map_frames`](Self::map_frames) mapped in `virt..virt+len`; pages that
    /// are not mapped stay so. Tables stay.
    pub fn clear(&mut self, virt: u64, len: u64) {
        let (mut at, end) = (virt, virt + len);
        while at < end {
            let table_end = (at / LARGE_PAGE + 1) * LARGE_PAGE;
            let here = table_end.min(end);
            let mut none = || None;
            if let Ok(entries) = self.entries_create(at, &mut none) {
                let count = ((here - at) / PAGE_SIZE) as usize;
                for entry in &mut entries[..count] {
                    entry.set_unused();
                }
            }
            at = here;
        }
    }

    /// Maps every page of `virt..virt+len` to the one page at `phys`. Level 1 tables that show
    /// nothing else are one and the same, so that this takes little memory: nothing in the
    /// range may be mapped, protected or unmapped any more.
    ///
    /// # Errors
    ///
    /// See [`MapError`]; what was mapped before the error stays mapped.
    pub fn map_to_one(
        &mut self,
        virt: u64,
        len: u64,
        phys: u64,
        flags: Flags,
        frames: FrameSource<'_>,
    ) -> Result<(), MapError> {
        let (mut at, end) = (virt, virt + len);
        let mut shared = None;
        while at < end {
            let table_end = (at / LARGE_PAGE + 1) * LARGE_PAGE;
            let here = table_end.min(end);
            if here - at < LARGE_PAGE {
                let mut same = core::iter::repeat_n(phys, ((here - at) / PAGE_SIZE) as usize);
                self.map_frames(at, &mut same, flags, frames)?;
            } else {
                let entry = self.entry_create(at, 2, frames)?;
                if !entry.is_unused() {
                    return Err(MapError::Occupied(at));
                }
                match shared {
                    Some(table) => {
                        entry.set_addr(PhysAddr::new(table), Flags::PRESENT | Flags::WRITABLE);
                    }
                    None => {
                        let mut same = core::iter::repeat(phys);
                        self.map_frames(at, &mut same, flags, frames)?;
                        shared = Some(self.entry_create(at, 2, frames)?.addr().as_u64());
                    }
                }
            }
            at = here;
        }
        Ok(())
    }

    /// Gives `virt..virt+len`, which must be mapped, the permissions `flags`; splits large
    /// pages that reach over an end.
    ///
    /// # Errors
    ///
    /// See [`MapError`]; pages before the error have their new permissions.
    pub fn protect(
        &mut self,
        virt: u64,
        len: u64,
        flags: Flags,
        frames: FrameSource<'_>,
    ) -> Result<(), MapError> {
        self.change(virt, len, frames, &mut |entry| {
            let kept = entry.flags() & (Flags::PRESENT | Flags::HUGE_PAGE);
            entry.set_flags(kept | (flags & CALLER));
        })
    }

    /// Removes the mapping of `virt..virt+len`, which must be mapped. Tables stay.
    ///
    /// # Errors
    ///
    /// See [`MapError`].
    pub fn unmap(&mut self, virt: u64, len: u64, frames: FrameSource<'_>) -> Result<(), MapError> {
        self.change(virt, len, frames, &mut PageTableEntry::set_unused)
    }

    /// What `virt` maps to, walked as the processor would.
    pub fn lookup(&self, virt: u64) -> Option<Mapping> {
        let (mut table, mut writable, mut executable) = (self.root, true, true);
        for level in (1..=4).rev() {
            // SAFETY: by the type's invariant `table` is one of our tables, reachable
            // through the physical map, and `&self` keeps it from changing here.
            let entry = unsafe { &*entry_at(table, virt, level) };
            let flags = entry.flags();
            if !flags.contains(Flags::PRESENT) {
                return None;
            }
            writable &= flags.contains(Flags::WRITABLE);
            executable &= !flags.contains(Flags::NO_EXECUTE);
            let size = level_size(level);
            if level == 1 || flags.contains(Flags::HUGE_PAGE) {
                // Bit 12 of a large entry is a cache attribute, not an address bit.
                let frame = entry.addr().as_u64() & !(size - 1);
                return Some(Mapping {
                    phys: frame + (virt & (size - 1)),
                    size,
                    writable,
                    executable,
                    global: flags.contains(Flags::GLOBAL),
                    uncached: flags.contains(Flags::NO_CACHE),
                });
            }
            table = entry.addr().as_u64();
        }
        None
    }

    /// Copies the upper half (the kernel's) of the root table into `other`'s.
    pub fn share_upper_half(&self, other: &mut AddressSpace) {
        let (from, to) = (phys_to_virt(self.root), phys_to_virt(other.root));
        // SAFETY: both roots are whole tables by the type's invariant, and two address
        // spaces have different roots, so the ranges do not overlap.
        unsafe {
            core::ptr::copy_nonoverlapping(
                (from as *const u64).add(256),
                (to as *mut u64).add(256),
                256,
            );
        }
    }

    fn change(
        &mut self,
        virt: u64,
        len: u64,
        frames: FrameSource<'_>,
        apply: &mut dyn FnMut(&mut PageTableEntry),
    ) -> Result<(), MapError> {
        if !(virt | len).is_multiple_of(PAGE_SIZE) || virt.checked_add(len).is_none() {
            return Err(MapError::Unaligned);
        }
        let mut done = 0;
        while done < len {
            let at = virt + done;
            let size = self.lookup(at).ok_or(MapError::Missing(at))?.size;
            if size == LARGE_PAGE && at.is_multiple_of(LARGE_PAGE) && len - done >= LARGE_PAGE {
                apply(self.entry_create(at, 2, frames)?);
                done += LARGE_PAGE;
                continue;
            }
            if size == LARGE_PAGE {
                self.split(at, frames)?;
            }
            apply(self.entry_create(at, 1, frames)?);
            done += PAGE_SIZE;
        }
        Ok(())
    }

    /// Replaces the large page around `virt` by 512 small ones of the same meaning.
    fn split(&mut self, virt: u64, frames: FrameSource<'_>) -> Result<(), MapError> {
        let table = frames().ok_or(MapError::OutOfFrames)?;
        let entry = self.entry_create(virt, 2, frames)?;
        let base = entry.addr().as_u64() & !(LARGE_PAGE - 1);
        let flags = entry.flags() & (CALLER | Flags::PRESENT);
        // SAFETY: the source promised a zeroed frame of our own, reachable through the
        // physical map.
        let small = unsafe { &mut *(phys_to_virt(table) as *mut PageTable) };
        for (index, page) in small.iter_mut().enumerate() {
            page.set_addr(PhysAddr::new(base + index as u64 * PAGE_SIZE), flags);
        }
        entry.set_addr(PhysAddr::new(table), Flags::PRESENT | Flags::WRITABLE);
        Ok(())
    }

    /// The entries of the small pages from `virt` on, to the end of their table.
    fn entries_create(
        &mut self,
        virt: u64,
        frames: FrameSource<'_>,
    ) -> Result<&mut [PageTableEntry], MapError> {
        let first = core::ptr::from_mut(self.entry_create(virt, 1, frames)?).addr();
        let rest = 512 - (virt / PAGE_SIZE % 512) as usize;
        let first = core::ptr::with_exposed_provenance_mut(first);
        // SAFETY: the entry is the one of `virt` in a table of 512, which is reached through
        // the physical map, and `&mut self` makes this the only reference into it.
        Ok(unsafe { core::slice::from_raw_parts_mut(first, rest) })
    }

    /// The entry of `virt` at `level`, making the tables above it.
    fn entry_create(
        &mut self,
        virt: u64,
        level: u32,
        frames: FrameSource<'_>,
    ) -> Result<&mut PageTableEntry, MapError> {
        let mut table = self.root;
        for above in (level + 1..=4).rev() {
            // SAFETY: `table` is one of our tables (type invariant), and `&mut self` makes
            // this the only reference into it.
            let entry = unsafe { &mut *entry_at(table, virt, above) };
            if entry.is_unused() {
                let frame = frames().ok_or(MapError::OutOfFrames)?;
                // Permissions are decided at the last level.
                entry.set_addr(PhysAddr::new(frame), Flags::PRESENT | Flags::WRITABLE);
            } else if entry.flags().contains(Flags::HUGE_PAGE) {
                return Err(MapError::Occupied(virt));
            }
            table = entry.addr().as_u64();
        }
        // SAFETY: as above.
        Ok(unsafe { &mut *entry_at(table, virt, level) })
    }
}

/// Bytes that one entry of `level` covers.
const fn level_size(level: u32) -> u64 {
    PAGE_SIZE << (9 * (level - 1))
}

/// Where the entry for `virt` stands in the table at physical address `table`.
fn entry_at(table: u64, virt: u64, level: u32) -> *mut PageTableEntry {
    let index = (virt >> (12 + 9 * (level - 1))) & 511;
    (phys_to_virt(table) + index * 8) as *mut PageTableEntry
}
