//! What can be odd about tables.

use core::fmt;

use platform::{MAX_CPUS, MAX_NODES};

/// The four letters that say what a table is. Prints what can be printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TableName(pub [u8; 4]);

impl TableName {
    /// The root pointer, which is not a table but has problems of its own.
    pub const RSDP: Self = Self(*b"RSDP");
    /// The root table with 32-bit addresses.
    pub const RSDT: Self = Self(*b"RSDT");
    /// The root table with 64-bit addresses.
    pub const XSDT: Self = Self(*b"XSDT");
    /// Interrupt controllers and CPUs.
    pub const MADT: Self = Self(*b"APIC");
    /// Nodes of CPUs and memory.
    pub const SRAT: Self = Self(*b"SRAT");
    /// Distances between nodes.
    pub const SLIT: Self = Self(*b"SLIT");
    /// Fixed hardware.
    pub const FADT: Self = Self(*b"FACP");
    /// The high precision event timer.
    pub const HPET: Self = Self(*b"HPET");
    /// The machine's AML program.
    pub const DSDT: Self = Self(*b"DSDT");
    /// Further AML programs.
    pub const SSDT: Self = Self(*b"SSDT");
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for byte in self.0 {
            let printable = byte.is_ascii_graphic() || byte == b' ';
            f.write_char(if printable { char::from(byte) } else { '?' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Something odd in a table. Prints as one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The table.
    pub table: TableName,
    /// What is odd.
    pub kind: ProblemKind,
}

/// What is odd in a table, and what was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The memory at this address cannot be read: passed over.
    Unreadable(u64),
    /// The name that should be there is not: passed over.
    WrongName,
    /// The bytes do not add up to 0: used all the same.
    Checksum,
    /// The table is too short for what must be in it, or absurdly long: passed over.
    Length(u32),
    /// The root table has more entries than are looked at.
    TooManyTables,
    /// A second table of this name: passed over.
    DuplicateTable,
    /// The length of the entry at this offset is too small to be true, or it
    /// reaches past the end of the table: it and all after it passed over.
    EntryLength {
        /// Where the entry starts in the table.
        offset: u32,
    },
    /// The entry at this offset is too short for its type: passed over.
    EntryShort {
        /// The type of the entry.
        kind: u8,
        /// Where the entry starts in the table.
        offset: u32,
    },
    /// More entries of this type than there is room for: passed over.
    TooManyEntries {
        /// The type of the entries.
        kind: u8,
    },
    /// A second enabled CPU with this APIC id: passed over.
    DuplicateCpu(u32),
    /// An enabled CPU whose APIC id means "all CPUs": passed over.
    BroadcastCpu,
    /// More than [`MAX_CPUS`] CPUs: the rest passed over.
    TooManyCpus,
    /// The running CPU, of this APIC id, was not listed: added.
    BootCpuMissing(u32),
    /// An interrupt override of another bus than ISA, of an interrupt that ISA
    /// does not have, or with flags that mean nothing: passed over.
    BadOverride {
        /// The interrupt.
        irq: u8,
    },
    /// A second override of this interrupt: passed over.
    DuplicateOverride {
        /// The interrupt.
        irq: u8,
    },
    /// This CPU is in no node: put on node 0.
    CpuWithoutNode(u32),
    /// This CPU is in several nodes: the first holds.
    CpuInTwoNodes(u32),
    /// More than [`MAX_NODES`] nodes: what is in this one goes to node 0.
    TooManyNodes(u32),
    /// The memory range at this address is empty or wraps: passed over.
    BadMemoryRange(u64),
    /// The memory range at this address overlaps an earlier one: the earlier holds.
    MemoryOverlap(u64),
    /// The size of the table does not fit this number of nodes: passed over.
    SlitSize(u64),
    /// This distance is not 10 from a node to itself, or below 11 to another:
    /// all distances passed over.
    SlitDistance {
        /// From this proximity domain.
        from: u32,
        /// To this one.
        to: u32,
        /// What stands there.
        distance: u8,
    },
    /// This proximity domain has no distances: 20 taken.
    SlitMissing(u32),
    /// A register is in a place that nothing can be read from: passed over.
    BadRegister,
    /// `\_S5` was not found: the machine cannot be powered off.
    NoS5,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ACPI table {}: ", self.table)?;
        match self.kind {
            ProblemKind::Unreadable(address) => {
                write!(f, "nothing readable at {address:#x}, ignored")
            }
            ProblemKind::WrongName => f.write_str("has another name, ignored"),
            ProblemKind::Checksum => f.write_str("wrong checksum, used all the same"),
            ProblemKind::Length(length) => write!(f, "length {length} is wrong, ignored"),
            ProblemKind::TooManyTables => f.write_str("too many tables, ignored the rest"),
            ProblemKind::DuplicateTable => f.write_str("there twice, ignored the second"),
            ProblemKind::EntryLength { offset } => {
                write!(
                    f,
                    "wrong length of the entry at {offset}, ignored it and the rest"
                )
            }
            ProblemKind::EntryShort { kind, offset } => {
                write!(f, "entry of type {kind} at {offset} too short, ignored")
            }
            ProblemKind::TooManyEntries { kind } => {
                write!(f, "too many entries of type {kind}, ignored one")
            }
            ProblemKind::DuplicateCpu(apic_id) => {
                write!(f, "second CPU with APIC id {apic_id}, ignored")
            }
            ProblemKind::BroadcastCpu => f.write_str("CPU with the broadcast APIC id, ignored"),
            ProblemKind::TooManyCpus => write!(f, "more than {MAX_CPUS} CPUs, ignored the rest"),
            ProblemKind::BootCpuMissing(apic_id) => {
                write!(f, "boot CPU with APIC id {apic_id} not listed, added")
            }
            ProblemKind::BadOverride { irq } => {
                write!(f, "bad override of interrupt {irq}, ignored")
            }
            ProblemKind::DuplicateOverride { irq } => {
                write!(f, "second override of interrupt {irq}, ignored")
            }
            ProblemKind::CpuWithoutNode(apic_id) => {
                write!(
                    f,
                    "no node for the CPU with APIC id {apic_id}, put on node 0"
                )
            }
            ProblemKind::CpuInTwoNodes(apic_id) => {
                write!(f, "second node for the CPU with APIC id {apic_id}, ignored")
            }
            ProblemKind::TooManyNodes(domain) => {
                write!(
                    f,
                    "more than {MAX_NODES} nodes, put domain {domain} on node 0"
                )
            }
            ProblemKind::BadMemoryRange(start) => {
                write!(f, "memory range at {start:#x} is empty or wraps, ignored")
            }
            ProblemKind::MemoryOverlap(start) => {
                write!(
                    f,
                    "memory range at {start:#x} overlaps an earlier one, which holds"
                )
            }
            ProblemKind::SlitSize(count) => {
                write!(f, "size does not fit {count} nodes, ignored")
            }
            ProblemKind::SlitDistance { from, to, distance } => {
                write!(
                    f,
                    "impossible distance {distance} from {from} to {to}, ignored all"
                )
            }
            ProblemKind::SlitMissing(domain) => {
                write!(f, "no distances of domain {domain}, took the default")
            }
            ProblemKind::BadRegister => f.write_str("register of an unknown kind, ignored"),
            ProblemKind::NoS5 => f.write_str("no \\_S5 found, cannot power off"),
        }
    }
}
