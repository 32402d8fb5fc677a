//! What the firmware's ACPI tables say about the machine, as plain data.
//!
//! [`Platform::discover`] reads RSDP, RSDT or XSDT, MADT, SRAT, SLIT, FADT,
//! HPET, and looks for `\_S5` in DSDT and SSDTs. It allocates nothing, reads no
//! byte that its `read` function did not hand out, and always returns: tables
//! that are absent, truncated or lie cost what they would have told, and each
//! oddity is kept as a [`Problem`] for the log. Without SRAT there is one node;
//! without MADT no CPU is known and the caller adds its own with
//! [`Platform::put_boot_cpu_first`].
//!
//! A wrong checksum is reported and the table used all the same, as other
//! systems do: firmware with wrong sums exists, and nothing here relies on them.
//!
//! # How the crate `acpi` is used
//!
//! Only in this module, for the layouts of RSDP, table headers, FADT, HPET and
//! the MADT's entries, which are copied out of bounds-checked bytes. Its own
//! walkers follow the lengths in the tables by pointer, do not end on an entry
//! of length 0, and panic on some damaged fields. Of 7.0.0-pre1 also the SRAT
//! layouts (entry lengths of 16 bits, where the standard has 8) and the size
//! check of the SLIT are wrong, so these two tables are read here by offset.

mod aml;
mod fixed;
mod layout;
mod madt;
mod numa;
mod problem;
mod root;

use arrayvec::ArrayVec;
use platform::{MAX_CPUS, MAX_NODES, NodeId, Topology};

pub use aml::SleepType;
pub use fixed::{Fixed, PmTimer, Register, RegisterSpace, Reset};
pub use madt::{Cpu, IoApic, LocalNmi, SourceOverride};
pub use numa::MemoryRange;
pub use problem::{Problem, ProblemKind, TableName};

/// How many problems are kept; the rest is counted.
pub const MAX_PROBLEMS: usize = 32;
/// How many I/O APICs are kept.
pub const MAX_IO_APICS: usize = 16;
/// How many interrupt source overrides are kept: one for each ISA interrupt.
pub const MAX_OVERRIDES: usize = 16;
/// How many memory ranges with a node are kept.
pub const MAX_MEMORY_RANGES: usize = 64;

/// The machine as ACPI describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// CPUs that can be started, in the order of the MADT (see
    /// [`put_boot_cpu_first`](Self::put_boot_cpu_first)), no APIC id twice.
    pub cpus: ArrayVec<Cpu, MAX_CPUS>,
    /// CPUs in the MADT that are not enabled.
    pub disabled_cpus: usize,
    /// Enabled CPUs beyond [`MAX_CPUS`], which are left out.
    pub dropped_cpus: usize,
    /// Physical address of the local APICs' registers, if there is a MADT.
    pub local_apic: Option<u64>,
    /// Whether the machine also has the two 8259 interrupt controllers, which
    /// must then be masked.
    pub has_8259: bool,
    /// The I/O APICs.
    pub io_apics: ArrayVec<IoApic, MAX_IO_APICS>,
    /// Where ISA interrupts arrive, if not at the global interrupt of their number.
    pub overrides: ArrayVec<SourceOverride, MAX_OVERRIDES>,
    /// Which input of which local APIC is the non-maskable interrupt.
    pub local_nmis: ArrayVec<LocalNmi, MAX_CPUS>,
    /// The memory of each node: sorted by address, without overlap.
    pub memory: ArrayVec<MemoryRange, MAX_MEMORY_RANGES>,
    /// The firmware's number (proximity domain) of each node, ascending; empty
    /// without SRAT.
    pub domains: ArrayVec<u32, MAX_NODES>,
    /// Distances between nodes, `[from][to]`.
    pub distances: [[u8; MAX_NODES]; MAX_NODES],
    /// Fixed hardware: power management, clocks, reset.
    pub fixed: Option<Fixed>,
    /// Physical address of the HPET's registers.
    pub hpet: Option<u64>,
    /// What to write into the PM1 control registers to power off.
    pub s5: Option<SleepType>,
    /// What was odd, in the order found; at most [`MAX_PROBLEMS`].
    pub problems: ArrayVec<Problem, MAX_PROBLEMS>,
    /// How many problems there were beyond those kept.
    pub problems_dropped: usize,
}

/// Reads `length` bytes of physical memory at an address; `None` where there is
/// no memory that may be read.
pub type ReadPhysical<'r, 'm> = &'r dyn Fn(u64, usize) -> Option<&'m [u8]>;

impl Default for Platform {
    fn default() -> Self {
        Self::new()
    }
}

impl Platform {
    /// A machine about which nothing is known.
    pub const fn new() -> Self {
        Self {
            cpus: ArrayVec::new_const(),
            disabled_cpus: 0,
            dropped_cpus: 0,
            local_apic: None,
            has_8259: false,
            io_apics: ArrayVec::new_const(),
            overrides: ArrayVec::new_const(),
            local_nmis: ArrayVec::new_const(),
            memory: ArrayVec::new_const(),
            domains: ArrayVec::new_const(),
            distances: Topology::default_distances(),
            fixed: None,
            hpet: None,
            s5: None,
            problems: ArrayVec::new_const(),
            problems_dropped: 0,
        }
    }

    /// Reads the tables. `rsdp` is the physical address of the root pointer, as
    /// the boot loader gives it.
    pub fn discover(rsdp: u64, read: ReadPhysical<'_, '_>) -> Self {
        let mut this = Self::new();
        let Some(tables) = root::find_tables(rsdp, read, &mut this) else {
            return this;
        };
        if let Some(madt) = tables.madt {
            madt::read(madt, &mut this);
        }
        if let Some(srat) = tables.srat {
            numa::read_srat(srat, &mut this);
        }
        if let Some(slit) = tables.slit {
            numa::read_slit(slit, &mut this);
        }
        if let Some(hpet) = tables.hpet {
            fixed::read_hpet(hpet, &mut this);
        }
        if let Some(fadt) = tables.fadt {
            fixed::read_fadt(fadt, &mut this);
        }
        let dsdt = this.fixed.and_then(|fixed| fixed.dsdt);
        let dsdt = dsdt.and_then(|dsdt| root::named_table(dsdt, read, TableName::DSDT, &mut this));
        this.s5 = dsdt.into_iter().chain(tables.ssdts).find_map(aml::find_s5);
        if this.s5.is_none() {
            this.report(TableName::DSDT, ProblemKind::NoS5);
        }
        this
    }

    /// Makes the CPU with `apic_id` (the one that runs this) the first, and
    /// adds it if it is missing. The order of the others stays.
    pub fn put_boot_cpu_first(&mut self, apic_id: u32) {
        let place = self.cpus.iter().position(|cpu| cpu.apic_id == apic_id);
        let boot = match place {
            Some(place) => self.cpus.remove(place),
            None => {
                self.report(TableName::MADT, ProblemKind::BootCpuMissing(apic_id));
                if self.cpus.pop_at(MAX_CPUS - 1).is_some() {
                    self.dropped_cpus += 1;
                }
                Cpu {
                    apic_id,
                    uid: 0,
                    node: NodeId::FIRST,
                }
            }
        };
        self.cpus.insert(0, boot);
    }

    /// The number of nodes, at least 1.
    pub fn node_count(&self) -> usize {
        self.domains.len().max(1)
    }

    /// The topology of the first `cpus` CPUs of the list (of 1 where it is
    /// empty). Nodes stay even if none of these CPUs is on them.
    pub fn topology(&self, cpus: usize) -> Topology {
        let mut node_of: ArrayVec<NodeId, MAX_CPUS> = self
            .cpus
            .iter()
            .take(cpus.max(1))
            .map(|cpu| cpu.node)
            .collect();
        if node_of.is_empty() {
            node_of.push(NodeId::FIRST);
        }
        Topology::new(&node_of, self.node_count(), &self.distances)
            .unwrap_or(Topology::single_node(node_of.len()))
    }

    /// The node of the memory at `address` (node 0 where no table says), and
    /// the address up to which that answer holds.
    pub fn node_at(&self, address: u64) -> (NodeId, u64) {
        let next = self.memory.iter().find(|range| range.end > address);
        match next {
            Some(range) if range.start <= address => (range.node, range.end),
            Some(range) => (NodeId::FIRST, range.start),
            None => (NodeId::FIRST, u64::MAX),
        }
    }

    /// The global interrupt, polarity and trigger mode of ISA interrupt `irq`:
    /// what an override says, or the same number, active high and edge.
    pub fn isa_interrupt(&self, irq: u8) -> SourceOverride {
        let known = self.overrides.iter().find(|o| o.irq == irq).copied();
        known.unwrap_or(SourceOverride {
            irq,
            global_interrupt: u32::from(irq),
            active_low: false,
            level_triggered: false,
        })
    }

    fn report(&mut self, table: TableName, kind: ProblemKind) {
        if self.problems.try_push(Problem { table, kind }).is_err() {
            self.problems_dropped += 1;
        }
    }
}
