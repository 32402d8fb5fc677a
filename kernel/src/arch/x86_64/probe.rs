//! Accesses that may fault. Each has an entry in the exception table: where it may fault,
//! and where to go on. A fault there fills in what happened instead of ending the kernel.

use core::arch::naked_asm;

use super::interrupts::TrapFrame;

/// An exception that a probe met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Its vector.
    pub vector: u8,
    /// Its error code; 0 for those without.
    pub error_code: u64,
    /// The address that faulted, for page faults (else what CR2 held).
    pub address: u64,
}

#[repr(C)]
struct Entry {
    at: u64,
    go_on: u64,
}

unsafe extern "C" {
    static __ex_table_start: Entry;
    static __ex_table_end: Entry;
    static probe_call_return: u8;
    static probe_fixup: u8;
}

/// What a probe returns in rax and rdx. After a fault its output slot says which.
#[repr(C)]
#[derive(Clone, Copy)]
struct Outcome {
    faulted: u64,
    value: u64,
}

/// Handles a fault in a probe: the code goes on behind it. `false` when this was none.
pub fn fix_up(frame: &mut TrapFrame, address: u64) -> bool {
    let go_on = match table().iter().find(|entry| entry.at == frame.rip) {
        Some(entry) => entry.go_on,
        None if called_by_probe(frame) => {
            // The called address itself faulted: its return address is still on the stack.
            frame.rsp += 8;
            &raw const probe_fixup as u64
        }
        None => return false,
    };
    // r8 holds the probe's output slot on every probe (see the code below).
    let slot = frame.r8 as *mut Fault;
    // SAFETY: the table's entries and the call's return address are only in probes, which
    // keep a valid `&mut Fault` in r8.
    unsafe {
        slot.write(Fault {
            vector: frame.vector as u8,
            error_code: frame.error_code,
            address,
        });
    }
    frame.rip = go_on;
    true
}

fn table() -> &'static [Entry] {
    let (start, end) = (&raw const __ex_table_start, &raw const __ex_table_end);
    let len = (end as usize - start as usize) / size_of::<Entry>();
    // SAFETY: the linker puts whole entries between these two symbols, in rodata.
    unsafe { core::slice::from_raw_parts(start, len) }
}

fn called_by_probe(frame: &TrapFrame) -> bool {
    // Only at the callee's very first instruction, whose address is still in rdi: beyond it
    // the callee may have put anything into r8.
    if frame.rip != frame.rdi {
        return false;
    }
    let on_stack = super::stacks::slot_of(frame.rsp)
        .is_some_and(|slot| !slot.is_guard(frame.rsp) && frame.rsp + 8 <= slot.stack.top);
    if !on_stack || !frame.rsp.is_multiple_of(8) || super::paging::peek(frame.rsp).is_none() {
        return false;
    }
    // SAFETY: just seen to be mapped stack memory.
    let top = unsafe { (frame.rsp as *const u64).read() };
    top == &raw const probe_call_return as u64
}

/// A probe: address in rdi, value in rsi, output slot in rdx, kept in r8. The exception that
/// is expected reports the address of `$access`.
macro_rules! probe_function {
    ($(#[$meta:meta])* $name:ident, $before:literal, $access:literal) => {
        $(#[$meta])*
        #[unsafe(naked)]
        unsafe extern "C" fn $name(address: u64, value: u64, fault: *mut Fault) -> Outcome {
            naked_asm!(
                "push rbp",
                "mov rbp, rsp",
                "mov r8, rdx",
                "xor eax, eax",
                "xor edx, edx",
                $before,
                concat!("2: ", $access),
                "pop rbp",
                "ret",
                "3: mov eax, 1",
                "pop rbp",
                "ret",
                ".pushsection .ex_table, \"a\", @progbits",
                ".balign 8",
                ".quad 2b, 3b",
                ".popsection",
            )
        }
    };
}

probe_function!(
    /// Reads eight bytes at rdi.
    probe_read, "", "mov rdx, [rdi]"
);
probe_function!(
    /// Writes the low byte of rsi to rdi.
    probe_write, "", "mov [rdi], sil"
);

probe_function!(
    /// A breakpoint, whose exception reports the address behind it.
    probe_breakpoint, "int3", "nop"
);

/// Calls rdi. A fault in the callee's first instruction comes back here.
#[unsafe(naked)]
unsafe extern "C" fn probe_call(address: u64, value: u64, fault: *mut Fault) -> Outcome {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "mov r8, rdx",
        "xor eax, eax",
        "xor edx, edx",
        "call rdi",
        ".global probe_call_return",
        "probe_call_return:",
        "xor eax, eax",
        "xor edx, edx",
        "pop rbp",
        "ret",
        ".global probe_fixup",
        "probe_fixup:",
        "mov eax, 1",
        "pop rbp",
        "ret",
    )
}

type Probe = unsafe extern "C" fn(u64, u64, *mut Fault) -> Outcome;

fn run(probe: Probe, address: u64, value: u64) -> Result<u64, Fault> {
    let mut fault = Fault {
        vector: 0,
        error_code: 0,
        address: 0,
    };
    // SAFETY: a probe changes nothing beyond what its caller (below) is allowed to ask for,
    // and comes back from a fault with the slot filled in.
    let outcome = unsafe { probe(address, value, &raw mut fault) };
    if outcome.faulted == 0 {
        Ok(outcome.value)
    } else {
        Err(fault)
    }
}

/// Reads eight bytes at any address.
///
/// # Errors
///
/// The fault that this met.
pub fn read_u64(address: usize) -> Result<u64, Fault> {
    run(probe_read, address as u64, 0)
}

/// Writes a byte at an address that is the caller's to write, or that faults.
///
/// # Errors
///
/// The fault that this met.
pub fn write_u8(address: usize, value: u8) -> Result<(), Fault> {
    run(probe_write, address as u64, u64::from(value)).map(|_| ())
}

/// Calls an address at which there is a function `extern "C" fn()`, or that faults.
///
/// # Errors
///
/// The fault that its first instruction met.
pub fn call(address: usize) -> Result<(), Fault> {
    run(probe_call, address as u64, 0).map(|_| ())
}

/// Executes a breakpoint instruction and returns the exception it made.
pub fn breakpoint() -> Option<Fault> {
    run(probe_breakpoint, 0, 0).err()
}
