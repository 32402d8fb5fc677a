//! What the host gives: a file for physical memory, and ranges of addresses.

use core::{ffi::c_void, ptr};
use std::os::fd::OwnedFd;

use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create},
    io,
    mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap},
};

use super::{HostedLayout, PAGE, Piece};
use crate::{
    frame::{Frame, Pfn},
    machine::Access,
    region::Region,
};

/// A range of addresses that is ours until this is dropped.
#[derive(Debug)]
struct Range {
    start: usize,
    bytes: usize,
}

impl Range {
    /// Reserves addresses at a multiple of a page.
    fn reserve(bytes: usize, access: ProtFlags) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping somewhere harms nobody.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), bytes, access, flags)? };
        Ok(Self {
            start: start.expose_provenance(),
            bytes,
        })
    }

    /// A pointer to `bytes` bytes within the range.
    fn at(&self, address: usize, bytes: usize) -> *mut c_void {
        let offset = address.wrapping_sub(self.start);
        assert!(offset <= self.bytes && bytes <= self.bytes - offset);
        ptr::with_exposed_provenance_mut(address)
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        // SAFETY: a mapping of our own; by the rule in the documentation of `hosted` nobody
        // uses it any more.
        let _ = unsafe { munmap(ptr::with_exposed_provenance_mut(self.start), self.bytes) };
    }
}

/// All that a memory is made of.
#[derive(Debug)]
pub(super) struct Mappings {
    file: OwnedFd,
    /// The physical address of the file's first byte.
    first: u64,
    end: Pfn,
    direct: Range,
    frames: Range,
    vmalloc: Range,
}

impl Mappings {
    pub(super) fn new(pieces: &[Piece], vmalloc_bytes: usize) -> io::Result<Self> {
        let first = pieces.first().expect("memory has a node").region.start();
        let last = pieces.last().expect("memory has a node").region.end();
        let file = memfd_create("granary-memory", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, last - first)?;
        let end = Pfn((last / PAGE) as u32);
        let frames_bytes = (end.index() * size_of::<Frame>()).next_multiple_of(PAGE as usize);
        let mappings = Self {
            file,
            first,
            end,
            direct: Range::reserve((last - first) as usize, ProtFlags::empty())?,
            frames: Range::reserve(frames_bytes, ProtFlags::READ)?,
            vmalloc: Range::reserve(vmalloc_bytes, ProtFlags::empty())?,
        };
        for piece in pieces {
            mappings.show(piece.region)?;
        }
        Ok(mappings)
    }

    /// Makes a piece of memory, and its descriptors, appear.
    fn show(&self, region: Region) -> io::Result<()> {
        let (offset, bytes) = (region.start() - self.first, region.size() as usize);
        let at = self.direct.at(self.direct.start + offset as usize, bytes);
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: within the range that is ours for this.
        unsafe { mmap(at, bytes, access, flags, &self.file, offset)? };
        let descriptor = |address: u64| (address / PAGE) as usize * size_of::<Frame>();
        let page = PAGE as usize;
        let from = descriptor(region.start()) / page * page;
        let to = descriptor(region.end()).next_multiple_of(page);
        let at = self.frames.at(self.frames.start + from, to - from);
        let access = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: within the range that is ours for this.
        unsafe { mprotect(at, to - from, access) }
    }

    pub(super) fn layout(&self, id: u64) -> HostedLayout {
        let vmalloc = self.vmalloc.start;
        HostedLayout {
            // Of an address that may not be ours, but below memory nobody asks.
            direct_map: self.direct.start.wrapping_sub(self.first as usize),
            frame_map: self.frames.start,
            vmalloc: (vmalloc, vmalloc + self.vmalloc.bytes),
            id,
        }
    }

    pub(super) fn end(&self) -> Pfn {
        self.end
    }

    /// Makes `count` frames from `frame` on appear at `virt`.
    ///
    /// # Safety
    ///
    /// Nobody uses the pages at `virt`.
    pub(super) unsafe fn map(
        &self,
        virt: usize,
        frame: Pfn,
        count: usize,
        access: Access,
    ) -> io::Result<()> {
        let bytes = count * PAGE as usize;
        let access = match access {
            Access::Read => ProtFlags::READ,
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
            Access::Execute => ProtFlags::READ | ProtFlags::EXEC,
        };
        let (at, offset) = (self.vmalloc.at(virt, bytes), frame.phys() - self.first);
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: within the range that is ours for this, and not used by anybody.
        unsafe { mmap(at, bytes, access, flags, &self.file, offset) }.map(drop)
    }

    /// Makes pages disappear.
    ///
    /// # Safety
    ///
    /// Nobody uses the pages at `virt`.
    pub(super) unsafe fn unmap(&self, virt: usize, count: usize) -> io::Result<()> {
        let bytes = count * PAGE as usize;
        let at = self.vmalloc.at(virt, bytes);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: as in `map`.
        unsafe { mmap_anonymous(at, bytes, ProtFlags::empty(), flags) }.map(drop)
    }
}
