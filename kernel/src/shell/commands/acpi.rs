//! What the firmware's tables say of the machine.

use crate::boot;
use crate::shell::{Args, Status, shell_command};

shell_command! {
    name: "acpi",
    usage: "",
    summary: "show what the ACPI tables say, and what is odd about them",
    arguments: (0, 0),
    run: acpi,
}

fn acpi(_: Args<'_>) -> Status {
    let acpi = boot::acpi();
    crate::println!(
        "{} CPUs ({} disabled, {} too many), {} nodes, {} I/O APICs",
        acpi.cpus.len(),
        acpi.disabled_cpus,
        acpi.dropped_cpus,
        acpi.node_count(),
        acpi.io_apics.len(),
    );
    for (number, cpu) in acpi.cpus.iter().enumerate() {
        let (apic_id, node) = (cpu.apic_id, cpu.node);
        crate::println!("  cpu {number}: APIC id {apic_id:#x}, node {node}");
    }
    for range in &acpi.memory {
        let more = if range.hot_pluggable {
            ", hot-pluggable"
        } else {
            ""
        };
        crate::println!(
            "  memory {:#014x}-{:#014x}: node {}{more}",
            range.start,
            range.end - 1,
            range.node
        );
    }
    if acpi.node_count() > 1 {
        for (row, domain) in acpi.distances.iter().zip(&acpi.domains) {
            crate::print!("  distances from domain {domain}:");
            for distance in &row[..acpi.node_count()] {
                crate::print!(" {distance:>3}");
            }
            crate::println!();
        }
    }
    address("local APIC at", acpi.local_apic);
    address("HPET at", acpi.hpet);
    let found = |found| if found { "yes" } else { "no" };
    crate::println!("  8259 interrupt controllers: {}", found(acpi.has_8259));
    crate::println!(
        "  power-off: {}",
        found(acpi.s5.is_some() && acpi.fixed.is_some())
    );
    for problem in &acpi.problems {
        crate::println!("  odd: {problem}");
    }
    if acpi.problems_dropped > 0 {
        crate::println!("  and {} more oddities", acpi.problems_dropped);
    }
    Status::SUCCESS
}

fn address(what: &str, address: Option<u64>) {
    match address {
        Some(address) => crate::println!("  {what} {address:#x}"),
        None => crate::println!("  {what} (unknown)"),
    }
}
