//! What this processor is and can, and small operations on it.

use ::x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};
use raw_cpuid::CpuId as CpuIdLeaves;

/// The own CPU's local APIC id, from CPUID (works before the APIC is set up).
pub fn apic_id() -> u32 {
    let leaves = CpuIdLeaves::new();
    if let Some(mut topology) = leaves.get_extended_topology_info()
        && let Some(level) = topology.next()
    {
        return level.x2apic_id();
    }
    leaves
        .get_feature_info()
        .map_or(0, |info| u32::from(info.initial_local_apic_id()))
}

/// x2APIC mode exists.
pub fn has_x2apic() -> bool {
    CpuIdLeaves::new()
        .get_feature_info()
        .is_some_and(|info| info.has_x2apic())
}

/// `cmpxchg16b` exists.
pub fn has_cmpxchg16b() -> bool {
    CpuIdLeaves::new()
        .get_feature_info()
        .is_some_and(|info| info.has_cmpxchg16b())
}

/// The TSC counts at one rate in every power state.
pub fn has_invariant_tsc() -> bool {
    CpuIdLeaves::new()
        .get_advanced_power_mgmt_info()
        .is_some_and(|info| info.has_invariant_tsc())
}

/// TSC frequency in kHz where CPUID states it (leaf 15h, or a hypervisor's leaf).
pub fn tsc_khz_from_cpuid() -> Option<u64> {
    let leaves = CpuIdLeaves::new();
    if let Some(hertz) = leaves.get_tsc_info().and_then(|info| info.tsc_frequency()) {
        return Some(hertz / 1000);
    }
    leaves
        .get_hypervisor_info()
        .and_then(|info| info.tsc_frequency())
        .map(u64::from)
        .filter(|khz| *khz > 0)
}

/// The processor's name as it gives it.
pub fn with_brand<R>(f: impl FnOnce(&str) -> R) -> R {
    match CpuIdLeaves::new().get_processor_brand_string() {
        Some(brand) => f(brand.as_str().trim()),
        None => f("unnamed processor"),
    }
}

/// Brings this CPU's control registers to what the kernel relies on. The boot CPU did most
/// of it on entry; other CPUs come from reset.
pub fn set_control_registers() {
    // SAFETY: write protection, global pages and NX are what the page tables assume (NX was
    // found on entry; CPUs of one machine are alike). Native x87 errors make vector 16.
    unsafe {
        Efer::update(|efer| efer.insert(EferFlags::NO_EXECUTE_ENABLE));
        Cr0::update(|cr0| {
            cr0.insert(Cr0Flags::WRITE_PROTECT | Cr0Flags::NUMERIC_ERROR);
            cr0.remove(Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::TASK_SWITCHED);
            cr0.remove(Cr0Flags::CACHE_DISABLE | Cr0Flags::NOT_WRITE_THROUGH);
        });
        Cr4::update(|cr4| cr4.insert(Cr4Flags::PAGE_GLOBAL));
    }
}

/// Control registers, for reports.
#[derive(Debug, Clone, Copy)]
pub struct ControlRegisters {
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
}

/// Reads them.
pub fn control_registers() -> ControlRegisters {
    use ::x86_64::registers::control::{Cr2, Cr3};
    ControlRegisters {
        cr0: Cr0::read_raw(),
        cr2: Cr2::read_raw(),
        cr3: Cr3::read().0.start_address().as_u64(),
        cr4: Cr4::read_raw(),
    }
}

/// Stops this CPU for good. Interrupts stay off; an NMI returns to here.
pub fn halt_forever() -> ! {
    loop {
        super::irq::disable_forever();
        ::x86_64::instructions::hlt();
    }
}
