//! A CPU's own descriptor tables: GDT, and TSS with a stack each for double fault, NMI and
//! machine check (faults that may come when the stack in use cannot be trusted).
//!
//! They are static, so that the boot CPU has them from its first instructions on, before
//! there is any memory to allocate. Its interrupt stacks are small static ones until the
//! guarded ones exist.

use core::cell::UnsafeCell;

use ::x86_64::{
    VirtAddr,
    instructions::tables::load_tss,
    registers::segmentation::{CS, DS, ES, FS, GS, SS, Segment},
    structures::{
        gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector},
        tss::TaskStateSegment,
    },
};
use platform::{CpuId, MAX_CPUS};

use super::{cpu, interrupts, percpu, stacks};

/// The kernel's code segment, the same on every CPU.
pub const KERNEL_CODE: u16 = 0x08;
/// The kernel's data segment.
const KERNEL_DATA: u16 = 0x10;

/// A data segment that is not present: loading SS with it is a stack segment fault.
pub const ABSENT_DATA: u16 = 0x28;
/// What its descriptor says: a writable data segment of ring 0, present bit clear.
const ABSENT_DESCRIPTOR: u64 = 0x00cf_1200_0000_ffff;

/// Interrupt stack table slots, as an IDT entry names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Ist {
    /// Double fault: the kernel stack is probably gone.
    DoubleFault = 0,
    /// NMI: may come on any instruction.
    Nmi = 1,
    /// Machine check.
    MachineCheck = 2,
}

/// What a CPU's interrupt stacks are for, indexed by [`Ist`].
const IST_USES: [stacks::Use; 3] = [
    stacks::Use::DoubleFault,
    stacks::Use::Nmi,
    stacks::Use::MachineCheck,
];

/// Upper ends of a CPU's interrupt stacks, indexed by [`Ist`].
#[derive(Debug, Clone, Copy)]
pub struct IstStacks {
    tops: [u64; 3],
}

/// Descriptor tables of one CPU.
pub struct CpuTables {
    gdt: GlobalDescriptorTable<8>,
    tss: TaskStateSegment,
    tss_selector: SegmentSelector,
}

struct All(UnsafeCell<[CpuTables; MAX_CPUS]>);
// SAFETY: a CPU's tables are written by who starts it, before it runs (the boot CPU's: by
// itself), and from then on only by that CPU and its processor.
unsafe impl Sync for All {}
static ALL: All = All(UnsafeCell::new(
    [const {
        CpuTables {
            gdt: GlobalDescriptorTable::empty(),
            tss: TaskStateSegment::new(),
            tss_selector: SegmentSelector::NULL,
        }
    }; MAX_CPUS],
));

/// Bytes of the boot CPU's first interrupt stacks: enough to print a panic.
const FIRST_STACK: usize = 16 * 1024;

#[repr(C, align(16))]
struct FirstStacks(UnsafeCell<[[u8; FIRST_STACK]; 3]>);
// SAFETY: only the boot CPU's processor uses them.
unsafe impl Sync for FirstStacks {}
static FIRST_STACKS: FirstStacks = FirstStacks(UnsafeCell::new([[0; FIRST_STACK]; 3]));

fn tables(cpu: CpuId) -> *mut CpuTables {
    // SAFETY: the index is below MAX_CPUS by CpuId's invariant.
    unsafe { ALL.0.get().cast::<CpuTables>().add(cpu.index()) }
}

impl CpuTables {
    /// Fills in the tables of `cpu`, which does not run: it was not started, or was reset.
    pub fn make(cpu: CpuId, stacks: IstStacks) {
        // SAFETY: nobody uses these tables (contract), and only who starts the CPU makes them.
        let this: &'static mut Self = unsafe { &mut *tables(cpu) };
        this.tss = TaskStateSegment::new();
        set_stacks(&mut this.tss, stacks);
        this.gdt = GlobalDescriptorTable::empty();
        let code = this.gdt.append(Descriptor::kernel_code_segment());
        let data = this.gdt.append(Descriptor::kernel_data_segment());
        assert!(code.0 == KERNEL_CODE && data.0 == KERNEL_DATA);
        // SAFETY: the TSS is in a static.
        let descriptor = unsafe { Descriptor::tss_segment_unchecked(&raw const this.tss) };
        this.tss_selector = this.gdt.append(descriptor);
        let absent = this.gdt.append(Descriptor::UserSegment(ABSENT_DESCRIPTOR));
        assert!(absent.0 == ABSENT_DATA);
    }

    /// Makes this CPU use its tables and its per-CPU copy.
    ///
    /// # Safety
    ///
    /// The caller must be `cpu`, with interrupts off, after [`make`](Self::make) for it.
    pub unsafe fn load(cpu: CpuId) {
        // SAFETY: nobody writes the tables any more but the processor (the TSS's busy bit).
        let this: &'static Self = unsafe { &*tables(cpu) };
        // SAFETY: the table is static. The selectors were made for this very table, which is
        // loaded first; the segments are flat. Writing GS resets its base, which `activate`
        // sets right after.
        unsafe {
            this.gdt.load_unsafe();
            CS::set_reg(SegmentSelector(KERNEL_CODE));
            SS::set_reg(SegmentSelector(KERNEL_DATA));
            DS::set_reg(SegmentSelector(KERNEL_DATA));
            ES::set_reg(SegmentSelector(KERNEL_DATA));
            FS::set_reg(SegmentSelector::NULL);
            GS::set_reg(SegmentSelector::NULL);
            percpu::activate(cpu);
            load_tss(this.tss_selector);
        }
    }
}

fn set_stacks(tss: &mut TaskStateSegment, stacks: IstStacks) {
    for (slot, top) in stacks.tops.into_iter().enumerate() {
        tss.interrupt_stack_table[slot] = VirtAddr::new(top);
    }
}

/// The boot CPU's first step: from here on an exception is reported instead of resetting
/// the machine.
pub fn init_boot() {
    let first = FIRST_STACKS.0.get() as u64;
    let top = |index: u64| first + (index + 1) * FIRST_STACK as u64;
    CpuTables::make(
        CpuId::BOOT,
        IstStacks {
            tops: [top(0), top(1), top(2)],
        },
    );
    // SAFETY: this is the boot CPU, interrupts are off since entry, the tables are made.
    unsafe { CpuTables::load(CpuId::BOOT) };
    interrupts::init();
    interrupts::load();
    cpu::set_control_registers();
}

/// Moves the boot CPU's interrupt stacks to guarded ones.
pub fn set_boot_stacks(stacks: IstStacks) {
    // SAFETY: only the boot CPU comes here, outside any handler that runs on the old stacks;
    // the processor reads an entry when it delivers an exception, never in between.
    let tss = unsafe { &mut (*tables(CpuId::BOOT)).tss };
    set_stacks(tss, stacks);
}

/// Makes the interrupt stacks of `cpu`.
///
/// # Errors
///
/// Out of frames.
pub fn make_ist_stacks(cpu: CpuId) -> Result<IstStacks, stacks::OutOfStacks> {
    for purpose in IST_USES {
        stacks::allocate(purpose, cpu)?;
    }
    Ok(ist_stacks(cpu))
}

/// The interrupt stacks of `cpu`, which were made.
pub fn ist_stacks(cpu: CpuId) -> IstStacks {
    IstStacks {
        tops: IST_USES.map(|purpose| stacks::locate(purpose, cpu).top),
    }
}
