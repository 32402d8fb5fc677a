//! Which checks of the page allocator are on from the first page on: the command line's keys
//! `page_poison`, `page_owner` and `fail_page_alloc`.

use kernel_base::cmdline::Faults;
use kernel_early::layout::{PAGE_SIZE, phys_to_virt};
use mm::{
    boot::{Purpose, Request},
    debug::Debug,
    fault::Knobs,
    owner::{self, Entry},
};

use super::{frame_map, take};
use crate::{boot, machine::Kernel};

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
fn knobs(faults: Faults) -> Knobs {
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
