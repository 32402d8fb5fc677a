//! What to do about each vector.

use core::fmt;

use ::x86_64::registers::control::Cr2;
use kernel_early::layout::PAGE_SIZE;
use platform::Context;

use super::{
    apic, backtrace,
    interrupts::{TrapFrame, vector},
    nmi_backtrace,
    percpu::PerCpuCell,
    preempt::{self, Interrupt},
    probe,
    stacks::{self, Owner},
};
use crate::{
    console, lockdep, machine, panic, rcu,
    report::{self, Kind},
    sched, smp, softirq, standstill, sweep, timer,
};

const FETCH: u64 = 1 << 4;
const WRITE: u64 = 1 << 1;
const PRESENT: u64 = 1 << 0;

/// Called by the entry stubs with the interrupted state.
pub extern "C" fn dispatch(frame: &mut TrapFrame) {
    match frame.vector as u8 {
        vector::NMI => {
            preempt::enter(Interrupt::Nmi);
            let eqs = sched::eqs(smp::this_cpu());
            let entered = eqs.nmi_enter();
            nmi(frame);
            lockdep::check_empty(Context::Nmi);
            eqs.nmi_exit(entered);
            preempt::leave(Interrupt::Nmi);
        }
        0..=31 => exception(frame),
        vector => {
            preempt::enter(Interrupt::Hard);
            let eqs = sched::eqs(smp::this_cpu());
            let entered = eqs.irq_enter();
            if entered.from_eqs() {
                preempt::begins_upon_eqs();
            }
            interrupt(vector);
            lockdep::check_empty(Context::HardIrq);
            preempt::leave(Interrupt::Hard);
            if preempt::context() == Context::Task && softirq::is_raised() {
                softirq::run_at_interrupt_end();
            }
            if entered.from_eqs() {
                preempt::ends_upon_eqs();
            }
            eqs.irq_exit(entered);
            // Out of idle nothing is switched to: the idle thread has preemption off.
            sched::preempt_from_interrupt();
        }
    }
}

fn interrupt(number: u8) {
    match number {
        vector::TIMER => {
            smp::TIMERS.add(1);
            apic::end_of_interrupt();
            timer::interrupt();
        }
        vector::SWEEP => {
            apic::end_of_interrupt();
            sweep::interrupt();
        }
        vector::CALL => {
            smp::CALLS.add(1);
            // Ended first: a call that is pushed while the list is served interrupts again.
            apic::end_of_interrupt();
            smp::serve();
        }
        vector::SHOOTDOWN => {
            smp::SHOOTDOWNS.add(1);
            apic::end_of_interrupt();
            smp::serve();
        }
        vector::RESCHEDULE => {
            smp::RESCHEDULES.add(1);
            apic::end_of_interrupt();
            preempt::want_switch();
        }
        vector::DEFERRED => {
            smp::DEFERRED.add(1);
            // Ended first, as for calls.
            apic::end_of_interrupt();
            machine::run_deferred();
        }
        vector::RCU => {
            smp::RCU.add(1);
            apic::end_of_interrupt();
            rcu::interrupted();
        }
        vector::STANDSTILL => {
            apic::end_of_interrupt();
            standstill::interrupt();
        }
        vector::SERIAL => {
            console::receive();
            apic::end_of_interrupt();
        }
        vector::APIC_ERROR => {
            let errors = apic::take_errors();
            apic::end_of_interrupt();
            report::report(Kind::Apic, format_args!("local APIC error {errors:#x}"));
        }
        vector::SPURIOUS => {}
        other => {
            apic::end_of_interrupt();
            report::report(
                Kind::StrayInterrupt,
                format_args!("nobody asked for vector {other:#x}"),
            );
        }
    }
}

fn nmi(frame: &TrapFrame) {
    smp::NMIS.add(1);
    let start = backtrace::Start {
        rip: frame.rip,
        rbp: frame.rbp,
    };
    if panic::in_progress() {
        panic::stop_here(start);
    }
    // Two may have come as one.
    let answered = nmi_backtrace::answer(start);
    if sweep::nmi() || answered {
        return;
    }
    die(frame, format_args!("unexpected NMI (watchdog or operator)"))
}

fn exception(frame: &mut TrapFrame) {
    let address = Cr2::read_raw();
    if probe::fix_up(frame, address) {
        return;
    }
    let vector = frame.vector as u8;
    match vector {
        vector::PAGE_FAULT => page_fault(frame, address),
        vector::DOUBLE_FAULT => double_fault(frame, address),
        _ => die(
            frame,
            format_args!(
                "exception {vector} ({}), error code {:#x}",
                name(vector),
                frame.error_code
            ),
        ),
    }
}

fn page_fault(frame: &TrapFrame, address: u64) -> ! {
    let code = frame.error_code;
    let what = if code & FETCH != 0 {
        "execute"
    } else if code & WRITE != 0 {
        "write"
    } else {
        "read"
    };
    let why = if code & PRESENT != 0 {
        "not permitted there"
    } else if address < PAGE_SIZE {
        "null pointer"
    } else {
        "not mapped"
    };
    die(
        frame,
        format_args!("page fault: {what} of {address:#018x}: {why} (error code {code:#x})"),
    )
}

/// A double fault is nearly always a stack that ran into its guard: the page fault could
/// not push its frame.
fn double_fault(frame: &TrapFrame, address: u64) -> ! {
    let near = |address: u64| stacks::slot_of(address).filter(|slot| slot.is_guard(address));
    match near(address).or_else(|| near(frame.rsp.wrapping_sub(8))) {
        Some(slot) => die(
            frame,
            format_args!(
                "stack overflow: {} ({:#018x}-{:#018x}), access to {address:#018x}",
                Whose(slot.owner),
                slot.stack.bottom,
                slot.stack.top
            ),
        ),
        None => die(
            frame,
            format_args!("exception 8 (double fault), last fault at {address:#018x}"),
        ),
    }
}

/// A stack's owner, in words.
struct Whose(Owner);

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Owner::Cpu(cpu, purpose) => write!(f, "{purpose:?} stack of cpu{cpu}"),
            // SAFETY: its stack is in use: we are on its way out.
            Owner::Thread(address) => match unsafe { sched::table::by_address(address) } {
                Some(thread) => write!(f, "stack of {thread:?}"),
                None => f.write_str("unused thread stack"),
            },
        }
    }
}

fn die(frame: &TrapFrame, text: fmt::Arguments<'_>) -> ! {
    panic::for_exception(&panic::Exception { text, frame })
}

/// An exception's name.
pub fn name(vector: u8) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug exception",
        2 => "NMI",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "invalid opcode",
        7 => "device not available",
        8 => "double fault",
        10 => "invalid TSS",
        11 => "segment not present",
        12 => "stack segment fault",
        13 => "general protection fault",
        14 => "page fault",
        16 => "x87 floating point",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD floating point",
        20 => "virtualisation exception",
        21 => "control protection",
        28..=30 => "hypervisor or security exception",
        _ => "reserved exception",
    }
}
