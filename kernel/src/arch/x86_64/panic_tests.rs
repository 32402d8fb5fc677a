//! Ways to end the kernel on purpose: the shell's `panic` command, for those who want to see
//! a report, and for the tests that check that each comes out whole.

use core::{
    arch::asm,
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{apic, interrupts, irq};
use crate::{console, panic, smp, sync::SpinLock};

type Trigger = fn();

/// Every way, with what it does.
pub const WAYS: &[(&str, &str, Trigger)] = &[
    ("plain", "a Rust panic", plain),
    ("nested", "a panic inside a panic", nested),
    ("irq", "a panic in an interrupt handler", in_interrupt),
    (
        "console-lock",
        "a panic while another CPU holds the console's lock",
        console_lock,
    ),
    (
        "recursive-lock",
        "a lock that is waited for by its holder",
        recursive_lock,
    ),
    ("stack-overflow", "a recursion without end", stack_overflow),
    (
        "thread-overflow",
        "a recursion without end in a thread",
        thread_overflow,
    ),
    ("de", "divide error", divide_error),
    ("db", "debug exception", debug),
    ("nmi", "NMI", nmi),
    ("bp", "breakpoint", breakpoint),
    ("of", "overflow", overflow),
    ("br", "bound range exceeded", bound),
    ("ud", "invalid opcode", invalid_opcode),
    ("object", "invalid opcode, with an object in rdi", object),
    ("nm", "device not available", no_device),
    ("df", "double fault", double_fault),
    (
        "ts",
        "invalid TSS (made up: long mode hardly raises it)",
        invalid_tss,
    ),
    ("np", "segment not present", not_present),
    ("ss", "stack segment fault", stack_segment),
    ("gp", "general protection fault", general_protection),
    ("pf", "page fault", page_fault),
    ("mf", "x87 floating point", x87),
    ("ac", "alignment check (made up: ring 3 only)", alignment),
    ("mc", "machine check (made up)", machine_check),
    ("xm", "SIMD floating point (made up)", simd),
    ("write-text", "a write to kernel text", write_text),
    ("exec-data", "a call into kernel data", exec_data),
    ("null", "a read through a null pointer", null),
];

/// Ends the kernel in the given way.
///
/// # Errors
///
/// [`Ways`], when there is no such one.
pub fn trigger(how: &str) -> Result<(), Ways> {
    let (_, _, way) = WAYS.iter().find(|(name, _, _)| *name == how).ok_or(Ways)?;
    way();
    Ok(())
}

/// Displays the names of all ways, separated by commas.
#[derive(Debug, Clone, Copy)]
pub struct Ways;

impl fmt::Display for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, _, _)) in WAYS.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name}")?;
        }
        Ok(())
    }
}

#[inline(never)]
fn plain() {
    panic!("asked for by the operator");
}

#[inline(never)]
fn nested() {
    panic::make_next_nested();
    panic!("the first panic");
}

#[inline(never)]
fn object() {
    let object = alloc::boxed::Box::new([0_u8; 64]);
    let inside = &raw const object[5];
    // SAFETY: ends the kernel, as asked for.
    unsafe { asm!("ud2", in("rdi") inside) };
}

#[inline(never)]
fn in_interrupt() {
    // On one CPU there is nobody to raise it: then the call is made with interrupts off.
    let own = smp::this_cpu();
    let target = smp::online().without(own).first().unwrap_or(own);
    smp::call_on(target, &|| panic!("in an interrupt handler"));
}

#[inline(never)]
fn console_lock() {
    let own = smp::this_cpu();
    let Some(other) = smp::online().without(own).first() else {
        console::with_lock_held(|| panic!("while the console's lock is held"));
        return;
    };
    // The other CPU panics; this one holds the lock until it is stopped.
    console::with_lock_held(|| {
        smp::call_on(other, &|| {
            panic!("while another CPU holds the console's lock")
        });
    });
}

platform::lock_class! {
    struct TakenTwice = ("taken twice", 40);
}

#[inline(never)]
fn recursive_lock() {
    static LOCK: SpinLock<(), TakenTwice> = SpinLock::new(());
    let _first = LOCK.lock();
    let _second = LOCK.lock();
}

#[inline(never)]
fn thread_overflow() {
    let thread = crate::sched::Builder::new().spawn(format_args!("digger"), stack_overflow);
    if let Ok(thread) = thread {
        thread.join();
    }
}

fn stack_overflow() {
    #[inline(never)]
    fn recurse(depth: u64, goes_on: &AtomicBool) -> u64 {
        let mut room = [depth; 64];
        core::hint::black_box(&mut room);
        if goes_on.load(Ordering::Relaxed) {
            recurse(depth + 1, goes_on) + room[(depth % 64) as usize]
        } else {
            depth
        }
    }
    core::hint::black_box(recurse(0, &AtomicBool::new(true)));
}

/// A function whose body is the given instructions, which raise an exception: the kernel
/// ends in its handler, so what they leave behind is of no account.
macro_rules! raise {
    ($($name:ident: $($code:literal),+;)+) => {$(
        #[inline(never)]
        fn $name() {
            // SAFETY: the instructions end the kernel, which is what was asked for.
            unsafe { asm!($($code),+, out("rax") _, out("rcx") _, out("rdx") _) };
        }
    )+};
}

raise! {
    divide_error: "xor edx, edx", "mov eax, 1", "xor ecx, ecx", "div ecx";
    debug: "int 1";
    breakpoint: "int3";
    overflow: "int 4";
    bound: "int 5";
    invalid_opcode: "ud2";
    // CR0.TS makes the next x87 instruction fault.
    no_device: "mov rax, cr0", "or rax, 8", "mov cr0, rax", "fld1";
    // A page fault whose frame cannot be pushed.
    double_fault: "mov rsp, 0x1000", "push rax";
    not_present: "int 0x80";
    // A segment that is not present, see `cpu_local::ABSENT_DATA`.
    stack_segment: "mov eax, 0x28", "mov ss, eax";
    general_protection: "mov rax, 0x8000000000000000", "mov rcx, [rax]";
    page_fault: "mov rax, 0xffffa00000000000", "mov rcx, [rax]";
    // All x87 exceptions unmasked, then a division by zero, then a wait for it.
    x87: "fninit", "push 0x0340", "fldcw [rsp]", "fld1", "fldz", "fdivp", "fwait";
    machine_check: "int 18";
    simd: "int 19";
    null: "xor eax, eax", "mov rcx, [rax + 8]";
}

#[inline(never)]
fn invalid_tss() {
    raise_with_code(10, 0x28);
}

#[inline(never)]
fn alignment() {
    raise_with_code(17, 0);
}

/// Enters a handler as the processor would for an exception with an error code, which `int`
/// cannot do.
fn raise_with_code(vector: u8, code: u64) {
    let stub = interrupts::stub_address(vector);
    // SAFETY: pushes the frame that the processor would, on a 16-byte boundary, and jumps to
    // the stub; the handler ends the kernel.
    unsafe {
        asm!(
            "mov rax, rsp",
            "and rsp, -16",
            "mov ecx, ss",
            "push rcx",
            "push rax",
            "pushfq",
            "mov ecx, cs",
            "push rcx",
            "lea rcx, [rip + 2f]",
            "push rcx",
            "push {code}",
            "jmp {stub}",
            "2:",
            "mov rsp, rax",
            code = in(reg) code,
            stub = in(reg) stub,
            out("rax") _,
            out("rcx") _,
        );
    }
}

#[inline(never)]
fn nmi() {
    apic::send_nmi(apic::id());
    loop {
        core::hint::spin_loop();
    }
}

#[inline(never)]
fn write_text() {
    let text = plain as *const () as *mut u8;
    // SAFETY: it faults, which is what was asked for.
    unsafe { text.write_volatile(0xcc) };
}

#[inline(never)]
fn exec_data() {
    static DATA: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0xc3);
    // SAFETY: data is never executable, so the call faults, which is what was asked for.
    let function: extern "C" fn() = unsafe { core::mem::transmute(&raw const DATA) };
    function();
}

/// Resets the processor by an exception that it has no table for.
pub fn triple_fault() -> ! {
    use ::x86_64::{VirtAddr, instructions::tables::lidt, structures::DescriptorTablePointer};
    irq::disable_forever();
    // SAFETY: the machine is to be reset; an empty table makes the next exception do that.
    unsafe {
        lidt(&DescriptorTablePointer {
            limit: 0,
            base: VirtAddr::zero(),
        });
        asm!("ud2", options(noreturn));
    }
}
