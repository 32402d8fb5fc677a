//! Commands for the checks of the page allocator.

use alloc::string::String;
use alloc::vec::Vec;

use mm::Pfn;

use crate::console::Writer;
use crate::memory::debug::{self, Caller};
use crate::memory::mm;
use crate::sched::table;
use crate::shell::{Args, Status, bad_argument, shell_command};
use crate::time;

shell_command! {
    name: "fault",
    usage: "[page [KNOB VALUE]]",
    summary: "show or set which allocations of pages fail on purpose",
    details: "KNOB is one of those shown, with the meanings that Linux gives them: of the points \
that `min-order` and `ignore-gfp-wait` leave, and of marked threads only if `task` marks some \
(NAME, NUMBER, +NUMBER, -NUMBER, off), those beyond `space` pages fail with `probability` \
percent, each `interval`-th, `times` times (-1: no end). `nth` makes exactly the n-th from now \
fail. `verbose` 1 or 2 tells of each.",
    arguments: (0, 3),
    complete: |offer| {
        for word in [
            "page", "probability", "interval", "times", "space", "verbose", "nth", "seed", "task",
            "min-order", "ignore-gfp-wait",
        ] {
            offer(word);
        }
    },
    run: fault,
}

fn fault(arguments: Args<'_>) -> Status {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] | ["page"] => {
            // Copied out: the knobs are not used while the console is waited for.
            let text = mm().debug().faults(|page| alloc::format!("{page}"));
            crate::print!("{text}");
            Status::SUCCESS
        }
        ["page", "task", who] => set_task(who),
        ["page", knob, value] => set(knob, value),
        ["page", knob] => {
            crate::println!("fault: '{}' needs a value", knob.escape_debug());
            Status::USAGE
        }
        [kind, ..] => bad_argument("fault", kind, "page"),
    }
}

fn set(knob: &str, value: &str) -> Status {
    match mm().debug().faults(|page| page.set(knob, value)) {
        Ok(()) => Status::SUCCESS,
        Err(error) => {
            crate::println!("fault: {error}");
            Status::USAGE
        }
    }
}

/// Marks threads: by number as the knob has it, or all of a name.
fn set_task(who: &str) -> Status {
    let is_knob = |text: &str| {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        text == "off" || digits.starts_with(|c: char| c.is_ascii_digit())
    };
    if is_knob(who) {
        return set("task", who);
    }
    let mut found = false;
    for thread in table::all().iter().filter(|thread| *thread.name == *who) {
        let sign = if found { "+" } else { "" };
        let status = set("task", &alloc::format!("{sign}{}", thread.id));
        if status != Status::SUCCESS {
            return status;
        }
        found = true;
    }
    if !found {
        crate::println!("fault: no thread is called '{}'", who.escape_debug());
    }
    Status::from_bool(found)
}

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
