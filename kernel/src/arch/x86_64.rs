//! x86_64.

pub mod apic;
pub mod backtrace;
pub mod context;
pub mod cpu;
pub mod cpu_local;
pub mod fw_cfg;
pub mod interrupts;
pub mod ioapic;
pub mod irq;
pub mod nmi_backtrace;
pub mod paging;
pub mod panic_tests;
pub mod percpu;
pub mod power;
pub mod preempt;
pub mod probe;
#[cfg(feature = "rcu_preemptible")]
pub mod reader;
pub mod smp_boot;
pub mod stacks;
mod switch;
pub mod tlb;
pub mod traps;
pub mod tsc;
