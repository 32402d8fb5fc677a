//! What `mem` shows.

use core::fmt::{self, Write};

use mm::boot::{Purpose, State};
use mm::region::Region;

use super::with_frames;
use crate::{heap, percpu_area};

/// Physical memory by range, and by what it is used for.
pub fn print_summary(out: &mut dyn Write) {
    // The accounts are copied out, so that the console is not written with them locked.
    let (ranges, free, reserved, used, total) = with_frames(|frames| {
        let used: [u64; Purpose::ALL.len()] =
            core::array::from_fn(|i| frames.bytes(State::Used(Purpose::ALL[i])));
        let ranges: alloc::vec::Vec<_> = frames.regions().to_vec();
        (
            ranges,
            frames.bytes(State::Free),
            frames.bytes(State::Reserved),
            used,
            frames.total(),
        )
    });
    let _ = show(out, &ranges, free, reserved, &used, total);
}

fn show(
    out: &mut dyn Write,
    ranges: &[(Region, State)],
    free: u64,
    reserved: u64,
    used: &[u64],
    total: u64,
) -> fmt::Result {
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
            State::Free => writeln!(out, "free")?,
            State::Reserved => writeln!(out, "reserved")?,
            State::Used(purpose) => writeln!(out, "{purpose}")?,
        }
    }
    writeln!(out)?;
    let mut line = |name: &str, bytes: u64| writeln!(out, "{name:<16} {:>12} KiB", bytes >> 10);
    for (purpose, bytes) in Purpose::ALL.iter().zip(used) {
        line(alloc::format!("{purpose}").as_str(), *bytes)?;
    }
    line("free", free)?;
    line("reserved", reserved)?;
    let sum = free + reserved + used.iter().sum::<u64>();
    line("total", total)?;
    if sum != total {
        writeln!(out, "THE PARTS MAKE {} KiB", sum >> 10)?;
    }
    writeln!(
        out,
        "per-CPU, dynamic {:>12} bytes of {} used on each CPU",
        percpu_area::used(),
        percpu_area::SIZE
    )?;
    let (heap_used, heap_free) = heap::usage();
    writeln!(
        out,
        "boot heap        {:>12} KiB used, {} KiB free",
        heap_used >> 10,
        heap_free >> 10
    )
}
