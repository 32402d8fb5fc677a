//! What is known of areas, for reports and for those who watch.

use core::{fmt, ops::Range as Addresses, panic::Location};

use super::{
    Kind, Source, Vmalloc,
    node::{NodeRef, Range},
    space::Space,
};
use crate::{
    frame::{PAGE_SIZE, Use},
    machine::{Layout, Machine},
};

/// An area, as it was when it was looked at.
#[derive(Clone, Debug)]
pub struct AreaInfo {
    /// Its addresses, guards included.
    pub range: Addresses<usize>,
    /// Those that are mapped, or were.
    pub memory: Addresses<usize>,
    /// What is happening to it.
    pub state: Range,
    /// Bytes that were asked for.
    pub size: usize,
    /// Whose the frames are.
    pub kind: Kind,
    /// What they are used for.
    pub usage: Use,
    /// Who asked.
    pub caller: &'static Location<'static>,
}

impl AreaInfo {
    fn of(node: NodeRef) -> Option<Self> {
        let info = node.info.get()?;
        Some(Self {
            range: node.start.get()..node.end.get(),
            memory: node.memory(),
            state: node.state.get(),
            size: info.size,
            kind: info.kind,
            usage: info.usage,
            caller: info.caller,
        })
    }

    /// How many pages are mapped.
    pub fn pages(&self) -> usize {
        self.memory.len() / PAGE_SIZE
    }
}

impl fmt::Display for AreaInfo {
    /// Writes a line of Linux's `/proc/vmallocinfo`, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { range, caller, .. } = self;
        let pages = self.pages();
        write!(
            f,
            "{:#018x}-{:#018x} {:>7} {caller} pages={pages}",
            range.start,
            range.end,
            range.len(),
        )?;
        f.write_str(match (self.kind, self.usage) {
            (Kind::Vmap, _) => " vmap",
            (Kind::Vmalloc, Use::Stack) => " stack",
            (Kind::Vmalloc, _) => " vmalloc",
        })?;
        match self.state {
            Range::Busy => Ok(()),
            Range::Claimed => f.write_str(" (being made)"),
            Range::Free | Range::Leaving | Range::Lazy | Range::Purging => {
                f.write_str(" (unpurged)")
            }
        }
    }
}

/// What is in use, and what was done. Pages are whole pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmStats {
    /// Areas in use.
    pub areas: usize,
    /// Pages mapped in them.
    pub mapped: usize,
    /// Pages of addresses, guards included, that wait for a flush.
    pub lazy: usize,
    /// Frames that wait for it.
    pub held: usize,
    /// Flushes of all CPUs.
    pub flushes: u64,
    /// Pages, in all, that they were for.
    pub flushed: u64,
    /// Pages of descriptors.
    pub descriptors: usize,
    /// Pages of addresses that there are.
    pub total: usize,
    /// The largest free range, in pages.
    pub largest_free: usize,
}

impl fmt::Display for VmStats {
    /// Writes the lines of Linux's `/proc/meminfo`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name, pages: usize| {
            let kib = pages * (PAGE_SIZE / 1024);
            writeln!(f, "{name:<15} {kib:>8} kB")
        };
        line("VmallocTotal:", self.total)?;
        line("VmallocUsed:", self.mapped)?;
        line("VmallocChunk:", 0)
    }
}

impl<M: Machine, S: Source> Vmalloc<M, S> {
    /// The area that `address` lies in, guards included, also if it is being freed. Threads
    /// only.
    pub fn find_area(&self, address: usize) -> Option<AreaInfo> {
        AreaInfo::of(self.space.lock().tree.at(address)?)
    }

    /// [`find_area`](Self::find_area) for reports: any context. `None` also if the lock is
    /// taken.
    pub fn try_find_area(&self, address: usize) -> Option<AreaInfo> {
        AreaInfo::of(self.space.try_lock()?.tree.at(address)?)
    }

    /// The first area at or above `address`. Threads only.
    pub fn next_area(&self, address: usize) -> Option<AreaInfo> {
        let space = self.space.lock();
        let start = self.layout.vmalloc().start;
        let first = space.tree.at(address.max(start));
        core::iter::successors(first, |node| node.above.get()).find_map(AreaInfo::of)
    }

    /// Counts. Threads only.
    pub fn stats(&self) -> VmStats {
        let space: &Space = &self.space.lock();
        VmStats {
            areas: space.counts.areas,
            mapped: space.counts.mapped,
            lazy: space.counts.lazy,
            held: space.counts.held,
            flushes: space.counts.flushes,
            flushed: space.counts.flushed,
            descriptors: space.pool.pages,
            total: self.layout.vmalloc().len() / PAGE_SIZE,
            largest_free: space.tree.largest_free() / PAGE_SIZE,
        }
    }

    /// Writes a line for every area, as `/proc/vmallocinfo`. The lock is given back after
    /// each. Threads only.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_info(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let mut at = 0;
        while let Some(area) = self.next_area(at) {
            writeln!(out, "{area}")?;
            at = area.range.end;
        }
        Ok(())
    }

    /// Looks whether the descriptors are as they should be.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        self.space.lock().tree.check().map(|_| ())
    }
}
