//! The command that shows what the order checker knows.

use alloc::string::String;
use core::fmt::Write;

use crate::console::Writer;
use crate::lockdep::{self, CHECKER};
use crate::sched::table;
use crate::shell::{Args, Status, bad_argument, shell_command};

shell_command! {
    name: "locks",
    usage: "[--held]",
    summary: "show the order of lock classes that was seen, or who holds what",
    details: "Without an argument: each class of locks that was used, its level, how it was used,\nand the classes taken under it, with the places where that was seen first; then numbers.\n--held: the locks that each thread holds or waits for, the first one first.\nOnly builds that check their locks know.",
    arguments: (0, 1),
    complete: |offer| offer("--held"),
    run: locks,
}

fn locks(arguments: Args<'_>) -> Status {
    let held = match arguments.first().map(String::as_str) {
        None => false,
        Some("--held") => true,
        Some(other) => {
            return bad_argument("locks", other, "an option (only --held and --help are)");
        }
    };
    if !lockdep::ENABLED {
        crate::println!("locks: this build does not check its locks");
        return Status::FAILURE;
    }
    if held {
        show_held();
    } else {
        // Piece by piece: the console is not locked for all of it.
        let _ = write!(Writer, "{CHECKER}");
        crate::println!("{}", CHECKER.statistics());
    }
    Status::SUCCESS
}

/// A glance: threads that run go on meanwhile.
fn show_held() {
    let mut holding = 0;
    for thread in table::all() {
        let Some(held) = thread.held() else { continue };
        if held.depth() == 0 {
            continue;
        }
        holding += 1;
        let _ = write!(Writer, "{:?}, {:?}:\n{held}", &*thread, thread.state());
    }
    crate::println!("{holding} of {} threads hold locks", table::count());
}
