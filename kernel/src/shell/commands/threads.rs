//! Commands that show threads.

use crate::sched::{self, State, table};
use crate::shell::{Args, Status, shell_command};
use crate::{smp, time};

shell_command! {
    name: "ps",
    usage: "",
    summary: "list the threads",
    details: "STATE: R runs, r ready, S asleep, F taken out of the running (a test that hung), \
E at its end. CPU: where it runs, ran last, or waits; '=' if it is bound there. \
TIME is guest milliseconds.",
    arguments: (0, 0),
    run: ps,
}

fn ps(_: Args<'_>) -> Status {
    crate::println!("  tid  state  prio     cpu   switches         time  name");
    for thread in table::all() {
        let state = thread.state();
        let letter = match state {
            State::Running => 'R',
            State::Ready => 'r',
            State::Asleep => 'S',
            State::Frozen => 'F',
            State::Ended => 'E',
        };
        let mut ran = thread.ran_ns();
        if state == State::Running {
            ran += sched::current_stretch_ns(thread.cpu());
        }
        let priority = if sched::is_idle(&thread) {
            "idle"
        } else {
            match thread.priority() {
                platform::Priority::Low => "low",
                platform::Priority::Normal => "normal",
                platform::Priority::High => "high",
                platform::Priority::Urgent => "urgent",
            }
        };
        let bound = if thread.is_bound() { "=" } else { " " };
        crate::println!(
            "{:>5}  {letter:<5}  {priority:<6} {bound:>1}{:>5}  {:>9}  {:>7}.{:03}  {}",
            thread.id,
            thread.cpu(),
            thread.switches(),
            ran / 1_000_000,
            ran / 1_000 % 1_000,
            thread.name,
        );
    }
    let (used, mapped) = table::stack_usage();
    let waiting: u32 = smp::online().iter().map(sched::ready_count).sum();
    crate::println!(
        "{} threads, {waiting} waiting for a CPU; {used} of {mapped} thread stacks in use; up {} ms",
        table::count(),
        time::now_ns() / 1_000_000
    );
    Status::SUCCESS
}
