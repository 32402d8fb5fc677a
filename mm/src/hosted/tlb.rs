//! The page tables of the vmalloc range, and what the CPUs remember of them.
//!
//! | a page is | mapped | stale | clean |
//! |---|---|---|---|
//! | it has a frame | yes | no | no |
//! | CPUs may have its translation | yes | the old one | no |
//! | becomes so by | `map` of a clean page | `unmap` | `flush` of a stale page |
//!
//! A processor may read a translation ahead of any access, so `map` of a stale page is
//! refused whether or not a CPU has accessed it. Beside this, each CPU has the translations
//! that it got by [`access`](super::Memory::access), until a flush drops them.

use core::{fmt, ops::Range};
use std::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use platform::CpuId;

use crate::{
    frame::{PAGE_SHIFT, Pfn},
    machine::Access,
};

/// Nothing is mapped at a vmalloc address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing is mapped there")
    }
}

impl core::error::Error for Fault {}

/// See the module's documentation. Pages go by their numbers.
#[derive(Debug)]
pub(super) struct Translations {
    range: Range<usize>,
    mapped: BTreeMap<usize, (Pfn, Access)>,
    stale: BTreeSet<usize>,
    /// Of each CPU, as far as it accessed anything.
    cpus: BTreeMap<usize, BTreeMap<usize, Pfn>>,
    flushes: Vec<Range<usize>>,
    fail_map: Option<u64>,
}

impl Translations {
    pub(super) fn new(range: Range<usize>) -> Self {
        Self {
            range,
            mapped: BTreeMap::new(),
            stale: BTreeSet::new(),
            cpus: BTreeMap::new(),
            flushes: Vec::new(),
            fail_map: None,
        }
    }

    /// The numbers of `pages` pages from `virt` on.
    fn pages(&self, virt: usize, pages: usize) -> Range<usize> {
        let bytes = pages << PAGE_SHIFT;
        assert!(
            virt.is_multiple_of(1 << PAGE_SHIFT)
                && self.range.contains(&virt)
                && bytes <= self.range.end - virt,
            "{pages} pages at {virt:#x} are not in the vmalloc range {:#x?}",
            self.range
        );
        virt >> PAGE_SHIFT..(virt + bytes) >> PAGE_SHIFT
    }

    /// The `nth` call of [`begin_map`](Self::begin_map) fails.
    pub(super) fn fail_map(&mut self, nth: u64) {
        self.fail_map = Some(nth);
    }

    /// Whether there are tables for one more mapping.
    pub(super) fn begin_map(&mut self) -> bool {
        let left = self.fail_map;
        self.fail_map = left.and_then(|left| left.checked_sub(1));
        left != Some(0)
    }

    /// Pages get frames.
    pub(super) fn map(&mut self, virt: usize, frames: &[Pfn], access: Access) {
        for (page, &frame) in self.pages(virt, frames.len()).zip(frames) {
            let address = page << PAGE_SHIFT;
            assert!(
                !self.stale.contains(&page),
                "{address:#x} is mapped, though CPUs may have translations from before: it was \
                 unmapped and not flushed"
            );
            let was = self.mapped.insert(page, (frame, access));
            assert!(was.is_none(), "{address:#x} is mapped already");
        }
    }

    /// Pages lose their frames.
    pub(super) fn unmap(&mut self, virt: usize, pages: usize) {
        for page in self.pages(virt, pages) {
            let address = page << PAGE_SHIFT;
            let was = self.mapped.remove(&page);
            assert!(was.is_some(), "{address:#x} is unmapped, but is not mapped");
            self.stale.insert(page);
        }
    }

    /// Pages that were just mapped never were.
    pub(super) fn forget(&mut self, virt: usize, pages: usize) {
        for page in self.pages(virt, pages) {
            self.mapped.remove(&page);
        }
    }

    /// Begins a flush of `range` on every CPU.
    pub(super) fn note_flush(&mut self, range: &Range<usize>) {
        self.flushes.push(range.clone());
    }

    /// The stale pages of `range`.
    pub(super) fn stale_in(&self, range: &Range<usize>) -> BTreeSet<usize> {
        let pages = range.start >> PAGE_SHIFT..range.end.div_ceil(1 << PAGE_SHIFT);
        self.stale.range(pages).copied().collect()
    }

    /// A CPU drops its translations of `range`.
    pub(super) fn flush_cpu(&mut self, cpu: CpuId, range: &Range<usize>) {
        let pages = range.start >> PAGE_SHIFT..range.end.div_ceil(1 << PAGE_SHIFT);
        if let Some(known) = self.cpus.get_mut(&cpu.index()) {
            known.retain(|page, _| !pages.contains(page));
        }
    }

    /// All CPUs have dropped translations of `pages`, which were stale when that began.
    pub(super) fn end_flush(&mut self, pages: &BTreeSet<usize>) {
        self.stale.retain(|page| !pages.contains(page));
    }

    pub(super) fn access(&mut self, cpu: CpuId, address: usize) -> Result<Pfn, Fault> {
        let page = self.pages(address & !((1 << PAGE_SHIFT) - 1), 1).start;
        let truth = self.mapped.get(&page).map(|&(frame, _)| frame);
        let known = self.cpus.entry(cpu.index()).or_default();
        if let Some(&frame) = known.get(&page) {
            assert!(
                truth == Some(frame),
                "cpu{cpu} accesses {address:#x} by a translation from before, to frame {frame}: \
                 there is now {truth:?}"
            );
        }
        let frame = truth.ok_or(Fault)?;
        known.insert(page, frame);
        Ok(frame)
    }

    pub(super) fn mapped(&self) -> usize {
        self.mapped.len()
    }

    pub(super) fn stale(&self) -> usize {
        self.stale.len()
    }

    pub(super) fn take_flushes(&mut self) -> Vec<Range<usize>> {
        core::mem::take(&mut self.flushes)
    }
}
