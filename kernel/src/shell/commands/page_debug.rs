//! Commands for the checks of the page allocator; its faults are in [`fault`](super::fault).

use alloc::string::String;

use mm::Pfn;

use crate::console::Writer;
use crate::memory::debug::{self, Caller};
use crate::memory::mm;
use crate::shell::{Args, Status, bad_argument, shell_command};
use crate::time;

shell_command! {
    name: "pagepoison",
    usage: "[on|off]",
    summary: "show or set whether free pages are filled and checked",
    details: "Pages that were freed before it was last switched on are not checked.",
    arguments: (0, 1),
    complete: |offer| ["on", "off"].into_iter().for_each(offer),
    run: poison,
}

fn poison(arguments: Args<'_>) -> Status {
    match arguments.first().map(String::as_str) {
        None => {
            let state = if mm().debug().poison() { "on" } else { "off" };
            crate::println!("page poison is {state}");
        }
        Some("on") => mm().debug().set_poison(true),
        Some("off") => mm().debug().set_poison(false),
        Some(other) => return bad_argument("pagepoison", other, "on or off"),
    }
    Status::SUCCESS
}

shell_command! {
    name: "pageowner",
    usage: "[--mark|--leaks|--blocks|FRAME]",
    summary: "show who allocated the pages in use (with page_owner=on)",
    details: "Without an argument: pages by who allocated them, most first. --mark: --leaks begins \
here. --leaks: what was allocated since the mark and is in use still. --blocks: every block. \
FRAME: what happened last to the frame with this number.",
    arguments: (0, 1),
    complete: |offer| ["--mark", "--leaks", "--blocks"].into_iter().for_each(offer),
    run: owner,
}

fn owner(arguments: Args<'_>) -> Status {
    let owners = mm().debug().owners();
    if !owners.is_on() {
        crate::println!("pageowner: nothing is recorded; boot with page_owner=on");
        return Status::FAILURE;
    }
    let written = match arguments.first().map(String::as_str) {
        None => debug::write_stacks(&mut Writer),
        Some("--leaks") => debug::write_leaks(&mut Writer),
        Some("--blocks") => debug::write_blocks(&mut Writer),
        Some("--mark") => {
            owners.mark();
            Ok(())
        }
        Some(frame) => return one_frame(frame),
    };
    Status::from_bool(written.is_ok())
}

fn one_frame(text: &str) -> Status {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    let Ok(number) = number else {
        return bad_argument(
            "pageowner",
            text,
            "--mark, --leaks, --blocks or a frame's number",
        );
    };
    let Some((head, record)) = mm().debug().owners().last_of(Pfn(number)) else {
        crate::println!("nothing is known of frame {}", Pfn(number));
        return Status::FAILURE;
    };
    let state = if record.in_use { "in use" } else { "free" };
    let usage = record.usage.map_or("unknown", mm::Use::name);
    crate::println!(
        "block of order {} from frame {head}: {state}, {usage}, {}",
        record.order,
        record.gfp
    );
    for (what, event) in [("allocated", record.allocated), ("freed", record.freed)] {
        let Some(event) = event else { continue };
        let age = time::now_ns().saturating_sub(event.at_ns);
        crate::println!(
            "{what} by thread {} on cpu{}, {} us ago:",
            event.thread,
            event.cpu,
            age / 1_000
        );
        for address in event.stack.into_iter().take_while(|address| *address != 0) {
            crate::println!(" {}", Caller(address));
        }
    }
    Status::SUCCESS
}
