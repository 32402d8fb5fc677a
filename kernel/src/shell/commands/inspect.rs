//! Commands that show what the kernel knows.

use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::arch::percpu::PerCpuCell;
use crate::console::Writer;
use crate::shell::{Args, Status, bad_argument, shell_command};
use crate::{boot, klog, memory, sched, schedule, smp, softirq, symbols, time};

shell_command! {
    name: "mem",
    usage: "",
    summary: "show physical memory by kind and use, and the boot heap",
    arguments: (0, 0),
    run: |_| {
        memory::print_summary(&mut Writer);
        Status::SUCCESS
    },
}

shell_command! {
    name: "dmesg",
    usage: "",
    summary: "show the kernel log",
    arguments: (0, 0),
    run: |_| {
        klog::dump(&mut Writer);
        Status::SUCCESS
    },
}

shell_command! {
    name: "uptime",
    usage: "",
    summary: "show the time since the kernel was entered",
    arguments: (0, 0),
    run: uptime,
}

fn uptime(_: Args<'_>) -> Status {
    let us = time::now_ns() / 1_000;
    let cpus = smp::online().count();
    crate::println!("up {}.{:06} s, {cpus} CPUs", us / 1_000_000, us % 1_000_000);
    Status::SUCCESS
}

shell_command! {
    name: "cpus",
    usage: "",
    summary: "show CPUs, their nodes, interrupts, switches and deferred work",
    arguments: (0, 0),
    run: cpus,
}

fn cpus(_: Args<'_>) -> Status {
    let topology = boot::topology();
    crate::println!(
        "cpu  node  state         call  reschedule  shootdown         rcu         nmi       timer"
    );
    for cpu in smp::cpus() {
        let state = if smp::online().contains(cpu) {
            "online"
        } else {
            "offline"
        };
        let counts = smp::ipi_counts(cpu);
        crate::println!(
            "{:>3}  {:>4}  {state:<7}  {:>9}  {:>10}  {:>9}  {:>10}  {:>10}  {:>10}",
            cpu.number(),
            topology.node_of(cpu).number(),
            counts.call,
            counts.reschedule,
            counts.shootdown,
            counts.rcu,
            counts.nmi,
            counts.timer,
        );
    }
    crate::println!("cpu  switches  deferred  softirqs in interrupts  in threads");
    // Relaxed: statistics.
    let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
    for cpu in smp::online() {
        crate::println!(
            "{:>3}  {:>8}  {:>8}  {:>22}  {:>10}",
            cpu.number(),
            read(sched::SWITCHES.on(cpu)),
            read(smp::DEFERRED.on(cpu)),
            read(softirq::RUN_IN_INTERRUPT.on(cpu)),
            read(softirq::RUN_IN_THREAD.on(cpu)),
        );
    }
    if schedule::is_on() {
        crate::println!("cpu  seeded yields  delays  interrupts");
        for cpu in smp::online() {
            crate::println!(
                "{:>3}  {:>13}  {:>6}  {:>10}",
                cpu.number(),
                read(schedule::YIELDS.on(cpu)),
                read(schedule::DELAYS.on(cpu)),
                read(schedule::INTERRUPTS.on(cpu)),
            );
        }
    }
    Status::SUCCESS
}

shell_command! {
    name: "symbol",
    usage: "ADDRESS|NAME",
    summary: "look up a symbol by address (0x...) or by name",
    arguments: (1, 1),
    run: symbol,
}

fn symbol(arguments: Args<'_>) -> Status {
    let what = arguments.first().map_or("", String::as_str);
    if let Some(digits) = what.strip_prefix("0x") {
        // `from_str_radix` alone would take a sign.
        let digits = if digits.starts_with('+') { "" } else { digits };
        let Ok(address) = u64::from_str_radix(digits, 16) else {
            return bad_argument("symbol", what, "an address of up to 16 hexadecimal digits");
        };
        let Some(symbol) = symbols::resolve(address) else {
            crate::println!("symbol: {address:#x} is in no function of the kernel");
            return Status::FAILURE;
        };
        crate::println!("{address:#018x} {symbol}");
        return Status::SUCCESS;
    }
    let Some(address) = symbols::lookup(what) else {
        crate::println!("symbol: nothing is called '{}'", what.escape_debug());
        return Status::FAILURE;
    };
    crate::println!("{address:#018x} {what}");
    Status::SUCCESS
}

shell_command! {
    name: "ramdisk",
    usage: "",
    summary: "show the members of the ramdisk",
    arguments: (0, 0),
    run: ramdisk,
}

fn ramdisk(_: Args<'_>) -> Status {
    let Some(ramdisk) = boot::ramdisk() else {
        crate::println!("ramdisk: there is none");
        return Status::FAILURE;
    };
    for (name, data) in ramdisk.members() {
        crate::println!("{:>10}  {name}", data.len());
    }
    crate::println!("{:>10}  bytes in all", ramdisk.size());
    Status::SUCCESS
}
