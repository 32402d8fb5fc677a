//! The end: cause, registers and every CPU's backtrace, whole, whatever state the kernel is
//! in. Takes no lock, allocates nothing; other CPUs are stopped by NMI first.
//!
//! | state of `OWNER` | event | what happens |
//! |---|---|---|
//! | nobody | a CPU panics | it becomes the owner, stops the others, reports, ends |
//! | other CPU | a CPU panics | it waits for the owner's NMI with its registers noted |
//! | own CPU | panics again | one short line, straight to the port, then the end |

use core::{
    fmt::{self, Write},
    panic::PanicInfo,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use kernel_early::serial::RawSerial;
use mm::slab::whatis::What;
use platform::{CpuId, MAX_CPUS};

use crate::{
    arch::{
        apic,
        backtrace::{self, Start},
        cpu,
        interrupts::TrapFrame,
        irq, preempt,
    },
    boot, exit, lockdep, memory, sched, smp, symbols, time,
};

const NOBODY: u32 = u32::MAX;
/// How long the others are waited for, in time and in looks (a clock may not run yet).
const STOP_NS: u64 = 2_000_000_000;
const STOP_LOOKS: u64 = 200_000_000;

static OWNER: AtomicU32 = AtomicU32::new(NOBODY);
/// Where each CPU was when it was stopped; rip 0: it was not.
static STOPPED_RIP: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
static STOPPED_RBP: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
/// Relaxed: set and read by the CPU that panics.
static NESTED_ON_PURPOSE: AtomicBool = AtomicBool::new(false);

/// A panic's cause that is an exception: its name, and what was interrupted.
#[derive(Debug)]
pub struct Exception<'a> {
    /// What happened, in words.
    pub text: fmt::Arguments<'a>,
    /// The state that was interrupted.
    pub frame: &'a TrapFrame,
}

#[panic_handler]
fn on_panic(info: &PanicInfo<'_>) -> ! {
    let frame = TrapFrame::capture();
    match info.location() {
        Some(place) => end(
            format_args!("{} at {}:{}", info.message(), place.file(), place.line()),
            &frame,
        ),
        None => end(format_args!("{}", info.message()), &frame),
    }
}

/// Ends the kernel for an exception that nothing expects.
pub fn for_exception(exception: &Exception<'_>) -> ! {
    end(exception.text, exception.frame)
}

/// Whether a panic is under way; then an NMI means "stop".
pub fn in_progress() -> bool {
    OWNER.load(Ordering::Acquire) != NOBODY
}

/// Stops this CPU for the panicking one, noting where it was. From the NMI handler.
pub fn stop_here(start: Start) -> ! {
    let own = smp::this_cpu().index();
    STOPPED_RBP[own].store(start.rbp, Ordering::Relaxed);
    // Release: who sees the rip sees the rbp.
    STOPPED_RIP[own].store(start.rip, Ordering::Release);
    cpu::halt_forever()
}

/// The next panic panics again while it reports: for the test of that.
pub fn make_next_nested() {
    NESTED_ON_PURPOSE.store(true, Ordering::Relaxed);
}

fn end(cause: fmt::Arguments<'_>, frame: &TrapFrame) -> ! {
    let start = Start {
        rip: frame.rip,
        rbp: frame.rbp,
    };
    irq::disable_forever();
    lockdep::stop();
    // A number that makes no sense must not end the report before it began.
    let own = smp::try_this_cpu().unwrap_or(CpuId::BOOT);
    let mut out = RawSerial::new();
    // AcqRel and Acquire, here and in `in_progress`: who sees the owner sees what it did before.
    match OWNER.compare_exchange(NOBODY, own.number(), Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        Err(owner) if owner == own.number() => {
            let _ = writeln!(out, "\n=== PANIC IN PANIC on cpu{own}: {cause}");
            exit::after_panic();
        }
        Err(_) => stop_here(start),
    }
    stop_others(own);
    // What was being printed when we came ends here; the cause gets a line of its own.
    let _ = writeln!(out, "\n=== KERNEL PANIC on cpu{own}: {cause}");
    if NESTED_ON_PURPOSE.load(Ordering::Relaxed) {
        panic!("the second panic");
    }
    let _ = print_registers(&mut out, frame);
    let _ = print_backtrace(&mut out, own, start);
    for other in smp::online().without(own) {
        // Acquire pairs with the Release in `stop_here`.
        let rip = STOPPED_RIP[other.index()].load(Ordering::Acquire);
        if rip == 0 {
            let _ = writeln!(out, "cpu{other} did not stop");
            continue;
        }
        let rbp = STOPPED_RBP[other.index()].load(Ordering::Relaxed);
        let _ = print_backtrace(&mut out, other, Start { rip, rbp });
    }
    let _ = print_threads(&mut out);
    // Last: should the heap be so broken that looking at it ends in a second panic, all else
    // has been said.
    let _ = print_objects(&mut out, frame);
    let _ = writeln!(out, "=== END OF PANIC");
    exit::after_panic()
}

fn stop_others(own: CpuId) {
    let others = smp::online().without(own);
    for other in others {
        apic::send_nmi(boot::acpi().cpus[other.index()].apic_id);
    }
    let all_stopped = || {
        others
            .iter()
            .all(|cpu| STOPPED_RIP[cpu.index()].load(Ordering::Acquire) != 0)
    };
    let start = time::now_ns();
    for _ in 0..STOP_LOOKS {
        if all_stopped() || time::now_ns() - start > STOP_NS {
            return;
        }
        core::hint::spin_loop();
    }
}

fn print_registers(out: &mut RawSerial, f: &TrapFrame) -> fmt::Result {
    let control = cpu::control_registers();
    writeln!(
        out,
        "rip {:016x}  rsp {:016x}  rflags {:08x}  cs {:04x}  error {:x}",
        f.rip, f.rsp, f.rflags, f.cs, f.error_code
    )?;
    writeln!(
        out,
        "rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}",
        f.rax, f.rbx, f.rcx, f.rdx
    )?;
    writeln!(
        out,
        "rsi {:016x}  rdi {:016x}  rbp {:016x}  r8  {:016x}",
        f.rsi, f.rdi, f.rbp, f.r8
    )?;
    writeln!(
        out,
        "r9  {:016x}  r10 {:016x}  r11 {:016x}  r12 {:016x}",
        f.r9, f.r10, f.r11, f.r12
    )?;
    writeln!(
        out,
        "r13 {:016x}  r14 {:016x}  r15 {:016x}  ss  {:04x}",
        f.r13, f.r14, f.r15, f.ss
    )?;
    writeln!(
        out,
        "cr0 {:016x}  cr2 {:016x}  cr3 {:016x}  cr4 {:016x}",
        control.cr0, control.cr2, control.cr3, control.cr4
    )
}

/// Whose the addresses in registers are, those that lie in slabs.
fn print_objects(out: &mut RawSerial, f: &TrapFrame) -> fmt::Result {
    let Some(slabs) = memory::slab::try_slabs() else {
        return Ok(());
    };
    let registers = [
        ("rax", f.rax),
        ("rbx", f.rbx),
        ("rcx", f.rcx),
        ("rdx", f.rdx),
        ("rsi", f.rsi),
        ("rdi", f.rdi),
        ("rbp", f.rbp),
        ("r8", f.r8),
        ("r9", f.r9),
        ("r10", f.r10),
        ("r11", f.r11),
        ("r12", f.r12),
        ("r13", f.r13),
        ("r14", f.r14),
        ("r15", f.r15),
        ("cr2", cpu::control_registers().cr2),
    ];
    for (name, value) in registers {
        // SAFETY: the other CPUs are stopped. One that did not stop can make the answer wrong;
        // what is found is looked at before it is followed.
        let what = unsafe { slabs.whatis(value as usize) };
        if matches!(what, What::Slab(_) | What::Orphan(..)) {
            writeln!(out, "{name} = {value:#x}: {what}")?;
        }
    }
    Ok(())
}

/// The threads that are not asleep, and how many are.
fn print_threads(out: &mut RawSerial) -> fmt::Result {
    let mut asleep = 0;
    for cpu in smp::online() {
        writeln!(out, "cpu{cpu}: preempt count {:#x}", preempt::of(cpu))?;
    }
    writeln!(out, "threads that run or wait for a CPU:")?;
    let mut result = Ok(());
    let mut show = |thread: &sched::Thread| {
        if thread.state() == sched::State::Asleep {
            asleep += 1;
        } else if result.is_ok() {
            let (cpu, state) = (thread.cpu(), thread.state());
            result = writeln!(out, "  {thread:?} on cpu{cpu}: {state:?}");
        }
    };
    // SAFETY: the other CPUs are stopped, and we end no thread any more.
    let readable = unsafe { sched::table::for_each_now(&mut show) };
    result?;
    if !readable {
        return writeln!(out, "  unknown: their table was being changed");
    }
    writeln!(out, "  and {asleep} asleep")
}

fn print_backtrace(out: &mut RawSerial, cpu: CpuId, start: Start) -> fmt::Result {
    writeln!(out, "backtrace of cpu{cpu}:")?;
    let (mut number, mut result) = (0, Ok(()));
    backtrace::walk(start, |address| {
        // A return address is behind its call; the call itself names the right line.
        let inside = if number == 0 { address } else { address - 1 };
        result = result.and_then(|()| match symbols::resolve(inside) {
            Some(symbol) => writeln!(out, "  #{number} {inside:#018x} {symbol}"),
            None => writeln!(out, "  #{number} {inside:#018x} ?"),
        });
        number += 1;
    });
    result
}
