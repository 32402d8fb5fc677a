//! The way from the monitor's 32-bit entry to [`crate::boot_main`], and from there
//! to the kernel.

use core::arch::global_asm;

global_asm!(
    // Type 18 is XEN_ELFNOTE_PHYS32_ENTRY: start here, in 32-bit mode, paging off.
    ".pushsection .note.pvh, \"a\", @note",
    ".balign 4",
    ".long 4, 4, 18",
    ".asciz \"Xen\"",
    ".long pvh_start",
    ".popsection",
    //
    ".pushsection .text.pvh_start, \"ax\"",
    ".code32",
    ".global pvh_start",
    "pvh_start:",
    "cli",
    "cld",
    "mov esp, offset stack_top",
    "mov ebp, ebx", // hvm_start_info
    // Cleared here and not only by the loader: after a reset it holds old tables.
    "mov edi, offset bss_start",
    "mov ecx, offset bss_end",
    "sub ecx, edi",
    "shr ecx, 2",
    "xor eax, eax",
    "rep stosd",
    // Long mode, or a word about its absence.
    "mov eax, 0x80000000",
    "cpuid",
    "cmp eax, 0x80000001",
    "jb 3f",
    "mov eax, 0x80000001",
    "cpuid",
    "bt edx, 29",
    "jnc 3f",
    // Identity map of the first 4 GiB: writable pages of 2 MiB.
    "mov dword ptr [early_level_4], offset early_level_3 + 3",
    "mov edi, offset early_level_3",
    "mov eax, offset early_level_2 + 3",
    "mov ecx, 4",
    "2: mov [edi], eax",
    "add edi, 8",
    "add eax, 4096",
    "loop 2b",
    "mov edi, offset early_level_2",
    "mov eax, 0x83",
    "mov ecx, 4 * 512",
    "2: mov [edi], eax",
    "add edi, 8",
    "add eax, 0x200000",
    "loop 2b",
    // Control registers as UEFI leaves them, so that the kernel finds the same on
    // both roads. CR4: DE, PAE, MCE, OSFXSR, OSXMMEXCPT.
    "mov eax, 0x668",
    "mov cr4, eax",
    "mov eax, offset early_level_4",
    "mov cr3, eax",
    "mov ecx, 0xc0000080", // EFER
    "rdmsr",
    "or eax, 0x100", // LME
    "wrmsr",
    "mov eax, 0x80010033", // CR0: PG, WP, NE, ET, MP, PE
    "mov cr0, eax",
    "lgdt [gdt_pointer]",
    "push 0x08",
    "mov eax, offset long_mode",
    "push eax",
    "retf",
    //
    "3: mov esi, offset no_long_mode",
    "mov dx, 0x3f8",
    "2: lodsb",
    "test al, al",
    "jz 2f",
    "out dx, al",
    "jmp 2b",
    "2: mov dx, 0xf4",
    "mov eax, 0x12",
    "out dx, eax",
    "2: hlt",
    "jmp 2b",
    "no_long_mode:",
    ".asciz \"granary-boot: this processor has no 64-bit mode\\r\\n\"",
    //
    ".code64",
    "long_mode:",
    "mov eax, 0x10",
    "mov ss, eax",
    "mov ds, eax",
    "mov es, eax",
    "xor eax, eax",
    "mov fs, eax",
    "mov gs, eax",
    "mov esp, offset stack_top",
    "lidt [no_idt]",
    "mov edi, ebp",
    "xor ebp, ebp",
    "call {main}",
    "ud2",
    // Without a table every exception ends in a reset: there is none to expect here.
    ".balign 8",
    "no_idt: .quad 0, 0",
    ".popsection",
    //
    // The kernel's tables map this page at the same address, read-only.
    ".pushsection .switch, \"ax\"",
    "gdt:",
    ".quad 0",
    // Code and data of ring 0, marked as accessed so that the processor need not.
    ".quad 0x00af9b000000ffff",
    ".quad 0x00cf93000000ffff",
    "gdt_pointer: .word 23",
    ".quad gdt",
    ".global enter_kernel",
    "enter_kernel:",
    "mov cr3, rsi",
    "mov rsp, rdx",
    "xor ebp, ebp",
    // A return address of 0 ends backtraces, and puts the stack where a function
    // expects it.
    "push 0",
    "jmp rcx",
    ".popsection",
    //
    ".pushsection .bss.early_tables, \"aw\", @nobits",
    ".balign 4096",
    ".global early_level_4",
    "early_level_4: .skip 4096",
    "early_level_3: .skip 4096",
    "early_level_2: .skip 4 * 4096",
    ".popsection",
    main = sym crate::boot_main,
);

unsafe extern "sysv64" {
    /// Loads the kernel's page tables and stack and jumps to its entry point.
    ///
    /// # Safety
    ///
    /// `level_4` must be the physical address of tables that map the page of this
    /// function at its own address, the stack, the entry point and `boot_info`.
    pub fn enter_kernel(boot_info: u64, level_4: u64, stack_top: u64, entry: u64) -> !;
}
