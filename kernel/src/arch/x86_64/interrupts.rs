//! Interrupt entry: 256 stubs, one way in and out, one descriptor table for all CPUs.
//!
//! A stub makes the stack look the same for every vector (error code, vector), saves the
//! registers, links a frame record so that a backtrace goes on into the interrupted code,
//! and calls `traps::dispatch` with the saved state, which may change it.

use core::{arch::global_asm, cell::UnsafeCell};

use ::x86_64::{
    PrivilegeLevel, VirtAddr,
    structures::idt::{Entry, HandlerFunc, InterruptDescriptorTable},
};

use super::cpu_local::Ist;

/// Exception and interrupt vectors that have names here.
pub mod vector {
    /// Non-maskable interrupt.
    pub const NMI: u8 = 2;
    /// Double fault.
    pub const DOUBLE_FAULT: u8 = 8;
    /// General protection.
    pub const GENERAL_PROTECTION: u8 = 13;
    /// Page fault.
    pub const PAGE_FAULT: u8 = 14;
    /// Machine check.
    pub const MACHINE_CHECK: u8 = 18;
    /// First vector that the legacy interrupt controllers could raise; they are masked.
    pub const LEGACY: u8 = 0x20;
    /// COM1.
    pub const SERIAL: u8 = 0x30;
    /// A vector whose gate is left not present, to provoke that fault.
    pub const ABSENT: u8 = 0x80;
    /// Local APIC timer.
    pub const TIMER: u8 = 0xe0;
    /// Local APIC timer, lent to the interrupt sweep.
    pub const SWEEP: u8 = 0xe1;
    /// Wake-up of another CPU.
    pub const RESCHEDULE: u8 = 0xf0;
    /// Function calls from other CPUs.
    pub const CALL: u8 = 0xf1;
    /// TLB entries to drop.
    pub const SHOOTDOWN: u8 = 0xf2;
    /// Work deferred to the next interrupt.
    pub const DEFERRED: u8 = 0xf3;
    /// RCU waits for the CPU.
    pub const RCU: u8 = 0xf4;
    /// The CPU is to stand still.
    pub const STANDSTILL: u8 = 0xf5;
    /// Local APIC error.
    pub const APIC_ERROR: u8 = 0xfe;
    /// Local APIC spurious.
    pub const SPURIOUS: u8 = 0xff;
}

/// The state of interrupted code, as the entry stub saved it. What is changed here is what
/// the code goes on with.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct TrapFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error_code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl TrapFrame {
    /// The state of the caller itself, for a report that no exception led to. The register
    /// that the compiler chose to point to the result shows that.
    #[inline(always)]
    pub fn capture() -> Self {
        let mut frame = core::mem::MaybeUninit::<Self>::zeroed();
        // SAFETY: stores registers at their places in the frame, which has the layout that
        // the offsets say (checked below), and flags by way of the stack.
        unsafe {
            core::arch::asm!(
                "mov [{frame}], r15",
                "mov [{frame} + 8], r14",
                "mov [{frame} + 16], r13",
                "mov [{frame} + 24], r12",
                "mov [{frame} + 32], r11",
                "mov [{frame} + 40], r10",
                "mov [{frame} + 48], r9",
                "mov [{frame} + 56], r8",
                "mov [{frame} + 64], rbp",
                "mov [{frame} + 72], rdi",
                "mov [{frame} + 80], rsi",
                "mov [{frame} + 88], rdx",
                "mov [{frame} + 96], rcx",
                "mov [{frame} + 104], rbx",
                "mov [{frame} + 112], rax",
                "mov [{frame} + 160], rsp",
                "pushfq",
                "pop {scratch}",
                "mov [{frame} + 152], {scratch}",
                "lea {scratch}, [rip]",
                "mov [{frame} + 136], {scratch}",
                "mov {scratch:e}, cs",
                "mov [{frame} + 144], {scratch}",
                "mov {scratch:e}, ss",
                "mov [{frame} + 168], {scratch}",
                frame = in(reg) frame.as_mut_ptr(),
                scratch = out(reg) _,
            );
            frame.assume_init()
        }
    }
}

const _: () = {
    assert!(core::mem::offset_of!(TrapFrame, rax) == 112);
    assert!(core::mem::offset_of!(TrapFrame, rip) == 136);
    assert!(core::mem::offset_of!(TrapFrame, rsp) == 160);
    assert!(core::mem::offset_of!(TrapFrame, ss) == 168);
};

global_asm!(
    ".pushsection .text.trap_entry, \"ax\", @progbits",
    ".balign 16",
    ".global trap_stubs",
    ".type trap_stubs, @function",
    "trap_stubs:",
    ".set trap_vector, 0",
    ".rept 256",
    ".balign 16",
    // These push an error code themselves (bits of the list: 8, 10-14, 17, 21, 29, 30).
    ".if (trap_vector < 32) && ((0x60227d00 >> trap_vector) & 1)",
    ".else",
    "push 0",
    ".endif",
    "push trap_vector",
    "jmp trap_common",
    ".set trap_vector, trap_vector + 1",
    ".endr",
    ".size trap_stubs, . - trap_stubs",
    "",
    ".balign 16",
    ".global trap_common",
    ".type trap_common, @function",
    "trap_common:",
    "push rax",
    "push rbx",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push rbp",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "cld",
    "mov rdi, rsp",
    // A frame record: interrupted rip as return address, interrupted rbp as its caller's.
    "push [rsp + 17 * 8]",
    "push rbp",
    "mov rbp, rsp",
    // The processor aligned the stack to 16 before pushing, and 24 words followed.
    "call {dispatch}",
    "add rsp, 16",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rbp",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rbx",
    "pop rax",
    "add rsp, 16",
    "iretq",
    ".size trap_common, . - trap_common",
    ".popsection",
    dispatch = sym super::traps::dispatch,
);

unsafe extern "C" {
    static trap_stubs: u8;
}

/// Bytes from one stub to the next.
const STUB: u64 = 16;

/// Address of the entry stub of `vector`.
pub fn stub_address(vector: u8) -> u64 {
    &raw const trap_stubs as u64 + u64::from(vector) * STUB
}

struct Table(UnsafeCell<InterruptDescriptorTable>);
// SAFETY: written by the boot CPU in `init`, before others run; the processor reads it.
unsafe impl Sync for Table {}
static TABLE: Table = Table(UnsafeCell::new(InterruptDescriptorTable::new()));

/// Fills the table. Boot CPU, once, before [`load`].
pub fn init() {
    // SAFETY: only the boot CPU runs, and nothing else refers to the table yet.
    let table = unsafe { &mut *TABLE.0.get() };
    for vector in 0..=255_u8 {
        if vector == vector::ABSENT {
            continue;
        }
        let mut entry = Entry::<HandlerFunc>::missing();
        // SAFETY: the stub saves and restores everything and ends with iretq.
        let options = unsafe { entry.set_handler_addr(VirtAddr::new(stub_address(vector))) };
        options.set_privilege_level(PrivilegeLevel::Ring0);
        // SAFETY: the code selector is the kernel's on every CPU (`cpu_local`), and the
        // interrupt stacks are in every TSS before the CPU loads this table.
        unsafe {
            options.set_code_selector(::x86_64::structures::gdt::SegmentSelector(
                super::cpu_local::KERNEL_CODE,
            ));
            match vector {
                vector::DOUBLE_FAULT => {
                    options.set_stack_index(Ist::DoubleFault as u16);
                }
                vector::NMI => {
                    options.set_stack_index(Ist::Nmi as u16);
                }
                vector::MACHINE_CHECK => {
                    options.set_stack_index(Ist::MachineCheck as u16);
                }
                _ => {}
            }
        }
        set_gate(table, vector, entry);
    }
}

/// Puts an entry at any vector: the crate's table types exceptions one by one, while here
/// every vector has the same kind of stub.
fn set_gate(table: &mut InterruptDescriptorTable, vector: u8, entry: Entry<HandlerFunc>) {
    const { assert!(size_of::<InterruptDescriptorTable>() == 256 * 16) };
    const { assert!(size_of::<Entry<HandlerFunc>>() == 16) };
    let gates = core::ptr::from_mut(table).cast::<Entry<HandlerFunc>>();
    // SAFETY: the table is 256 gates of 16 bytes, all of one layout whatever their handler
    // type (checked above by size), and `table` is borrowed mutably.
    unsafe { gates.add(usize::from(vector)).write(entry) };
}

/// Makes this CPU use the table.
pub fn load() {
    // SAFETY: `init` is over and nothing writes the table any more.
    let table: &'static InterruptDescriptorTable = unsafe { &*TABLE.0.get() };
    table.load();
}
