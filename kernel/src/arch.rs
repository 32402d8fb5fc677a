//! The processor. One architecture is selected here; everything that names it, and all
//! assembly, is in its folder. An architecture defines the same set of modules.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use self::x86_64::{
    apic, backtrace, context, cpu, cpu_local, fw_cfg, interrupts, ioapic, irq, nmi_backtrace,
    paging, panic_tests, percpu, power, preempt, probe, smp_boot, stacks, tlb, tsc,
};

#[cfg(all(target_arch = "x86_64", feature = "rcu_preemptible"))]
pub use self::x86_64::reader;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("Granary's kernel runs on x86_64 only");
