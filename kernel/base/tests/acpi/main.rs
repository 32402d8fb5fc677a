//! ACPI tables: as QEMU writes them, unusual, lying, cut and damaged.

mod builder;
mod damage;
mod lies;

use builder::{
    Machine, cpu_affinity, local_x2apic, memory_affinity, slit, srat_start, x2apic_affinity,
};
use kernel_base::acpi::{
    Cpu, IoApic, LocalNmi, MemoryRange, Platform, PmTimer, Register, RegisterSpace, Reset,
    SleepType,
};
use platform::NodeId;

fn node(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

/// What holds for every machine, whatever its tables say.
pub fn check_invariants(platform: &Platform) {
    let topology = platform.topology(platform.cpus.len());
    assert_eq!(topology.node_count(), platform.node_count());
    assert_eq!(topology.cpu_count(), platform.cpus.len().max(1));
    for (i, cpu) in platform.cpus.iter().enumerate() {
        assert!(cpu.node.index() < platform.node_count());
        assert!(
            platform.cpus[..i]
                .iter()
                .all(|other| other.apic_id != cpu.apic_id)
        );
        assert_eq!(
            topology.node_of(platform::CpuId::from_index(i).unwrap()),
            cpu.node
        );
    }
    assert!(platform.domains.is_sorted());
    let mut end = 0;
    for range in &platform.memory {
        assert!(range.start >= end && range.end > range.start);
        assert!(range.node.index() < platform.node_count());
        end = range.end;
    }
    let mut address = 0;
    for _ in 0..=2 * platform.memory.len() {
        let (node, until) = platform.node_at(address);
        assert!(node.index() < platform.node_count());
        assert!(until > address);
        address = until;
        if address == u64::MAX {
            break;
        }
    }
    for irq in 0..16 {
        assert_eq!(platform.isa_interrupt(irq).irq, irq);
    }
    assert!(platform.problems_dropped == 0 || platform.problems.is_full());
    for problem in &platform.problems {
        assert!(problem.to_string().starts_with("ACPI table "));
    }
}

#[test]
fn reads_what_qemu_writes() {
    let platform = Machine::q35().write().discover();
    check_invariants(&platform);
    assert_eq!(platform.problems.as_slice(), []);
    let cpus: Vec<_> = (0..4)
        .map(|i| Cpu {
            apic_id: i,
            uid: i,
            node: node(i / 2),
        })
        .collect();
    assert_eq!(platform.cpus.as_slice(), cpus);
    assert_eq!((platform.disabled_cpus, platform.dropped_cpus), (0, 0));
    assert_eq!(
        (platform.local_apic, platform.has_8259),
        (Some(0xfee0_0000), true)
    );
    let io_apic = IoApic {
        id: 4,
        address: 0xfec0_0000,
        first_interrupt: 0,
    };
    assert_eq!(platform.io_apics.as_slice(), [io_apic]);
    assert_eq!(platform.overrides.len(), 5);
    assert_eq!(platform.isa_interrupt(0).global_interrupt, 2);
    assert!(platform.isa_interrupt(9).level_triggered && !platform.isa_interrupt(9).active_low);
    assert_eq!(platform.isa_interrupt(4).global_interrupt, 4);
    let nmi = LocalNmi {
        uid: None,
        lint: 1,
        active_low: false,
        level_triggered: false,
    };
    assert_eq!(platform.local_nmis.as_slice(), [nmi]);
    assert_eq!(platform.domains.as_slice(), [0, 1]);
    assert_eq!(platform.memory.len(), 3);
    let last = MemoryRange {
        start: 0x4000_0000,
        end: 0x8000_0000,
        node: node(1),
        hot_pluggable: false,
    };
    assert_eq!(platform.memory[2], last);
    assert_eq!(platform.node_at(0x1000), (node(0), 0xa_0000));
    assert_eq!(platform.node_at(0xa_0000), (node(0), 0x10_0000));
    assert_eq!(platform.node_at(0x7fff_ffff), (node(1), 0x8000_0000));
    assert_eq!(platform.node_at(0x8000_0000), (node(0), u64::MAX));
    let topology = platform.topology(4);
    assert_eq!(topology.distance(node(0), node(1)), 20);
    assert_eq!(topology.nearest(node(1)), [node(1), node(0)]);
    assert_eq!(platform.topology(1).node_count(), 2);
    assert_eq!(platform.hpet, Some(0xfed0_0000));
    assert_eq!(platform.s5, Some(SleepType { pm1a: 5, pm1b: 0 }));
    let fixed = platform.fixed.unwrap();
    let port = |address, bits| Register {
        space: RegisterSpace::Port,
        address,
        bits,
    };
    assert_eq!(fixed.pm1a_control, Some(port(0x604, 16)));
    assert_eq!(fixed.pm1a_control.unwrap().port(), Some(0x604));
    assert_eq!(fixed.pm1b_control, None);
    assert_eq!(
        fixed.pm_timer,
        Some(PmTimer {
            register: port(0x608, 32),
            is_32_bit: false
        })
    );
    assert_eq!(
        fixed.reset,
        Some(Reset {
            register: port(0xcf9, 8),
            value: 0xf
        })
    );
    assert_eq!(
        (fixed.sci, fixed.smi_command, fixed.acpi_enable),
        (9, 0xb2, 2)
    );
    assert_eq!((fixed.century, fixed.hardware_reduced), (0x32, false));
}

#[test]
fn reads_an_old_fadt() {
    let mut machine = Machine::q35();
    machine.body("FACP").truncate(116 - 36);
    machine.tables.iter_mut().find(|t| t.0 == "FACP").unwrap().1 = 1;
    // As `pc` has it: no reset register, hence no flag.
    machine.body("FACP")[112 - 36 + 1] &= !4;
    let platform = machine.write().discover();
    assert_eq!(platform.problems.as_slice(), []);
    let fixed = platform.fixed.unwrap();
    assert_eq!(fixed.pm1a_control.and_then(Register::port), Some(0x604));
    assert_eq!(
        fixed.pm_timer.and_then(|timer| timer.register.port()),
        Some(0x608)
    );
    assert_eq!((fixed.reset, platform.s5.is_some()), (None, true));
}

#[test]
fn xsdt_goes_before_rsdt() {
    let mut image = Machine {
        xsdt: true,
        ..Machine::q35()
    }
    .write();
    let whole = image.discover();
    assert_eq!(whole.problems.as_slice(), []);
    let (rsdt, _) = image.place("RSDT");
    image.bytes[rsdt..rsdt + 36].fill(0xee);
    assert_eq!(image.discover(), whole);
    // And the RSDT serves where the XSDT is gone.
    let mut image = Machine {
        xsdt: true,
        ..Machine::q35()
    }
    .write();
    let (xsdt, _) = image.place("XSDT");
    image.bytes[xsdt] = b'Y';
    let platform = image.discover();
    assert_eq!(platform.cpus, whole.cpus);
    assert_eq!(platform.problems.len(), 1);
}

#[test]
fn x2apic_ids_are_read() {
    let mut machine = Machine::q35();
    machine.body("APIC").extend(local_x2apic(300, 0x1000, 1));
    machine
        .body("APIC")
        .extend([10, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    machine.body("SRAT").extend(x2apic_affinity(0x1000, 1));
    let platform = machine.write().discover();
    assert_eq!(platform.problems.as_slice(), []);
    let cpu = Cpu {
        apic_id: 0x1000,
        uid: 300,
        node: node(1),
    };
    assert_eq!(platform.cpus.last(), Some(&cpu));
    assert_eq!(platform.local_nmis.len(), 2);
}

#[test]
fn without_srat_there_is_one_node() {
    let platform = Machine::q35().without("SRAT").write().discover();
    check_invariants(&platform);
    assert_eq!(platform.problems.as_slice(), []);
    assert_eq!((platform.node_count(), platform.cpus.len()), (1, 4));
    assert_eq!(platform.node_at(0x1234), (node(0), u64::MAX));
}

#[test]
fn nodes_without_cpus_and_without_memory() {
    let mut machine = Machine::q35();
    let body = machine.body("SRAT");
    *body = srat_start();
    body.extend(
        [0, 0, 0, 7]
            .into_iter()
            .zip(0..)
            .flat_map(|(d, cpu)| cpu_affinity(cpu, d, 1)),
    );
    body.extend(memory_affinity(0, 0x4000_0000, 0, 1));
    body.extend(memory_affinity(0x4000_0000, 0x4000_0000, 3, 1));
    // Memory that may come one day makes no node of its own.
    body.extend(memory_affinity(1 << 32, 1 << 32, 9, 3));
    body.extend(memory_affinity(2 << 32, 1 << 32, 3, 3));
    let platform = machine.write().discover();
    check_invariants(&platform);
    assert_eq!(platform.domains.as_slice(), [0, 3, 7]);
    assert_eq!(platform.cpus[3].node, node(2));
    assert_eq!(platform.node_at(0x5000_0000).0, node(1));
    assert_eq!(platform.memory.len(), 3);
    assert!(platform.memory[2].hot_pluggable);
    // The SLIT knows neither 3 nor 7: the default holds.
    assert_eq!(platform.distances[0][2], 20);
    assert_eq!(platform.problems.len(), 2);
}

#[test]
fn distances_follow_domains() {
    let mut machine = Machine::q35();
    *machine.body("SLIT") = slit(&[&[10, 99, 255], &[99, 10, 99], &[17, 99, 10]]);
    let body = machine.body("SRAT");
    *body = srat_start();
    body.extend(
        [0, 0, 2, 2]
            .into_iter()
            .zip(0..)
            .flat_map(|(d, cpu)| cpu_affinity(cpu, d, 1)),
    );
    let platform = machine.write().discover();
    assert_eq!(platform.problems.as_slice(), []);
    // Domain 2 is node 1; "unreachable" is as far as can be; directions differ.
    assert_eq!(platform.distances[0][..2], [10, 254]);
    assert_eq!(platform.distances[1][..2], [17, 10]);
}

#[test]
fn the_boot_cpu_comes_first() {
    let mut platform = Machine::q35().write().discover();
    let ids = |platform: &Platform| platform.cpus.iter().map(|c| c.apic_id).collect::<Vec<_>>();
    platform.put_boot_cpu_first(2);
    assert_eq!(ids(&platform), [2, 0, 1, 3]);
    assert_eq!(platform.problems.len(), 0);
    platform.put_boot_cpu_first(77);
    assert_eq!(ids(&platform), [77, 2, 0, 1, 3]);
    assert_eq!(platform.problems.len(), 1);
    for id in 100..200 {
        platform.put_boot_cpu_first(id);
    }
    assert_eq!((platform.cpus.len(), platform.cpus[0].apic_id), (64, 199));
    check_invariants(&platform);
    let mut nothing = Platform::new();
    nothing.put_boot_cpu_first(5);
    assert_eq!(
        (ids(&nothing), nothing.topology(4).cpu_count()),
        (vec![5], 1)
    );
}
