//! What boot finds out once and everybody reads afterwards: command line, ramdisk, the
//! machine as ACPI describes it, the topology.

use core::{cell::UnsafeCell, fmt};

use kernel_base::{
    acpi::{self, Platform},
    cmdline::CommandLine,
    ramdisk::Ramdisk,
};
use kernel_early::{handover::Handover, layout::phys_to_virt};
use platform::{CpuMask, MAX_CPUS, Topology};
use spin::Once;

use crate::{
    arch::{cpu, fw_cfg, paging},
    memory, time,
};

/// The fw_cfg file that holds the command line.
const FW_CFG_NAME: &str = "opt/org.granary/cmdline";
/// Longest command line.
const MAX_COMMAND_LINE: usize = 4096;

static COMMAND_LINE: Once<CommandLine<'static>> = Once::new();
static RAMDISK: Once<Ramdisk<'static>> = Once::new();
static ACPI: Once<Platform> = Once::new();
static TOPOLOGY: Once<Topology> = Once::new();
static CUT: Once<usize> = Once::new();

struct Buffer(UnsafeCell<[u8; MAX_COMMAND_LINE]>);
// SAFETY: borrowed once, by the boot CPU in `read_command_line`, before others run.
unsafe impl Sync for Buffer {}
static BUFFER: Buffer = Buffer(UnsafeCell::new([0; MAX_COMMAND_LINE]));

/// The kernel's command line.
pub fn command_line() -> &'static CommandLine<'static> {
    COMMAND_LINE.call_once(CommandLine::new)
}

/// The ramdisk, if a sound one was handed over.
pub fn ramdisk() -> Option<&'static Ramdisk<'static>> {
    RAMDISK.get()
}

/// The machine as ACPI describes it; what is missing there has sane values.
pub fn acpi() -> &'static Platform {
    ACPI.call_once(Platform::new)
}

/// CPUs, nodes, distances.
pub fn topology() -> &'static Topology {
    TOPOLOGY.call_once(|| Topology::single_node(1))
}

/// Finds ramdisk and command line: QEMU's fw_cfg, else the ramdisk's member `cmdline`. No
/// console yet, nothing printed.
pub fn read_command_line(handover: &'static Handover) {
    if let Some((phys, len)) = handover.ramdisk {
        // SAFETY: early code saw this range whole in the loader's mapping and mapped all of
        // the memory map; it stays the ramdisk's for ever (`memory::init` claims it).
        let bytes =
            unsafe { core::slice::from_raw_parts(phys_to_virt(phys) as *const u8, len as usize) };
        if let Ok(ramdisk) = Ramdisk::new(bytes) {
            RAMDISK.call_once(|| ramdisk);
        }
    }
    // SAFETY: called once, before other CPUs run.
    let buffer = unsafe { &mut *BUFFER.0.get() };
    let bytes = match fw_cfg::read(FW_CFG_NAME, buffer) {
        Some((bytes, size)) => {
            if size > bytes.len() {
                CUT.call_once(|| size);
            }
            bytes
        }
        None => ramdisk()
            .and_then(|ramdisk| ramdisk.find("cmdline"))
            .unwrap_or_default(),
    };
    let bytes = bytes.trim_ascii_end();
    let line = COMMAND_LINE.call_once(|| CommandLine::parse_bytes(bytes));
    if let Some(port) = line.debug_exit {
        kernel_early::exit::set_port(port);
    }
    if line
        .kunit_planted
        .is_some_and(|planted| planted == "silent")
    {
        cpu::halt_forever();
    }
}

/// The first lines of the log.
pub fn greet() {
    log::info!(
        "boot: Granary {} ({} build)",
        env!("CARGO_PKG_VERSION"),
        if cfg!(debug_assertions) {
            "checked"
        } else {
            "release"
        }
    );
    cpu::with_brand(|brand| {
        log::info!(
            "cpu: {brand}{}{}",
            if cpu::has_cmpxchg16b() {
                ""
            } else {
                ", no cmpxchg16b"
            },
            if cpu::has_invariant_tsc() {
                ", invariant TSC"
            } else {
                ""
            }
        );
    });
    match ramdisk() {
        Some(ramdisk) => log::info!(
            "ramdisk: {} KiB, {} members",
            ramdisk.size() >> 10,
            ramdisk.members().count()
        ),
        None => log::warn!("ramdisk: none, or it is damaged"),
    }
}

/// Says what of the command line was not understood.
pub fn report_command_line_problems() {
    let line = command_line();
    for problem in line.problems() {
        log::warn!("command line: {problem}");
    }
    if line.problems_dropped() > 0 {
        log::warn!("command line: {} more problems", line.problems_dropped());
    }
    if let Some(size) = CUT.get() {
        log::warn!("command line: {size} bytes are too long, cut at {MAX_COMMAND_LINE}");
    }
}

/// Reads ACPI's tables and settles which CPUs and nodes there are.
pub fn discover_machine(handover: &Handover) {
    let mut machine = match handover.rsdp {
        Some(rsdp) => Platform::discover(rsdp, &read_physical),
        None => {
            log::warn!("acpi: no tables: one CPU, one node");
            Platform::new()
        }
    };
    machine.put_boot_cpu_first(cpu::apic_id());
    for problem in &machine.problems {
        log::warn!("acpi: {problem}");
    }
    if machine.problems_dropped > 0 {
        log::warn!("acpi: {} more problems", machine.problems_dropped);
    }
    if machine.dropped_cpus > 0 {
        log::warn!(
            "smp: {} CPUs beyond the {MAX_CPUS} that this kernel serves are not used",
            machine.dropped_cpus
        );
    }
    let most = command_line().maxcpus.map_or(MAX_CPUS, |most| {
        usize::try_from(most).unwrap_or(MAX_CPUS).max(1)
    });
    let topology = machine.topology(machine.cpus.len().min(most));
    log::info!("numa: {} nodes", topology.node_count());
    for node in topology.nodes() {
        let bytes: u64 = if machine.memory.is_empty() {
            memory::usable_bytes()
        } else {
            let ranges = machine.memory.iter().filter(|range| range.node == node);
            ranges.map(|range| range.end - range.start).sum()
        };
        log::info!(
            "numa: node {node}: CPUs {}, {} MiB, distances {:?}",
            Listed(topology.cpus_of(node)),
            bytes >> 20,
            &machine.distances[node.index()][..topology.node_count()]
        );
    }
    TOPOLOGY.call_once(|| topology);
    ACPI.call_once(|| machine);
}

/// A set of CPUs for the log, where an empty one is a word.
struct Listed(CpuMask);

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("none")
        } else {
            self.0.fmt(f)
        }
    }
}

/// Physical memory for the table reader: only what the physical map shows.
fn read_physical(address: u64, len: usize) -> Option<&'static [u8]> {
    let end = address.checked_add(len as u64)?;
    let mut page = kernel_early::layout::page_down(address);
    while page < end {
        if page >= kernel_early::layout::PHYS_MAP_END - kernel_early::layout::PHYS_MAP {
            return None;
        }
        paging::lookup(phys_to_virt(page))?;
        page += kernel_early::layout::PAGE_SIZE;
    }
    // SAFETY: every page was just seen mapped; firmware tables are not written by anyone,
    // and the kernel never hands out the reserved memory that they lie in.
    Some(unsafe { core::slice::from_raw_parts(phys_to_virt(address) as *const u8, len) })
}

/// PM1 control values and ports for ACPI's soft-off state.
#[derive(Debug, Clone, Copy)]
pub struct SoftOff {
    /// Port of PM1a control.
    pub port_a: u16,
    /// Port of PM1b control.
    pub port_b: Option<u16>,
    /// Sleep types to write.
    pub types: acpi::SleepType,
}

/// How to turn the machine off, if the tables say.
pub fn soft_off() -> Option<SoftOff> {
    let machine = acpi();
    let fixed = machine.fixed?;
    Some(SoftOff {
        port_a: fixed.pm1a_control?.port()?,
        port_b: fixed.pm1b_control.and_then(acpi::Register::port),
        types: machine.s5?,
    })
}

/// The last line of boot.
pub fn ready() {
    let ms = |ns: u64| (ns / 1_000_000, ns / 1_000 % 1000);
    let (total, kernel) = (ms(time::since_power_on_ns()), ms(time::now_ns()));
    log::info!(
        "boot: ready in {}.{:03} ms guest time ({}.{:03} ms of it in the kernel)",
        total.0,
        total.1,
        kernel.0,
        kernel.1
    );
}
