//! SRAT and SLIT: the nodes of CPUs and memory, and their distances.

use arrayvec::ArrayVec;
use platform::{MAX_DISTANCE, MAX_NODES, NodeId};

use super::layout::{Entry, HEADER_SIZE, Table};
use super::{MAX_MEMORY_RANGES, Platform, ProblemKind};
use crate::bytes::{u32_at, u64_at};

/// Where the entries of the SRAT start.
const ENTRIES: usize = HEADER_SIZE + 12;

/// Memory that belongs to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// The first physical address.
    pub start: u64,
    /// The address behind the last.
    pub end: u64,
    /// The node.
    pub node: NodeId,
    /// Whether memory may come and go here: there need be none now.
    pub hot_pluggable: bool,
}

/// An entry of the SRAT that is enabled and of a kind that matters.
enum Affinity {
    Cpu {
        apic_id: u32,
        domain: u32,
    },
    Memory {
        start: u64,
        length: u64,
        hot_pluggable: bool,
        domain: u32,
    },
}

/// Reads an entry. `None` for one that is of no interest, `Some(Err)` for one
/// that is too short.
fn affinity(entry: Entry<'_>, revision: u8) -> Option<Result<Affinity, ()>> {
    /// The parts of an entry, in the order of the standard; `None` if too short.
    fn read(entry: Entry<'_>, revision: u8) -> Option<(u32, Affinity)> {
        let bytes = entry.bytes;
        let byte = |at: usize| bytes.get(at).copied().map(u32::from);
        // Before revision 2 a domain had 8 bits and its other bytes no meaning.
        let domain = |domain: u32| if revision < 2 { domain & 0xff } else { domain };
        match entry.kind {
            0 => {
                // The field behind the last that is read tells the length.
                u32_at(bytes, 12)?;
                let high = u32_at(bytes, 8)? & 0xffff_ff00;
                let domain = domain(high | byte(2)?);
                Some((
                    u32_at(bytes, 4)?,
                    Affinity::Cpu {
                        apic_id: byte(3)?,
                        domain,
                    },
                ))
            }
            1 => {
                u64_at(bytes, 32)?;
                let flags = u32_at(bytes, 28)?;
                let start = u64_at(bytes, 8)?;
                let length = u64_at(bytes, 16)?;
                let hot_pluggable = flags & 2 != 0;
                let domain = domain(u32_at(bytes, 2)?);
                Some((
                    flags,
                    Affinity::Memory {
                        start,
                        length,
                        hot_pluggable,
                        domain,
                    },
                ))
            }
            _ => {
                u32_at(bytes, 20)?;
                let (domain, apic_id) = (u32_at(bytes, 4)?, u32_at(bytes, 8)?);
                Some((u32_at(bytes, 12)?, Affinity::Cpu { apic_id, domain }))
            }
        }
    }
    if entry.kind > 2 {
        return None;
    }
    match read(entry, revision) {
        Some((flags, affinity)) => (flags & 1 != 0).then_some(Ok(affinity)),
        None => Some(Err(())),
    }
}

/// Reads the SRAT into `platform`, which has the MADT's CPUs already.
pub(super) fn read_srat(srat: Table<'_>, platform: &mut Platform) {
    let revision = srat.revision();
    if srat.bytes.len() < ENTRIES {
        platform.report(srat.name, ProblemKind::Length(srat.bytes.len() as u32));
        return;
    }
    number_domains(srat, platform);

    let mut placed = [false; platform::MAX_CPUS];
    srat.entries(ENTRIES, Some(platform), |entry, platform| {
        let (Some(affinity), Some(platform)) = (affinity(entry, revision), platform) else {
            return;
        };
        match affinity {
            Err(()) => entry.report_short(platform),
            Ok(Affinity::Cpu { apic_id, domain }) => {
                let node = node_of_domain(platform, domain);
                let place = platform.cpus.iter().position(|cpu| cpu.apic_id == apic_id);
                // CPUs that are not enabled in the MADT have entries here too.
                let Some(place) = place else { return };
                if placed[place] {
                    if platform.cpus[place].node != node {
                        platform.report(srat.name, ProblemKind::CpuInTwoNodes(apic_id));
                    }
                } else {
                    platform.cpus[place].node = node;
                    placed[place] = true;
                }
            }
            Ok(Affinity::Memory {
                start,
                length,
                hot_pluggable,
                domain,
            }) => {
                let node = node_of_domain(platform, domain);
                let end = start.checked_add(length).filter(|&end| end > start);
                match end {
                    None => platform.report(srat.name, ProblemKind::BadMemoryRange(start)),
                    // A node is not made by memory that may come one day.
                    Some(_) if hot_pluggable && !platform.domains.contains(&domain) => {}
                    Some(end) => add_memory(
                        MemoryRange {
                            start,
                            end,
                            node,
                            hot_pluggable,
                        },
                        srat,
                        platform,
                    ),
                }
            }
        }
    });
    if platform.domains.is_empty() {
        return;
    }
    for (cpu, _) in platform
        .cpus
        .clone()
        .iter()
        .zip(placed)
        .filter(|&(_, placed)| !placed)
    {
        platform.report(srat.name, ProblemKind::CpuWithoutNode(cpu.apic_id));
    }
}

/// Fills in `platform.domains`: those that have a CPU or memory, in the order
/// of their numbers, so that nodes are numbered as the firmware numbers them.
fn number_domains(srat: Table<'_>, platform: &mut Platform) {
    let revision = srat.revision();
    let mut domains = ArrayVec::<u32, MAX_NODES>::new();
    let mut left_out = None;
    srat.entries(ENTRIES, None, |entry, _| {
        let domain = match affinity(entry, revision) {
            Some(Ok(Affinity::Cpu { apic_id, domain })) => platform
                .cpus
                .iter()
                .any(|cpu| cpu.apic_id == apic_id)
                .then_some(domain),
            Some(Ok(Affinity::Memory {
                start,
                length,
                hot_pluggable: false,
                domain,
            })) => start
                .checked_add(length)
                .filter(|&end| end > start)
                .map(|_| domain),
            _ => None,
        };
        let Some(domain) = domain else { return };
        if let Err(place) = domains.binary_search(&domain)
            && domains.try_insert(place, domain).is_err()
        {
            left_out = Some(domain);
        }
    });
    platform.domains = domains;
    if let Some(domain) = left_out {
        platform.report(srat.name, ProblemKind::TooManyNodes(domain));
    }
}

/// The node of a domain; node 0 if the domain has none.
fn node_of_domain(platform: &Platform, domain: u32) -> NodeId {
    let place = platform.domains.iter().position(|&known| known == domain);
    place.and_then(NodeId::from_index).unwrap_or(NodeId::FIRST)
}

/// Adds the parts of `range` that no earlier range has.
fn add_memory(range: MemoryRange, srat: Table<'_>, platform: &mut Platform) {
    let mut parts = ArrayVec::<MemoryRange, { MAX_MEMORY_RANGES + 1 }>::new();
    let mut start = range.start;
    let mut overlap = false;
    for earlier in &platform.memory {
        if earlier.end <= start {
            continue;
        }
        if earlier.start >= range.end {
            break;
        }
        overlap = true;
        if earlier.start > start {
            parts.push(MemoryRange {
                start,
                end: earlier.start,
                ..range
            });
        }
        start = earlier.end;
    }
    if start < range.end {
        parts.push(MemoryRange { start, ..range });
    }
    if overlap {
        platform.report(srat.name, ProblemKind::MemoryOverlap(range.start));
    }
    for part in parts {
        let place = platform
            .memory
            .partition_point(|earlier| earlier.start < part.start);
        if platform.memory.try_insert(place, part).is_err() {
            platform.report(srat.name, ProblemKind::TooManyEntries { kind: 1 });
        }
    }
}

/// Reads the SLIT into `platform`, which has its nodes already.
pub(super) fn read_slit(slit: Table<'_>, platform: &mut Platform) {
    let body = slit.body();
    let count = u64_at(body, 0).unwrap_or(0);
    let matrix = body.get(8..).unwrap_or(&[]);
    if count == 0 || count.checked_mul(count) != Some(matrix.len() as u64) {
        return platform.report(slit.name, ProblemKind::SlitSize(count));
    }
    // Its square is the length of a slice.
    let count = count as usize;
    let at = |from: u32, to: u32| {
        let (from, to) = (from as usize, to as usize);
        (from < count && to < count).then(|| matrix[from * count + to])
    };

    let mut distances = platform.distances;
    let domains = platform.domains.clone();
    for (i, &from) in domains.iter().enumerate() {
        if at(from, from).is_none() {
            platform.report(slit.name, ProblemKind::SlitMissing(from));
        }
        for (j, &to) in domains.iter().enumerate() {
            let Some(distance) = at(from, to) else {
                continue;
            };
            if (i == j) != (distance == 10) || distance < 10 {
                let kind = ProblemKind::SlitDistance { from, to, distance };
                return platform.report(slit.name, kind);
            }
            // 255 means "not reachable", but the memory is there: very far.
            distances[i][j] = distance.min(MAX_DISTANCE);
        }
    }
    platform.distances = distances;
}
