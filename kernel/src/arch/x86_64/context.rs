//! From one thread's stack to another's.
//!
//! The kernel uses no floating point, and the rest of a thread's registers are either saved
//! by the caller of [`switch_to`] (the calling convention) or here, on its own stack.

use core::arch::naked_asm;

/// What a stack holds from its saved pointer upwards while its thread does not run.
#[repr(C)]
struct Saved {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    rbx: u64,
    rbp: u64,
    rip: u64,
}

/// Prepares the stack that ends at `top`, so that the first switch to it calls `entry` with
/// interrupts off. Returns the stack pointer to save.
///
/// # Safety
///
/// The stack must be mapped, 16-byte aligned, and used for nothing else.
pub unsafe fn prepare(top: u64, entry: extern "C" fn() -> !) -> u64 {
    // One word below the top ends backtraces: a frame record of zeros is there as well.
    let words = top - 16;
    // At a function's entry the stack is 8 below a multiple of 16, its return address there.
    let saved = (words - 8 - size_of::<Saved>() as u64) as *mut Saved;
    // SAFETY: inside the caller's stack.
    unsafe {
        (words as *mut [u64; 2]).write([0, 0]);
        ((words - 8) as *mut u64).write(0);
        saved.write(Saved {
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            rbx: 0,
            rbp: 0,
            rip: entry as *const () as u64,
        });
    }
    saved as u64
}

/// The frame pointer and return address of a stack saved at `rsp`: where its backtrace
/// begins.
///
/// # Safety
///
/// `rsp` was saved by [`switch_to`] or [`prepare`], and its thread does not run meanwhile.
pub unsafe fn saved_frame(rsp: u64) -> (u64, u64) {
    // SAFETY: as the caller promises.
    let saved = unsafe { &*(rsp as *const Saved) };
    (saved.rip, saved.rbp)
}

/// Bytes of a stack that its saved pointer points to.
pub const SAVED_LEN: u64 = size_of::<Saved>() as u64;

/// [`saved_frame`] of a stack that may be in use meanwhile: then it is any two numbers.
///
/// # Safety
///
/// [`SAVED_LEN`] bytes from `rsp` on are mapped, and `rsp` is aligned.
pub unsafe fn saved_frame_now(rsp: u64) -> (u64, u64) {
    let saved = rsp as *const Saved;
    // SAFETY: as the caller promises; read once, whoever writes meanwhile.
    unsafe {
        (
            (&raw const (*saved).rip).read_volatile(),
            (&raw const (*saved).rbp).read_volatile(),
        )
    }
}

/// Saves this thread's registers on its stack and the stack pointer in `*save`, and goes on
/// where the stack `rsp` was left. Returns when somebody switches back.
///
/// # Safety
///
/// Interrupts must be off, and `rsp` saved by this function or made by [`prepare`], to be
/// used once. `save` must stay valid.
#[unsafe(naked)]
pub unsafe extern "C" fn switch_to(save: *mut u64, rsp: u64) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}
