//! The MADT: CPUs and interrupt controllers.

use acpi::sdt::madt::{
    InterruptSourceOverrideEntry, IoApicEntry, LocalApicAddressOverrideEntry, LocalApicEntry,
    LocalApicNmiEntry, LocalX2ApicEntry, Polarity, TriggerMode, X2ApicNmiEntry,
    parse_mps_inti_flags,
};
use platform::NodeId;

use super::layout::{Entry, HEADER_SIZE, Table};
use super::{Platform, ProblemKind, TableName};
use crate::bytes::u32_at;

/// Where the entries start.
const ENTRIES: usize = HEADER_SIZE + 8;
/// The flag of a CPU that can be started.
const CPU_ENABLED: u32 = 1;
/// How many interrupts ISA has.
const ISA_INTERRUPTS: u8 = 16;

/// A CPU that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// The id by which it is sent interrupts.
    pub apic_id: u32,
    /// The firmware's number, by which AML and [`LocalNmi`] name it.
    pub uid: u32,
    /// Its node.
    pub node: NodeId,
}

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// Its id.
    pub id: u8,
    /// Physical address of its registers.
    pub address: u32,
    /// The global interrupt at its first input.
    pub first_interrupt: u32,
}

/// Where an ISA interrupt arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceOverride {
    /// The ISA interrupt, 0 to 15.
    pub irq: u8,
    /// The global interrupt it arrives at.
    pub global_interrupt: u32,
    /// Whether low means active.
    pub active_low: bool,
    /// Whether the level counts, not the edge.
    pub level_triggered: bool,
}

/// The input of a local APIC at which the non-maskable interrupt arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalNmi {
    /// The CPU's [`Cpu::uid`]; `None` for all CPUs.
    pub uid: Option<u32>,
    /// The input: 0 or 1.
    pub lint: u8,
    /// Whether low means active.
    pub active_low: bool,
    /// Whether the level counts, not the edge.
    pub level_triggered: bool,
}

/// Reads the MADT into `platform`.
pub(super) fn read(madt: Table<'_>, platform: &mut Platform) {
    let body = madt.body();
    let (Some(address), Some(flags)) = (u32_at(body, 0), u32_at(body, 4)) else {
        platform.report(madt.name, ProblemKind::Length(madt.bytes.len() as u32));
        return;
    };
    platform.local_apic = Some(u64::from(address));
    platform.has_8259 = flags & 1 != 0;
    madt.entries(ENTRIES, Some(platform), |entry, platform| {
        if let Some(platform) = platform {
            // Types that are not listed here are none of x86, or not of interest.
            let _ = take_entry(entry, platform);
        }
    });
    if platform.dropped_cpus > 0 {
        platform.report(madt.name, ProblemKind::TooManyCpus);
    }
}

fn take_entry(entry: Entry<'_>, platform: &mut Platform) -> Option<()> {
    match entry.kind {
        0 => {
            let cpu: LocalApicEntry = entry.get(platform)?;
            let broadcast = cpu.apic_id == 0xff;
            let (apic_id, uid) = (u32::from(cpu.apic_id), u32::from(cpu.processor_id));
            take_cpu(apic_id, uid, cpu.flags, broadcast, platform);
        }
        1 => {
            let io_apic: IoApicEntry = entry.get(platform)?;
            let io_apic = IoApic {
                id: io_apic.io_apic_id,
                address: io_apic.io_apic_address,
                first_interrupt: io_apic.global_system_interrupt_base,
            };
            if platform.io_apics.try_push(io_apic).is_err() {
                too_many(entry, platform);
            }
        }
        2 => take_override(entry.get(platform)?, platform),
        4 => {
            let nmi: LocalApicNmiEntry = entry.get(platform)?;
            let uid = (nmi.processor_id != 0xff).then_some(u32::from(nmi.processor_id));
            take_nmi(entry, uid, nmi.nmi_line, nmi.flags, platform);
        }
        5 => {
            let moved: LocalApicAddressOverrideEntry = entry.get(platform)?;
            platform.local_apic = Some(moved.local_apic_address);
        }
        9 => {
            let cpu: LocalX2ApicEntry = entry.get(platform)?;
            let broadcast = { cpu.x2apic_id } == u32::MAX;
            take_cpu(
                cpu.x2apic_id,
                cpu.processor_uid,
                cpu.flags,
                broadcast,
                platform,
            );
        }
        10 => {
            let nmi: X2ApicNmiEntry = entry.get(platform)?;
            let uid = ({ nmi.processor_uid } != u32::MAX).then_some(nmi.processor_uid);
            take_nmi(entry, uid, nmi.nmi_line, nmi.flags, platform);
        }
        _ => {}
    }
    Some(())
}

fn take_cpu(apic_id: u32, uid: u32, flags: u32, broadcast: bool, platform: &mut Platform) {
    if flags & CPU_ENABLED == 0 {
        platform.disabled_cpus += 1;
    } else if broadcast {
        platform.report(TableName::MADT, ProblemKind::BroadcastCpu);
    } else if platform.cpus.iter().any(|cpu| cpu.apic_id == apic_id) {
        platform.report(TableName::MADT, ProblemKind::DuplicateCpu(apic_id));
    } else if platform
        .cpus
        .try_push(Cpu {
            apic_id,
            uid,
            node: NodeId::FIRST,
        })
        .is_err()
    {
        platform.dropped_cpus += 1;
    }
}

fn take_override(entry: InterruptSourceOverrideEntry, platform: &mut Platform) {
    let irq = entry.irq;
    let Some((active_low, level_triggered)) =
        line_mode(entry.flags).filter(|_| entry.bus == 0 && irq < ISA_INTERRUPTS)
    else {
        return platform.report(TableName::MADT, ProblemKind::BadOverride { irq });
    };
    let global_interrupt = entry.global_system_interrupt;
    let known = platform.overrides.iter().any(|o| o.irq == irq);
    let new = SourceOverride {
        irq,
        global_interrupt,
        active_low,
        level_triggered,
    };
    // There is room for one of each.
    if known || platform.overrides.try_push(new).is_err() {
        platform.report(TableName::MADT, ProblemKind::DuplicateOverride { irq });
    }
}

fn take_nmi(entry: Entry<'_>, uid: Option<u32>, lint: u8, flags: u16, platform: &mut Platform) {
    let Some((active_low, level_triggered)) = line_mode(flags).filter(|_| lint < 2) else {
        return platform.report(TableName::MADT, ProblemKind::BadOverride { irq: lint });
    };
    let nmi = LocalNmi {
        uid,
        lint,
        active_low,
        level_triggered,
    };
    if platform.local_nmis.try_push(nmi).is_err() {
        too_many(entry, platform);
    }
}

/// Whether low means active and whether the level counts. What follows the bus
/// is ISA's: active high, edge.
fn line_mode(flags: u16) -> Option<(bool, bool)> {
    let (polarity, trigger) = parse_mps_inti_flags(flags).ok()?;
    Some((
        polarity == Polarity::ActiveLow,
        trigger == TriggerMode::Level,
    ))
}

fn too_many(entry: Entry<'_>, platform: &mut Platform) {
    platform.report(
        TableName::MADT,
        ProblemKind::TooManyEntries { kind: entry.kind },
    );
}
