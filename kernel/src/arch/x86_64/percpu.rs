//! Data that every CPU has a copy of, reached through GS.
//!
//! The linker gathers the initial values in a template. A CPU's copy lies at some address
//! `area`; its GS base is `area - template`, so `gs:[symbol]` is the CPU's own copy, in one
//! instruction that no interrupt or move to another CPU can split. Before a CPU has its
//! copy its GS base is 0 and it uses the template: only the boot CPU, and only early.
//!
//! Offsets are kept in a table for access from other CPUs.

use core::sync::atomic::{AtomicU64, Ordering};

use ::x86_64::{VirtAddr, registers::model_specific::GsBase};
use platform::{CpuId, MAX_CPUS};

unsafe extern "C" {
    static __percpu_start: u8;
    static __percpu_end: u8;
}

/// What to add to a template address for each CPU's copy. Written before the CPU starts.
static OFFSETS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// Each copy's own entry of [`OFFSETS`].
#[unsafe(link_section = ".percpu")]
static OFFSET: AtomicU64 = AtomicU64::new(0);

/// The template: address and length in bytes.
pub fn template() -> (usize, usize) {
    let start = &raw const __percpu_start as usize;
    (start, &raw const __percpu_end as usize - start)
}

/// Makes the copy of `cpu` at `area`, from the template.
///
/// # Safety
///
/// `area` must be 64-byte aligned memory of at least the template's length that is used for nothing
/// else from now on, and `cpu` must not be running on another copy.
pub unsafe fn install(cpu: CpuId, area: *mut u8) {
    let (start, len) = template();
    // SAFETY: the caller gives `area` to us whole; the template is as long as that.
    unsafe { core::ptr::copy_nonoverlapping(start as *const u8, area, len) };
    let offset = (area as u64).wrapping_sub(start as u64);
    let own = (&raw const OFFSET as u64).wrapping_add(offset) as *const AtomicU64;
    // SAFETY: the copy's own cell, just filled in.
    unsafe { (*own).store(offset, Ordering::Relaxed) };
    // Release: who reads the offset (Acquire in `offset_of`) sees the copy filled in.
    OFFSETS[cpu.index()].store(offset, Ordering::Release);
}

/// Makes this CPU use the copy of `cpu`.
///
/// # Safety
///
/// The caller must be `cpu`, with interrupts off.
pub unsafe fn activate(cpu: CpuId) {
    // A GS base is any canonical number; the offset of an upper-half address from another
    // one may be small or huge, and `new_truncate` keeps it as it is in both cases.
    GsBase::write(VirtAddr::new_truncate(offset_of(cpu)));
}

/// See [`OFFSETS`].
pub fn offset_of(cpu: CpuId) -> u64 {
    // Acquire pairs with the Release in `install`.
    OFFSETS[cpu.index()].load(Ordering::Acquire)
}

/// The own CPU's copy of the byte at `address`, a template address or one behind it. The
/// caller is pinned to the CPU.
#[inline(always)]
pub fn dynamic_here(address: usize) -> core::ptr::NonNull<u8> {
    let here: usize;
    // SAFETY: `gs:[OFFSET]` is the own CPU's copy of its offset (see the module). Not pure:
    // the CPU may be another one the next time.
    unsafe {
        core::arch::asm!(
            "add {here}, gs:[{offset}]",
            here = inout(reg) address => here,
            offset = sym OFFSET,
            options(nostack, readonly),
        );
    }
    // SAFETY: a copy does not lie at address 0.
    unsafe { core::ptr::NonNull::new_unchecked(here as *mut u8) }
}

/// The copy of `cpu` of the byte at `address`.
pub fn dynamic_on(address: usize, cpu: CpuId) -> core::ptr::NonNull<u8> {
    let there = (address as u64).wrapping_add(offset_of(cpu)) as *mut u8;
    // SAFETY: as in `dynamic_here`.
    unsafe { core::ptr::NonNull::new_unchecked(there) }
}

/// Adds to the own CPU's 64-bit number at `address`, in one instruction.
///
/// # Safety
///
/// `address` is that of such a number in per-CPU memory, which other CPUs only read.
#[inline(always)]
pub unsafe fn dynamic_add(address: usize, value: u64) {
    // SAFETY: as the caller promises.
    unsafe {
        core::arch::asm!(
            "add qword ptr gs:[{address}], {value}",
            address = in(reg) address,
            value = in(reg) value,
            options(nostack),
        );
    }
}

/// Defines per-CPU 64-bit counters: `percpu! { pub static NAME: u64 = 0; }`.
///
/// `NAME.get()`, `NAME.set(v)` and `NAME.add(v)` act on the own CPU's copy by one
/// instruction each; `NAME.on(cpu)` is any CPU's copy, to be read (a counter changed by its
/// owner's plain instruction must not be changed from elsewhere).
#[macro_export]
macro_rules! percpu {
    ($($(#[$meta:meta])* $vis:vis static $name:ident: u64 = $init:expr;)*) => {$(
        $(#[$meta])*
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "a value that is written like a static")]
        #[derive(Debug, Clone, Copy)]
        $vis struct $name;

        const _: () = {
            use core::sync::atomic::AtomicU64;

            #[unsafe(link_section = ".percpu")]
            static CELL: AtomicU64 = AtomicU64::new($init);

            impl $crate::arch::percpu::PerCpuCell for $name {
                fn template() -> &'static AtomicU64 {
                    &CELL
                }

                #[inline(always)]
                fn get(self) -> u64 {
                    let value: u64;
                    // SAFETY: `gs:[template address]` is the own CPU's copy (see the module
                    // `percpu`), a valid u64 that only this CPU writes.
                    unsafe {
                        core::arch::asm!(
                            "mov {value}, gs:[{cell}]",
                            value = out(reg) value,
                            cell = sym CELL,
                            options(nostack, preserves_flags, readonly),
                        );
                    }
                    value
                }

                #[inline(always)]
                fn set(self, value: u64) {
                    // SAFETY: as in `get`.
                    unsafe {
                        core::arch::asm!(
                            "mov gs:[{cell}], {value}",
                            value = in(reg) value,
                            cell = sym CELL,
                            options(nostack, preserves_flags),
                        );
                    }
                }

                #[inline(always)]
                fn add(self, value: u64) {
                    // SAFETY: as in `get`.
                    unsafe {
                        core::arch::asm!(
                            "add gs:[{cell}], {value}",
                            value = in(reg) value,
                            cell = sym CELL,
                            options(nostack),
                        );
                    }
                }
            }
        };
    )*};
}

/// The operations of a [`percpu!`] cell.
pub trait PerCpuCell: Copy {
    /// The template's cell; its address is a link-time constant.
    fn template() -> &'static AtomicU64;

    /// The own CPU's value. With preemption possible it may be stale at once.
    fn get(self) -> u64;

    /// Sets the own CPU's value.
    fn set(self, value: u64);

    /// Adds to the own CPU's value, wrapping; cannot be split by an interrupt.
    fn add(self, value: u64);

    /// The copy of `cpu`, which must be present.
    fn on(self, cpu: CpuId) -> &'static AtomicU64 {
        let address = (Self::template() as *const AtomicU64 as u64).wrapping_add(offset_of(cpu));
        // SAFETY: `install` made a copy of the template at this offset, which lives for
        // ever; before that the offset is 0 and this is the template itself.
        unsafe { &*(address as *const AtomicU64) }
    }
}
