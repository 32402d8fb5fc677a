//! The Granary kernel.
//!
//! [`granary_main`] reads as the list of what boot does. Below `arch` nothing names the
//! processor; see `docs/architecture.md` for the rooms and `docs/boot.md` for the state at
//! entry.
#![no_std]
#![no_main]

extern crate alloc;

#[macro_use]
mod console;
mod arch;
mod bench;
mod boot;
mod exit;
mod files;
mod heap;
mod hotplug;
mod klog;
mod kunit;
mod lockdep;
mod machine;
mod memory;
mod panic;
mod percpu_area;
mod rcu;
mod report;
mod sched;
mod schedule;
mod shell;
mod smp;
mod softirq;
mod standstill;
mod sweep;
mod symbols;
mod sync;
mod tests;
mod time;
mod timer;
mod watchdog;

pub use arch::panic_tests;

use kernel_early::handover::Handover;

/// The kernel proper: on its own page tables and stack, interrupts off, one CPU.
#[unsafe(no_mangle)]
extern "C" fn granary_main(handover: &'static Handover) -> ! {
    let entered = arch::tsc::read();
    arch::cpu_local::init_boot();
    boot::read_command_line(handover);
    time::note_entry(entered);
    console::init();
    klog::init(boot::command_line().loglevel);
    boot::greet();
    memory::init(handover);
    arch::paging::init(handover);
    heap::init();
    symbols::init();
    boot::report_command_line_problems();
    boot::discover_machine(handover);
    memory::frame_map::build();
    smp::prepare_boot_cpu();
    memory::hand_over();
    memory::slab::start();
    arch::apic::init(boot::acpi().local_apic).unwrap_or_else(|_| {
        panic!("the local APIC's registers cannot be mapped");
    });
    time::init();
    sched::init();
    arch::irq::enable();
    memory::vmalloc::init();
    memory::slab::join();
    console::enable_receive_interrupt();
    rcu::init();
    memory::slab::set_rcu();
    hotplug::start();
    percpu_area::register_shrinker();
    memory::vmalloc::start_thread();
    schedule::init();
    boot::ready();
    kernel_main()
}

/// What a booted kernel does: the tests, benchmarks or torture it was asked for, or the shell.
/// Debuggers stop here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn kernel_main() -> ! {
    if boot::command_line().kunit.is_some() || boot::command_line().kunit_list {
        kunit::run_from_command_line();
    }
    if boot::command_line().bench.is_some() || boot::command_line().bench_list {
        bench::run_from_command_line();
    }
    if boot::command_line().rcutorture.is_some() {
        rcu::torture::run_from_command_line();
    }
    shell::main()
}
