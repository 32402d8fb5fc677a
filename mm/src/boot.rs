//! Who has which frames during boot, until the page allocator takes over.
//!
//! First [`FirmwareMap`] takes the ranges that the boot loader reports, in any
//! order and with overlaps: what one entry says is reserved is reserved, even
//! if another says it is usable. [`BootFrames`] is made of it and hands out
//! pages from the top down, so that low memory, which some devices and the
//! start of other CPUs need, stays free.
//!
//! One table holds the state of every byte: free, reserved, or used for a
//! [`Purpose`]. So they always add up to what the firmware reported.
//!
//! In the end what is free goes to the page allocator ([`handover`]). The accounts stay, and
//! *free* means the allocator's from then on.
//!
//! | from | to | by |
//! |---|---|---|
//! | nothing | free, reserved | [`FirmwareMap::add`] |
//! | free | reserved | [`BootFrames::new`]: page 0, parts of pages |
//! | free | used | [`BootFrames::alloc`] |
//! | free, reserved | used | [`BootFrames::claim`] |
//! | used | free, reserved (parts of pages) | [`BootFrames::release`] |

pub mod handover;

use core::fmt;

use crate::PAGE_SIZE;
use crate::region::{Full, PHYSICAL_LIMIT, Region, RegionMap};

/// What the firmware says of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirmwareKind {
    /// Memory that the kernel may use.
    Usable,
    /// Anything else.
    Reserved,
}

/// What frames are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Page tables.
    PageTables,
    /// The heap of early boot.
    BootHeap,
    /// The CPUs' own areas.
    PerCpu,
    /// Stacks.
    Stacks,
    /// The ramdisk.
    Ramdisk,
    /// The image of the kernel.
    Kernel,
    /// Where other CPUs start.
    Trampoline,
    /// Descriptors of page frames.
    FrameMap,
    /// Anything else.
    Other,
}

impl Purpose {
    /// All purposes, in the order in which they are shown.
    pub const ALL: [Purpose; 9] = [
        Purpose::Kernel,
        Purpose::Ramdisk,
        Purpose::PageTables,
        Purpose::BootHeap,
        Purpose::PerCpu,
        Purpose::Stacks,
        Purpose::Trampoline,
        Purpose::FrameMap,
        Purpose::Other,
    ];
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PageTables => "page tables",
            Self::BootHeap => "boot heap",
            Self::PerCpu => "per-CPU areas",
            Self::Stacks => "stacks",
            Self::Ramdisk => "ramdisk",
            Self::Kernel => "kernel",
            Self::Trampoline => "trampoline",
            Self::FrameMap => "frame map",
            Self::Other => "other",
        })
    }
}

/// The state of a byte of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In a page that can be handed out.
    Free,
    /// Not the kernel's.
    Reserved,
    /// Handed out.
    Used(Purpose),
}

/// What the firmware reports, while it is being read. `N` bounds the number of
/// separate regions; see [`BootFrames`].
#[derive(Clone, Debug, Default)]
pub struct FirmwareMap<const N: usize> {
    map: RegionMap<State, N>,
}

impl<const N: usize> FirmwareMap<N> {
    /// A map of nothing.
    pub const fn new() -> Self {
        Self {
            map: RegionMap::new(),
        }
    }

    /// Adds a range. After [`Full`] the map is as it was: usable memory may
    /// then be left out with a warning, but a reserved range that is left out
    /// might be handed out.
    pub fn add(&mut self, region: Region, kind: FirmwareKind) -> Result<(), Full> {
        match kind {
            FirmwareKind::Usable => self.map.fill(region, State::Free),
            FirmwareKind::Reserved => self.map.paint(region, State::Reserved),
        }
    }
}

/// A wish for frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// How many pages, in one piece; at least 1.
    pub pages: u64,
    /// What the address must be a multiple of, in bytes: a power of two; less
    /// than a page counts as a page.
    pub align: u64,
    /// The address at which the piece may begin at the earliest.
    pub from: u64,
    /// The address at which the piece must end at the latest.
    pub below: u64,
}

impl Request {
    /// `pages` pages anywhere.
    pub const fn pages(pages: u64) -> Self {
        Self {
            pages,
            align: PAGE_SIZE,
            from: 0,
            below: PHYSICAL_LIMIT,
        }
    }

    /// The same below `limit`: 1 MiB for the trampoline, 4 GiB for devices
    /// with 32-bit addresses.
    pub const fn below(self, limit: u64) -> Self {
        Self {
            below: limit,
            ..self
        }
    }

    /// The same, but also inside `region`.
    pub const fn within(self, region: Region) -> Self {
        let (start, end) = (region.start(), region.end());
        Self {
            from: if start > self.from { start } else { self.from },
            below: if end < self.below { end } else { self.below },
            ..self
        }
    }

    /// The same at a multiple of `align`.
    pub const fn aligned(self, align: u64) -> Self {
        Self { align, ..self }
    }
}

/// Why frames cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// No free piece is large enough and where it should be.
    NoMemory,
    /// The wish is for 0 pages, or its alignment is not a power of two.
    BadRequest,
    /// There is no memory at this address.
    NotInMap(u64),
    /// The byte at this address is used already.
    InUse(u64, Purpose),
    /// The table is full.
    Full,
}

impl From<Full> for FrameError {
    fn from(Full: Full) -> Self {
        Self::Full
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("no free memory of this size and place"),
            Self::BadRequest => f.write_str("0 pages, or an alignment that is no power of two"),
            Self::NotInMap(address) => write!(f, "no memory at {address:#x}"),
            Self::InUse(address, purpose) => write!(f, "{address:#x} is used for {purpose}"),
            Self::Full => fmt::Display::fmt(&Full, f),
        }
    }
}

impl core::error::Error for FrameError {}

/// The frames of the machine during boot; at most `N` separate regions.
///
/// # Invariants
/// Free regions start and end at pages. The regions cover, at any time, exactly
/// what the [`FirmwareMap`] covered.
#[derive(Clone, Debug)]
pub struct BootFrames<const N: usize> {
    map: RegionMap<State, N>,
}

impl<const N: usize> BootFrames<N> {
    /// Takes over what the firmware reported. Parts of pages become reserved,
    /// and so does the first page: the BIOS keeps data there, and address 0
    /// should not be that of anything.
    pub fn new(firmware: FirmwareMap<N>) -> Result<Self, Full> {
        let mut map = firmware.map;
        let mut address = 0;
        while let Some(&(region, state)) = map
            .entries()
            .iter()
            .find(|(region, _)| region.end() > address)
        {
            address = region.end();
            if state != State::Free {
                continue;
            }
            let whole = region.above(PAGE_SIZE).and_then(Region::page_align_inwards);
            match whole {
                None => map.paint(region, State::Reserved)?,
                Some(whole) => {
                    for part in [region.below(whole.start()), region.above(whole.end())] {
                        part.map_or(Ok(()), |part| map.paint(part, State::Reserved))?;
                    }
                }
            }
        }
        // INVARIANT: only states were changed, and every free region aligned.
        Ok(Self { map })
    }

    /// Hands out the highest piece that meets `request`; gives its address. The
    /// frames hold whatever was in them.
    pub fn alloc(&mut self, request: Request, purpose: Purpose) -> Result<u64, FrameError> {
        let align = request.align.max(PAGE_SIZE);
        if request.pages == 0 || !align.is_power_of_two() {
            return Err(FrameError::BadRequest);
        }
        let size = request
            .pages
            .checked_mul(PAGE_SIZE)
            .ok_or(FrameError::NoMemory)?;
        let found = self.free().rev().find_map(|free| {
            let part = free.below(request.below)?.above(request.from)?;
            let start = part.end().checked_sub(size)? / align * align;
            (start >= part.start()).then_some(start)
        });
        let start = found.ok_or(FrameError::NoMemory)?;
        let region = Region::with_size(start, size).ok_or(FrameError::NoMemory)?;
        // INVARIANT: start and size are those of pages.
        self.map.paint(region, State::Used(purpose))?;
        Ok(start)
    }

    /// Marks memory that was given a purpose before there was a table: the
    /// kernel's image, the ramdisk. It may be free or reserved, but must be
    /// there and not used yet. Free pages are taken whole.
    pub fn claim(&mut self, region: Region, purpose: Purpose) -> Result<(), FrameError> {
        for (part, state) in self.map.parts(region) {
            match state {
                Some(State::Free | State::Reserved) => {}
                Some(State::Used(by)) => return Err(FrameError::InUse(part.start(), by)),
                None => return Err(FrameError::NotInMap(part.start())),
            }
        }
        // INVARIANT: a page that is free is free as a whole, so taking its
        // rest too leaves no part of it free.
        let pages = region.page_align_outwards();
        let free = |address| self.map.kind_at(address) == Some(State::Free);
        let start = if free(pages.start()) {
            pages.start()
        } else {
            region.start()
        };
        let end = if free(pages.end() - 1) {
            pages.end()
        } else {
            region.end()
        };
        let taken = Region::new(start, end).unwrap_or(region);
        self.map.paint(taken, State::Used(purpose))?;
        Ok(())
    }

    /// Gives back all memory of a purpose: whole pages become free, parts of
    /// pages reserved. Says how many bytes became free.
    pub fn release(&mut self, purpose: Purpose) -> Result<u64, Full> {
        let mut freed = 0;
        loop {
            let Some(region) = self.regions_of(State::Used(purpose)).next() else {
                return Ok(freed);
            };
            let Some(whole) = region.page_align_inwards() else {
                self.map.paint(region, State::Reserved)?;
                continue;
            };
            for part in [region.below(whole.start()), region.above(whole.end())] {
                part.map_or(Ok(()), |part| self.map.paint(part, State::Reserved))?;
            }
            self.map.paint(whole, State::Free)?;
            freed += whole.size();
        }
    }

    /// The free regions by ascending address; whole pages.
    pub fn free(&self) -> impl DoubleEndedIterator<Item = Region> + '_ {
        self.regions_of(State::Free)
    }

    /// The regions in `state` by ascending address.
    pub fn regions_of(&self, state: State) -> impl DoubleEndedIterator<Item = Region> + '_ {
        let entries = self.map.entries().iter();
        entries
            .filter(move |(_, known)| *known == state)
            .map(|&(region, _)| region)
    }

    /// All regions with their states, by ascending address.
    pub fn regions(&self) -> &[(Region, State)] {
        self.map.entries()
    }

    /// The state of the byte at `address`; `None` where there is no memory.
    pub fn state_at(&self, address: u64) -> Option<State> {
        self.map.kind_at(address)
    }

    /// The number of bytes in `state`.
    pub fn bytes(&self, state: State) -> u64 {
        self.map.bytes_where(|known| known == state)
    }

    /// The number of bytes that the firmware reported: free, reserved and used.
    pub fn total(&self) -> u64 {
        self.map.bytes_where(|_| true)
    }
}

impl<const N: usize> fmt::Display for BootFrames<N> {
    /// Writes a line for each state that occurs, with its size in KiB.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &dyn fmt::Display, bytes: u64| {
            if bytes == 0 {
                Ok(())
            } else {
                writeln!(f, "{name:<14}{:>12} KiB", bytes.div_ceil(1024))
            }
        };
        line(&"free", self.bytes(State::Free))?;
        for purpose in Purpose::ALL {
            line(&purpose, self.bytes(State::Used(purpose)))?;
        }
        line(&"reserved", self.bytes(State::Reserved))?;
        line(&"total", self.total())
    }
}
