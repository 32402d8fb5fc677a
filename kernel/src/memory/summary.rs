//! What `mem` shows: every byte of the firmware's map, by what it is used for.

use core::fmt::{self, Write};

use mm::boot::{Purpose, State};
use mm::frame::USES;
use mm::mm::Counts;
use mm::region::Region;
use mm::{PAGE_SIZE, Use};

use super::{frame_map, mm, with_frames};
use crate::{heap, percpu_area};

/// Who has how much, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// In use since boot, by purpose.
    pub boot: [u64; Purpose::ALL.len()],
    /// Allocated, by use.
    pub used: [u64; USES],
    /// Free, in the page allocator.
    pub free: u64,
    /// Free, in CPUs' page lists.
    pub listed: u64,
    /// Found damaged and kept out of use.
    pub bad: u64,
    /// Free, but at addresses that are too high.
    pub too_high: u64,
    /// Not the kernel's.
    pub reserved: u64,
    /// All that the firmware reported.
    pub total: u64,
}

impl Shares {
    /// What there is now. If memory is allocated or freed meanwhile, the parts may not add
    /// up; it is tried a few times.
    pub fn now() -> Self {
        /// Enough, unless allocations never stop.
        const TRIES: usize = 16;
        let mut shares = Self::once();
        for _ in 1..TRIES {
            if shares.sum() == shares.total {
                break;
            }
            shares = Self::once();
        }
        shares
    }

    fn once() -> Self {
        let counts: Counts = mm().counts();
        let end = frame_map::end().phys();
        with_frames(|frames| Self {
            boot: core::array::from_fn(|i| frames.bytes(State::Used(Purpose::ALL[i]))),
            used: counts.used.map(|frames| frames.wrapping_mul(PAGE_SIZE)),
            free: counts.free * PAGE_SIZE,
            listed: counts.listed * PAGE_SIZE,
            bad: counts.bad * PAGE_SIZE,
            too_high: frames
                .free()
                .filter_map(|region| region.above(end))
                .map(Region::size)
                .sum(),
            reserved: frames.bytes(State::Reserved),
            total: frames.total(),
        })
    }

    /// The sum of the parts.
    pub fn sum(&self) -> u64 {
        let parts = self.boot.iter().chain(&self.used).chain([
            &self.free,
            &self.listed,
            &self.bad,
            &self.too_high,
            &self.reserved,
        ]);
        parts.fold(0, |sum, bytes| sum.wrapping_add(*bytes))
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |what: &str, name: &dyn fmt::Display, bytes: u64| {
            write!(f, "{what}{name:<w$} ", w = 24 - what.len())?;
            writeln!(f, "{:>12} KiB", bytes >> 10)
        };
        for (purpose, bytes) in Purpose::ALL.iter().zip(self.boot) {
            line("boot: ", purpose, bytes)?;
        }
        for (usage, bytes) in Use::ALL.iter().zip(self.used) {
            line("used: ", &usage.name(), bytes)?;
        }
        line("free", &"", self.free)?;
        line("free, in page lists", &"", self.listed)?;
        if self.bad > 0 {
            line("damaged", &"", self.bad)?;
        }
        if self.too_high > 0 {
            line("too high", &"", self.too_high)?;
        }
        line("reserved", &"", self.reserved)?;
        line("total", &"", self.total)?;
        if self.sum() != self.total {
            writeln!(f, "THE PARTS MAKE {} KiB", self.sum() >> 10)?;
        }
        Ok(())
    }
}

/// Physical memory by range, and by what it is used for.
pub fn print_summary(out: &mut dyn Write) {
    // Copied out, so that the console is not written with the accounts locked.
    let ranges = with_frames(|frames| frames.regions().to_vec());
    let _ = show(out, &ranges, &Shares::now());
}

fn show(out: &mut dyn Write, ranges: &[(Region, State)], shares: &Shares) -> fmt::Result {
    writeln!(out, "{:<35} {:>14}  what", "physical range", "KiB")?;
    for (range, state) in ranges {
        write!(
            out,
            "{:#016x}-{:#016x}  {:>14}  ",
            range.start(),
            range.end() - 1,
            range.size() >> 10
        )?;
        match state {
            State::Free => writeln!(out, "page allocator")?,
            State::Reserved => writeln!(out, "reserved")?,
            State::Used(purpose) => writeln!(out, "{purpose}")?,
        }
    }
    writeln!(out, "\n{shares}")?;
    writeln!(out, "per-CPU, dynamic {}", percpu_area::Summary)?;
    let (heap_used, heap_free) = heap::usage();
    writeln!(
        out,
        "boot heap        {:>12} KiB used, {} KiB free",
        heap_used >> 10,
        heap_free >> 10
    )
}
