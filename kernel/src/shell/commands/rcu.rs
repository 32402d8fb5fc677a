//! The command that shows RCU, and what CPUs are doing.

use alloc::string::String;
use core::fmt::Write;

use platform::{CpuId, CpuMask};

use crate::arch::nmi_backtrace;
use crate::console::Writer;
use crate::rcu::{last_stall, rcu};
use crate::shell::{Args, Status, bad_argument, shell_command};
use crate::{smp, time};

shell_command! {
    name: "rcu",
    usage: "[sync|expedited|barrier]",
    summary: "show grace periods, the tree and callbacks, or wait for a grace period",
    details: "Without an argument: the grace periods so far, what each node of the tree waits \
for, each\nCPU's callbacks by segment, and how long grace periods took.\nsync: waits for a grace \
period, expedited: for an expedited one, barrier: until all\ncallbacks queued so far have run; \
each says how long that took.",
    arguments: (0, 1),
    complete: |offer| WAYS.iter().for_each(|(name, _)| offer(name)),
    run: show,
}

/// Ways to wait, by name.
const WAYS: [(&str, fn()); 3] = [
    ("sync", || rcu().synchronize()),
    ("expedited", || rcu().synchronize_expedited()),
    ("barrier", || rcu().barrier()),
];

fn show(arguments: Args<'_>) -> Status {
    let Some(wanted) = arguments.first().map(String::as_str) else {
        // Piece by piece: the console is not locked for all of it.
        let _ = write!(Writer, "{}", rcu().text());
        show_last_stall();
        return Status::SUCCESS;
    };
    let Some((name, wait)) = WAYS.iter().find(|(name, _)| *name == wanted) else {
        return bad_argument("rcu", wanted, "one of sync, expedited, barrier");
    };
    let start = time::now_ns();
    wait();
    let ns = time::now_ns() - start;
    crate::println!("rcu: {name} took {}.{:03} us", ns / 1_000, ns % 1_000);
    Status::SUCCESS
}

fn show_last_stall() {
    let Some(last) = last_stall() else { return };
    let ago = (time::now_ns() - last.at_ns) / 1_000_000;
    crate::print!("last of {} stall reports {ago} ms ago: ", last.count);
    crate::print!("CPUs {:?}", last.cpus);
    if let Some(thread) = last.on_cpu {
        crate::print!(" (thread {thread} on the first)");
    }
    if let Some(thread) = last.switched_away {
        crate::print!(", switched-away thread {thread}");
    }
    crate::println!();
}

shell_command! {
    name: "backtrace",
    usage: "[CPU]",
    summary: "show what a CPU is doing, or all of them",
    details: "Thread, context and stack of what an NMI comes upon there; it goes on unharmed.",
    arguments: (0, 1),
    run: backtrace,
}

fn backtrace(arguments: Args<'_>) -> Status {
    let cpus = match arguments.first() {
        None => smp::online(),
        Some(argument) => {
            let cpu = argument.parse().ok().and_then(CpuId::new);
            match cpu.filter(|cpu| smp::online().contains(*cpu)) {
                Some(cpu) => CpuMask::only(cpu),
                None => return bad_argument("backtrace", argument, "the number of an online CPU"),
            }
        }
    };
    let Some(answers) = nmi_backtrace::ask(cpus) else {
        crate::println!("backtrace: somebody else is being shown stacks");
        return Status::FAILURE;
    };
    answers.print();
    Status::from_bool(cpus.iter().all(|cpu| answers.of(cpu).is_some()))
}
