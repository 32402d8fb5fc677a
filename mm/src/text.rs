//! What the page allocator has, as text in Linux's formats, for `/proc`-like files and tests.
//! Values that are read from it print themselves; task and interrupt context.
//!
//! | value | file |
//! |---|---|
//! | [`BuddyInfo`] | `buddyinfo`: free blocks of each zone by order |
//! | [`PageTypeInfo`] | `pagetypeinfo`: the same by type of page (there is one), and how many blocks of the largest order there are |
//! | [`MemInfo`] | `meminfo`: the machine's memory by use |
//! | [`ZoneInfo`] | `zoneinfo`: watermarks, sizes and page lists of each zone |
//!
//! Lines that would speak of what there is not (page cache, swap) are left out; lines that
//! Linux does not have come last.

use core::fmt;

use platform::CpuId;

use crate::{
    Machine, State, Use,
    frame::{MAX_ORDER, ORDERS, PAGE_SIZE, Pfn},
    lists::ListCounts,
    mm::{Counts, Mm},
    zone::{Zone, ZoneKind},
};

/// `/proc/buddyinfo`.
#[derive(Debug)]
pub struct BuddyInfo<'a, M: Machine>(pub &'a Mm<M>);

impl<M: Machine> fmt::Display for BuddyInfo<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for zone in self.0.zones() {
            write!(f, "Node {}, zone {:>8} ", zone.node(), zone.kind())?;
            for blocks in self.0.zone_counts(zone).blocks {
                write!(f, "{blocks:>6} ")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// `/proc/pagetypeinfo`. All pages are of the type that Linux calls unmovable.
#[derive(Debug)]
pub struct PageTypeInfo<'a, M: Machine>(pub &'a Mm<M>);

impl<M: Machine> fmt::Display for PageTypeInfo<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const TYPE: &str = "Unmovable";
        let mm = self.0;
        for node in mm.nodes() {
            let zones = || mm.zones().filter(|zone| zone.node() == node);
            writeln!(f, "Page block order: {MAX_ORDER}")?;
            writeln!(f, "Pages per block:  {}\n", 1 << MAX_ORDER)?;
            write!(f, "{:<43} ", "Free pages count per migrate type at order")?;
            for order in 0..ORDERS {
                write!(f, "{order:>6} ")?;
            }
            writeln!(f)?;
            for zone in zones() {
                let kind = zone.kind();
                write!(f, "Node {:>4}, ", node.number())?;
                write!(f, "zone {kind:>8}, type {TYPE:>12} ")?;
                for blocks in mm.zone_counts(zone).blocks {
                    write!(f, "{blocks:>6} ")?;
                }
                writeln!(f)?;
            }
            writeln!(f, "\n{:<23}{TYPE:>12} ", "Number of blocks type ")?;
            for zone in zones() {
                let kind = zone.kind();
                writeln!(f, "Node {node}, zone {kind:>8} {:>12} ", blocks(mm, zone))?;
            }
        }
        Ok(())
    }
}

/// How many blocks of the largest order begin in a zone with memory of it.
fn blocks<M: Machine>(mm: &Mm<M>, zone: &Zone<M>) -> usize {
    let first = zone.start().0.next_multiple_of(1 << MAX_ORDER);
    let starts = (first..zone.end().0).step_by(1 << MAX_ORDER);
    starts
        .filter_map(|number| mm.frames().get(Pfn(number)))
        .filter(|frame| frame.word().state() != State::Hole && frame.word().zone() == zone.index())
        .count()
}

/// What [`MemInfo`] says beside the page allocator's own, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Slab memory that shrinkers could get back.
    pub slab_reclaimable: u64,
    /// Stacks that are not the page allocator's.
    pub stacks: u64,
    /// Page tables that are not.
    pub page_tables: u64,
    /// CPUs' own memory that is not.
    pub percpu: u64,
    /// In areas of the vmalloc range.
    pub vmalloc_used: u64,
    /// The largest piece that is free there.
    pub vmalloc_chunk: u64,
}

/// `/proc/meminfo`.
#[derive(Debug)]
pub struct MemInfo<'a, M: Machine>(pub &'a Mm<M>, pub Beside);

impl<M: Machine> fmt::Display for MemInfo<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::machine::Layout;

        let Self(mm, beside) = self;
        let counts = mm.counts();
        let bytes = |frames: u64| frames * PAGE_SIZE as u64;
        let used = |usage: Use| bytes(counts.used[usage as usize]);
        // Values end in column 24, and begin in column 16 or behind the label.
        let mut line = |label: &str, bytes: u64| {
            let begin = if label.len() < 15 {
                16
            } else {
                label.len() + 2
            };
            write!(f, "{label}:{:w$}", "", w = begin - label.len() - 1)?;
            writeln!(f, "{:>w$} kB", bytes / 1024, w = 24 - begin)
        };
        let slab = used(Use::Slab);
        let reclaimable = beside.slab_reclaimable.min(slab);
        let vmalloc = mm.layout().vmalloc();
        line("MemTotal", bytes(counts.managed))?;
        line("MemFree", bytes(counts.free))?;
        line("MemAvailable", bytes(available(mm, &counts)) + reclaimable)?;
        line("KReclaimable", reclaimable)?;
        line("Slab", slab)?;
        line("SReclaimable", reclaimable)?;
        line("SUnreclaim", slab - reclaimable)?;
        line("KernelStack", used(Use::Stack) + beside.stacks)?;
        line("PageTables", used(Use::PageTable) + beside.page_tables)?;
        line("VmallocTotal", vmalloc.len() as u64)?;
        line("VmallocUsed", beside.vmalloc_used)?;
        line("VmallocChunk", beside.vmalloc_chunk)?;
        line("Percpu", used(Use::PerCpu) + beside.percpu)?;
        line("HardwareCorrupted", bytes(counts.bad))?;
        // What Linux does not have.
        line("PageLists", bytes(counts.listed))?;
        line("Pages", used(Use::Pages))?;
        line("LargeKmalloc", used(Use::Kmalloc))?;
        line("Vmalloc", used(Use::Vmalloc))?;
        line("Descriptors", used(Use::Meta))
    }
}

/// Frames that ordinary allocations could have now: what is free, less what is kept for
/// those who cannot wait and for those who need low memory.
fn available<M: Machine>(mm: &Mm<M>, counts: &Counts) -> u64 {
    let reserve: u64 = mm
        .zones()
        .map(|zone| (zone.protection() + zone.watermarks().high).min(zone.managed()))
        .sum();
    (counts.free + counts.listed).saturating_sub(reserve)
}

/// `/proc/zoneinfo`.
#[derive(Debug)]
pub struct ZoneInfo<'a, M: Machine>(pub &'a Mm<M>);

impl<M: Machine> fmt::Display for ZoneInfo<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mm = self.0;
        let mut last = None;
        for zone in mm.zones() {
            write!(f, "Node {}, zone {:>8}", zone.node(), zone.kind())?;
            // The first zone of a node speaks for the node.
            if last.replace(zone.node()) != Some(zone.node()) {
                node(f, &mm.node_counts(zone.node()))?;
            }
            let counts = mm.zone_counts(zone);
            one_zone(f, zone, &counts)?;
            write!(f, "\n  pagesets")?;
            for (cpu, lists) in mm.page_lists() {
                if lists.home == zone.index() && M::online_cpus().contains(cpu) {
                    page_set(f, cpu, &lists)?;
                }
            }
            writeln!(
                f,
                "\n  node_unreclaimable:  0\n  start_pfn:           {}",
                zone.start().0
            )?;
        }
        Ok(())
    }
}

/// A line of a statistic.
fn statistic(f: &mut fmt::Formatter<'_>, name: &str, value: u64) -> fmt::Result {
    write!(f, "\n      {name:<12} {value}")
}

fn node(f: &mut fmt::Formatter<'_>, counts: &Counts) -> fmt::Result {
    let used = |usage: Use| counts.used[usage as usize];
    write!(f, "\n  per-node stats")?;
    statistic(f, "nr_slab_unreclaimable", used(Use::Slab))?;
    // In KiB, as Linux has it.
    let kib = used(Use::Stack) * (PAGE_SIZE as u64 / 1024);
    statistic(f, "nr_kernel_stack", kib)?;
    statistic(f, "nr_page_table_pages", used(Use::PageTable))?;
    statistic(f, "nr_vmalloc", used(Use::Vmalloc))
}

fn one_zone<M: Machine>(
    f: &mut fmt::Formatter<'_>,
    zone: &Zone<M>,
    counts: &Counts,
) -> fmt::Result {
    let marks = zone.watermarks();
    let pages = [
        ("pages free    ", counts.free),
        ("      boost   ", 0),
        ("      min     ", marks.min),
        ("      low     ", marks.low),
        ("      high    ", marks.high),
        ("      spanned ", zone.spanned()),
        ("      present ", counts.present),
        ("      managed ", counts.managed),
        ("      cma     ", 0),
    ];
    for (name, value) in pages {
        write!(f, "\n  {name} {value}")?;
    }
    // What requests for each kind of zone leave here.
    write!(f, "\n        protection: (")?;
    for (index, kind) in ZoneKind::ALL.into_iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let kept = if kind > zone.kind() {
            zone.protection()
        } else {
            0
        };
        write!(f, "{comma}{kept}")?;
    }
    write!(f, ")")?;
    statistic(f, "nr_free_pages", counts.free)?;
    statistic(f, "nr_bad_pages", counts.bad)
}

fn page_set(f: &mut fmt::Formatter<'_>, cpu: CpuId, lists: &ListCounts) -> fmt::Result {
    // Linux counts one set of pages; here the bounds of single pages stand for it.
    write!(
        f,
        "\n    cpu: {cpu}\
         \n              count:    {}\
         \n              high:     {}\
         \n              batch:    {}\
         \n              high_min: {}\
         \n              high_max: {}",
        lists.frames(),
        lists.sizes.high[0],
        lists.sizes.batch[0],
        lists.sizes.high[0],
        lists.sizes.high[0],
    )
}
