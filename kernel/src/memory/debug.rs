//! Which checks of the page allocator are on from the first page on (the command line's keys
//! `page_poison`, `page_owner` and `fail_page_alloc`), and who has pages, as text.

use alloc::vec::Vec;
use core::fmt;

use kernel_base::cmdline::Faults;
use kernel_early::layout::{PAGE_SIZE, phys_to_virt};
use mm::{
    boot::{Purpose, Request},
    debug::Debug,
    fault::Knobs,
    owner::{self, Entry, Group, Groups, Owners},
};

use super::{frame_map, mm, take};
use crate::{boot, machine::Kernel, symbols, time};

/// The checks, as the command line wants them. Takes memory from the accounts of boot: before
/// the hand-over.
pub(super) fn from_command_line() -> Debug<Kernel> {
    let line = boot::command_line();
    let debug = Debug::off();
    debug.set_poison(line.page_poison);
    if line.page_owner {
        start_owners(&debug);
    }
    if let Some(faults) = line.fail_page_alloc {
        debug.faults(|page| page.attr.configure(&knobs(faults)));
    }
    debug
}

fn start_owners(debug: &Debug<Kernel>) {
    let frames = frame_map::end().index();
    let bytes = owner::bytes_for(frames) as u64;
    let request = Request::pages(bytes.div_ceil(PAGE_SIZE));
    let Some(phys) = take(request, Purpose::FrameMap, None) else {
        log::warn!(
            "memory: no {} MiB to record the owners of pages in",
            bytes >> 20
        );
        return;
    };
    let table = phys_to_virt(phys) as *mut Entry;
    // SAFETY: memory that was just taken and is never given back, large enough and aligned to
    // a page; all zeros are valid entries.
    let entries = unsafe {
        core::ptr::write_bytes(table.cast::<u8>(), 0, bytes as usize);
        core::slice::from_raw_parts(table, frames)
    };
    debug.start_owners(entries);
    log::info!(
        "memory: owners of pages are recorded, in {} KiB",
        bytes >> 10
    );
}

/// The knobs that the command line gives; each failure is told of in a line.
pub(super) fn knobs(faults: Faults) -> Knobs {
    Knobs {
        interval: faults.interval,
        probability: faults.probability,
        space: faults.space,
        // The command line has no greater ones.
        times: faults.times.map_or(-1, |times| times as i32),
        verbose: 1,
        ..Knobs::OFF
    }
}

/// Stacks that are told apart in a listing.
const GROUPS: usize = 512;
/// What is written where there is no record.
const IS_OFF: &str = "nothing is recorded; boot with page_owner=on";

/// Writes every block in use, with who allocated it. May sleep.
///
/// # Errors
///
/// Those of `out`.
pub fn write_blocks(out: &mut dyn fmt::Write) -> fmt::Result {
    let owners = mm().debug().owners();
    if !owners.is_on() {
        return writeln!(out, "{IS_OFF}");
    }
    owners.write_blocks(out, &|out, address| write!(out, "{}", Caller(address)))
}

/// Writes the blocks in use by who allocated them. May sleep.
///
/// # Errors
///
/// Those of `out`.
pub fn write_stacks(out: &mut dyn fmt::Write) -> fmt::Result {
    write_groups(out, |owners, room| owners.group(0, room))
}

/// Writes what was allocated since [`Owners::mark`] and is in use still, by who allocated it.
/// May sleep.
///
/// # Errors
///
/// Those of `out`.
pub fn write_leaks(out: &mut dyn fmt::Write) -> fmt::Result {
    write_groups(out, |owners, room| owners.leaks(room))
}

fn write_groups(
    out: &mut dyn fmt::Write,
    collect: impl for<'a> FnOnce(&Owners<Kernel>, &'a mut [Group]) -> Groups<'a>,
) -> fmt::Result {
    let owners = mm().debug().owners();
    if !owners.is_on() {
        return writeln!(out, "{IS_OFF}");
    }
    let mut room = Vec::new();
    if room.try_reserve_exact(GROUPS).is_err() {
        return writeln!(out, "no memory for a listing");
    }
    room.resize(GROUPS, Group::EMPTY);
    let groups = collect(owners, &mut room);
    groups.write(out, time::now_ns(), &|out, address| {
        write!(out, "{}", Caller(address))
    })?;
    let (pages, stacks) = (groups.pages(), groups.groups.len());
    writeln!(out, "{pages} pages of {stacks} allocators")
}

/// A return address by the function that it is in.
pub struct Caller(pub usize);

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It is behind its call, which may be the function's last instruction.
        match symbols::resolve(self.0 as u64 - 1) {
            Some(symbol) => write!(f, "{symbol}"),
            None => write!(f, "{:#x}", self.0),
        }
    }
}
