//! What came out of booting: CPUs, nodes and the tables they come from.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use platform::{CpuId, LOCAL_DISTANCE, MAX_NODES};

use crate::arch::apic;
use crate::boot;
use crate::kunit::{
    Ctx, OnlineCpus, Outcome, kassert, kassert_eq, kassert_ne, kassert_ok, kskip, kunit_suite,
};
use crate::smp;

kunit_suite! {
    name: "boot",
    cases: [
        all_cpus_are_online,
        boot_cpu_is_first,
        cpus_know_themselves => { over: OnlineCpus },
        nodes_of_cpus,
        distances,
        memory_ranges,
        tables_are_clean,
    ],
}

/// As many as the tables have, unless `maxcpus=` says less.
fn all_cpus_are_online(_: &mut Ctx) -> Outcome {
    let known = boot::acpi().cpus.len().max(1) as u64;
    let allowed = boot::command_line().maxcpus.unwrap_or(u64::MAX);
    kassert_eq!(smp::cpus().count() as u64, known.min(allowed));
    kassert_eq!(smp::online(), smp::cpus());
    kassert_eq!(boot::topology().cpus(), smp::cpus());
    Ok(())
}

fn boot_cpu_is_first(_: &mut Ctx) -> Outcome {
    kassert!(smp::online().contains(CpuId::BOOT));
    // The suites run where the shell does.
    kassert_eq!(smp::this_cpu(), CpuId::BOOT);
    Ok(())
}

/// The number a CPU goes by is the one whose APIC it has.
fn cpus_know_themselves(_: &mut Ctx, cpu: CpuId) -> Outcome {
    // Relaxed: the end of the call orders them before the reads below.
    let (number, apic_id) = (AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX));
    smp::call_on(cpu, &|| {
        number.store(u64::from(smp::this_cpu().number()), Ordering::Relaxed);
        apic_id.store(u64::from(apic::id()), Ordering::Relaxed);
    });
    kassert_eq!(number.load(Ordering::Relaxed), u64::from(cpu.number()));
    if let Some(entry) = boot::acpi().cpus.get(cpu.index()) {
        kassert_eq!(apic_id.load(Ordering::Relaxed), u64::from(entry.apic_id));
    }
    Ok(())
}

/// Each CPU is on the node that the SRAT says.
fn nodes_of_cpus(_: &mut Ctx) -> Outcome {
    let topology = boot::topology();
    kassert!(topology.node_count() >= 1 && topology.node_count() <= MAX_NODES);
    for (entry, cpu) in boot::acpi().cpus.iter().zip(smp::cpus()) {
        kassert_eq!(topology.node_of(cpu), entry.node, "{cpu:?}");
        kassert!(topology.cpus_of(entry.node).contains(cpu), "{cpu:?}");
    }
    let on_nodes: usize = topology
        .nodes()
        .iter()
        .map(|node| topology.cpus_of(node).count())
        .sum();
    kassert_eq!(on_nodes, topology.cpu_count(), "each CPU is on one node");
    Ok(())
}

fn distances(_: &mut Ctx) -> Outcome {
    let topology = boot::topology();
    for node in topology.nodes() {
        kassert_eq!(topology.distance(node, node), LOCAL_DISTANCE);
        let nearest = topology.nearest(node);
        kassert_eq!(
            nearest.first(),
            Some(&node),
            "nothing is nearer than the node itself"
        );
        let mut sorted: Vec<_> = nearest.to_vec();
        sorted.sort_unstable();
        kassert_eq!(sorted, topology.nodes().iter().collect::<Vec<_>>());
        for pair in nearest.windows(2) {
            kassert!(
                topology.distance(node, pair[0]) <= topology.distance(node, pair[1]),
                "from {node:?}: {nearest:?}"
            );
        }
    }
    if topology.node_count() == 1 {
        return Ok(());
    }
    let (first, other) = (topology.nodes().first(), topology.nodes().last());
    kassert_ne!(first, other);
    let (first, other) = (kassert_ok!(first), kassert_ok!(other));
    kassert!(topology.distance(first, other) > LOCAL_DISTANCE);
    Ok(())
}

fn memory_ranges(_: &mut Ctx) -> Outcome {
    let acpi = boot::acpi();
    if acpi.memory.is_empty() {
        kskip!("the firmware has no SRAT");
    }
    for pair in acpi.memory.windows(2) {
        kassert!(pair[0].end <= pair[1].start, "{pair:?}");
    }
    for range in &acpi.memory {
        kassert!(range.start < range.end, "{range:?}");
        kassert!(range.node.index() < acpi.node_count(), "{range:?}");
        kassert_eq!(acpi.node_at(range.start).0, range.node);
        kassert_eq!(acpi.node_at(range.end - 1).0, range.node);
    }
    Ok(())
}

/// QEMU's tables are right, so whatever is found odd about them is our mistake.
fn tables_are_clean(_: &mut Ctx) -> Outcome {
    for problem in &boot::acpi().problems {
        kassert!(false, "{problem}");
    }
    Ok(())
}
