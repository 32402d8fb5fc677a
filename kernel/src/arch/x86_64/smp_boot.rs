//! Starting the other CPUs: INIT, start-up, and the code that takes a CPU from real mode to
//! the kernel.
//!
//! One page below 1 MiB holds that code and its parameters. CPUs are started one after the
//! other; each reads its parameters, says so by going online, and only then the next one's
//! are written. The page, the address space that it starts in and the CPUs' stacks are made
//! once and kept, for CPUs that go offline and start again.

use core::{
    arch::global_asm,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use kernel_early::layout::{PAGE_SIZE, phys_to_virt};
use platform::{CpuId, CpuMask};
use spin::Once;

use super::{
    apic, cpu,
    cpu_local::{self, CpuTables},
    interrupts, paging, stacks,
};
use crate::{boot, hotplug, memory, sched, smp, time};

/// Wait between INIT and start-up: processors of the 1990s wanted 10 ms; QEMU and today's
/// need none, but a short one costs nothing that shows.
const AFTER_INIT_NS: u64 = 200_000;
/// How long a CPU may take to come up. On a busy host a virtual CPU may not run for long.
const ONLINE_NS: u64 = 10_000_000_000;
/// After this long the start-up interrupt is sent once more, as the manuals ask.
const RETRY_NS: u64 = 1_000_000;

// Offsets of the parameters at the page's end; the code below uses the same numbers.
const PARAM_ROOT: u64 = 0xfe0;
const PARAM_STACK: u64 = 0xfe8;
const PARAM_ENTRY: u64 = 0xff0;

global_asm!(
    ".pushsection .ap_trampoline, \"a\", @progbits",
    ".global ap_trampoline_start",
    "ap_trampoline_start:",
    ".code16",
    "cli",
    "cld",
    "mov ax, cs",
    "mov ds, ax",
    // ebx = linear address of the page.
    "xor ebx, ebx",
    "mov bx, ax",
    "shl ebx, 4",
    // The GDT pointer and the far jump need linear addresses: patch them in place.
    "lea eax, [ebx + ap_gdt_at]",
    "mov dword ptr [ap_gdt_pointer_at + 2], eax",
    "lea eax, [ebx + ap_long_at]",
    "mov dword ptr [ap_far_at], eax",
    "lgdt [ap_gdt_pointer_at]",
    // PAE, page tables, long mode and NX, then paging and protection in one step.
    "mov eax, 0x20",
    "mov cr4, eax",
    "mov eax, dword ptr [0xfe0]",
    "mov cr3, eax",
    "mov ecx, 0xc0000080",
    "rdmsr",
    "or eax, 0x900",
    "wrmsr",
    "mov eax, 0x80010011",
    "mov cr0, eax",
    ".byte 0x66, 0xff, 0x2e", // jmp far dword ptr [disp16]
    ".short ap_far_at",
    ".balign 8",
    "ap_far:",
    ".long 0",
    ".short 0x08",
    ".balign 8",
    "ap_gdt_pointer:",
    ".short 23",
    ".long 0",
    ".balign 8",
    "ap_gdt:",
    ".quad 0",
    ".quad 0x00af9a000000ffff",
    ".quad 0x00cf92000000ffff",
    ".code64",
    "ap_long:",
    "mov ax, 0x10",
    "mov ds, ax",
    "mov es, ax",
    "mov ss, ax",
    "mov rsp, qword ptr [rbx + 0xfe8]",
    "xor ebp, ebp",
    "push rbp",
    "jmp qword ptr [rbx + 0xff0]",
    ".set ap_far_at, ap_far - ap_trampoline_start",
    ".set ap_gdt_at, ap_gdt - ap_trampoline_start",
    ".set ap_gdt_pointer_at, ap_gdt_pointer - ap_trampoline_start",
    ".set ap_long_at, ap_long - ap_trampoline_start",
    ".global ap_trampoline_end",
    "ap_trampoline_end:",
    ".popsection",
);

unsafe extern "C" {
    static ap_trampoline_start: u8;
    static ap_trampoline_end: u8;
}

/// The CPU that is being started, for its first Rust code.
static STARTING: AtomicU32 = AtomicU32::new(0);

/// Page and address space that CPUs start in; `None`: there is no memory for them.
static TRAMPOLINE: Once<Option<Trampoline>> = Once::new();

// Relaxed in both of these: only who holds the hotplug lock uses them.

/// CPUs that were reset and not started since.
static RESET: AtomicU64 = AtomicU64::new(0);
/// CPUs that have their stacks.
static WITH_STACKS: AtomicU64 = AtomicU64::new(0);

fn apic_id(cpu: CpuId) -> u32 {
    boot::acpi().cpus[cpu.index()].apic_id
}

/// Resets CPUs that do not run, so that they wait to be started.
pub fn reset(cpus: CpuMask) {
    for cpu in cpus {
        apic::send_init(apic_id(cpu));
    }
    if !cpus.is_empty() {
        time::spin_ns(AFTER_INIT_NS);
    }
    RESET.fetch_or(cpus.bits(), Ordering::Relaxed);
}

/// Makes the stacks of a CPU, unless it has them.
///
/// # Errors
///
/// No memory; the CPU cannot be started then, now or later.
pub fn make_stacks(cpu: CpuId) -> Result<(), &'static str> {
    const NO_MEMORY: &str = "no memory for its stacks";
    if has(&WITH_STACKS, cpu) {
        return Ok(());
    }
    stacks::allocate(stacks::Use::Main, cpu).map_err(|_| NO_MEMORY)?;
    cpu_local::make_ist_stacks(cpu).map_err(|_| NO_MEMORY)?;
    WITH_STACKS.fetch_or(CpuMask::only(cpu).bits(), Ordering::Relaxed);
    Ok(())
}

/// Starts a CPU that does not run and has its stacks, and returns when it is online. `give_up`:
/// says whether it need not be waited for any longer, after a long time; then it does not come.
///
/// # Errors
///
/// It does not come.
pub fn start(cpu: CpuId, give_up: impl Fn() -> bool) -> Result<(), &'static str> {
    let page = TRAMPOLINE.call_once(Trampoline::prepare);
    let page = page
        .as_ref()
        .ok_or("no memory below 1 MiB for start-up code")?;
    if !has(&RESET, cpu) {
        reset(CpuMask::only(cpu));
    }
    RESET.fetch_and(!CpuMask::only(cpu).bits(), Ordering::Relaxed);
    // After the reset: a CPU that halted can be interrupted by an NMI, which takes its tables.
    // Made anew each time: one task state segment is not loaded twice.
    CpuTables::make(cpu, cpu_local::ist_stacks(cpu));
    page.set(PARAM_STACK, stacks::locate(stacks::Use::Main, cpu).top);
    // Release pairs with the Acquire in `ap_entry`: the CPU sees all that was made for it.
    STARTING.store(cpu.number(), Ordering::Release);
    let start = time::now_ns();
    apic::send_start_up(apic_id(cpu), page.number());
    let mut retried = false;
    while !smp::online().contains(cpu) {
        let waited = time::now_ns() - start;
        if waited > RETRY_NS && !retried {
            // A CPU that runs already ignores it.
            apic::send_start_up(apic_id(cpu), page.number());
            retried = true;
        }
        if waited > ONLINE_NS && give_up() {
            // Back to waiting: it must not wake up later with the next one's parameters.
            apic::send_init(apic_id(cpu));
            return Err("it did not answer");
        }
        core::hint::spin_loop();
    }
    Ok(())
}

fn has(set: &AtomicU64, cpu: CpuId) -> bool {
    CpuMask::from_bits(set.load(Ordering::Relaxed)).contains(cpu)
}

/// The low page with start-up code and parameters.
struct Trampoline {
    phys: u64,
}

impl Trampoline {
    fn prepare() -> Option<Self> {
        let phys = memory::low_page()?;
        let this = Self { phys };
        let (start, end) = (
            &raw const ap_trampoline_start as usize,
            &raw const ap_trampoline_end as usize,
        );
        assert!(end - start <= PARAM_ROOT as usize);
        // SAFETY: the page was just handed to us alone and is mapped by the physical map;
        // the code fits below its parameters.
        unsafe {
            core::ptr::copy_nonoverlapping(
                start as *const u8,
                phys_to_virt(phys) as *mut u8,
                end - start,
            );
        }
        let root = paging::make_start_up_space(phys).ok()?;
        assert!(u32::try_from(root).is_ok(), "page tables are below 4 GiB");
        this.set(PARAM_ROOT, root);
        this.set(PARAM_ENTRY, ap_entry as *const () as u64);
        Some(this)
    }

    /// What the start-up interrupt names.
    fn number(&self) -> u8 {
        (self.phys / PAGE_SIZE) as u8
    }

    fn set(&self, offset: u64, value: u64) {
        // SAFETY: the parameter lies in our page, and only a CPU that has been started reads
        // it; the start-up interrupt orders the write before that.
        unsafe { ((phys_to_virt(self.phys) + offset) as *mut u64).write_volatile(value) };
    }
}

/// A started CPU's first Rust code: on its own stack, in the start-up address space.
extern "C" fn ap_entry() -> ! {
    // Acquire pairs with the Release in `start`.
    let number = STARTING.load(Ordering::Acquire);
    let cpu = CpuId::new(number).expect("the boot CPU starts CPUs that exist");
    paging::activate();
    cpu::set_control_registers();
    // SAFETY: this is `cpu`, interrupts are off, and the tables were made for it.
    unsafe { CpuTables::load(cpu) };
    interrupts::load();
    apic::enable();
    hotplug::arrive(cpu);
    sched::become_idle()
}
