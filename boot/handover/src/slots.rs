//! Where mappings without a fixed address go. As in the `bootloader` crate each
//! takes whole level 4 entries (512 GiB) of its own, the lowest that are free.

use crate::Error;
use bootloader_api::config::{Mapping, Mappings};
use core::ops::Range;

const ENTRIES: usize = 512;
/// log2 of the bytes one level 4 entry covers.
const ENTRY_SHIFT: u32 = 39;
/// First entry of the upper half: the addresses just below are not canonical, so
/// nothing may cross from the lower half.
const UPPER_HALF: usize = ENTRIES / 2;

/// Which level 4 entries are spoken for.
pub struct Slots {
    used: [bool; ENTRIES],
}

fn index(address: u64) -> usize {
    (address >> ENTRY_SHIFT) as usize % ENTRIES
}

impl Slots {
    /// Everything within the configured dynamic range is free at first.
    pub fn new(mappings: &Mappings) -> Self {
        let first = mappings.dynamic_range_start.unwrap_or(0);
        // The configured end is the highest address allowed: an entry that is cut
        // short by it could hold less than it should, so only whole ones count.
        let last = mappings.dynamic_range_end.unwrap_or(u64::MAX);
        let mut used = [true; ENTRIES];
        for (i, used) in used.iter_mut().enumerate() {
            let mut start = (i as u64) << ENTRY_SHIFT;
            if i >= UPPER_HALF {
                start |= 0xffff_0000_0000_0000;
            }
            let end = start + ((1 << ENTRY_SHIFT) - 1);
            *used = start < first || end > last;
        }
        Self { used }
    }

    /// Keeps dynamic mappings away from `range`, which is not empty and canonical.
    pub fn mark(&mut self, range: &Range<u64>) {
        for used in &mut self.used[index(range.start)..=index(range.end - 1)] {
            *used = true;
        }
    }

    /// Returns an address for `size` bytes and keeps others away from it.
    pub fn take(&mut self, what: &'static str, size: u64) -> Result<u64, Error> {
        let count = size.div_ceil(1 << ENTRY_SHIFT).max(1) as usize;
        let free = |start: usize| {
            let end = start + count;
            let crosses = start < UPPER_HALF && end > UPPER_HALF;
            !crosses && self.used[start..end].iter().all(|used| !used)
        };
        let start = (0..=ENTRIES.saturating_sub(count))
            .find(|&start| free(start))
            .ok_or(Error::Mapping {
                what,
                address: 0,
                problem: "no free level 4 entry in the dynamic range",
            })?;
        self.used[start..start + count].fill(true);
        let address = (start as u64) << ENTRY_SHIFT;
        Ok(if start >= UPPER_HALF {
            address | 0xffff_0000_0000_0000
        } else {
            address
        })
    }

    /// The address of a mapping of `size` bytes that is configured as `mapping`.
    pub fn place(
        &mut self,
        what: &'static str,
        mapping: Mapping,
        size: u64,
        align: u64,
    ) -> Result<u64, Error> {
        let address = match mapping {
            Mapping::Dynamic => self.take(what, size)?,
            Mapping::FixedAddress(address) => address,
        };
        check_range(what, address, size, align)?;
        Ok(address)
    }
}

/// Checks that `size` bytes at `address` are canonical and aligned to `align`.
pub fn check_range(what: &'static str, address: u64, size: u64, align: u64) -> Result<(), Error> {
    let fail = |problem| {
        Err(Error::Mapping {
            what,
            address,
            problem,
        })
    };
    let end = address.checked_add(size);
    let Some(last) = end.filter(|_| size != 0).map(|end| end - 1) else {
        return fail("empty, or up to the end of the address space");
    };
    let canonical = |address: u64| matches!(address >> 47, 0 | 0x1_ffff);
    if !canonical(address) || !canonical(last) || address >> 63 != last >> 63 {
        return fail("not canonical");
    }
    if !address.is_multiple_of(align) {
        return fail("not sufficiently aligned");
    }
    Ok(())
}
