//! From the loader's world to the kernel's: page tables and stack change in one step.

use core::arch::naked_asm;

use kernel_early::handover::Handover;

/// See [`kernel_early::entry::granary_switch`].
///
/// # Safety
///
/// As stated there.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn granary_switch(root: u64, stack_top: u64, handover: &'static Handover) -> ! {
    naked_asm!(
        "cli",
        "mov cr3, rdi",
        // Old global entries may say other things about the same addresses.
        "mov rax, cr4",
        "mov rcx, rax",
        "and rcx, {no_pge}",
        "mov cr4, rcx",
        "mov cr4, rax",
        "mov rsp, rsi",
        "mov rdi, rdx",
        // A zero frame pointer and return address end every backtrace.
        "xor ebp, ebp",
        "push rbp",
        "jmp {main}",
        no_pge = const !(1 << 7),
        main = sym crate::granary_main,
    )
}
