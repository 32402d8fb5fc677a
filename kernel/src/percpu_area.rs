//! Per-CPU memory that is taken and given back at run time.
//!
//! It lies behind the static data in every CPU's copy, at the same distance on each, so an
//! address in it is used like that of a static: `gs:[address]` is the own CPU's. The size is
//! fixed for now; what is free is a bitmap of granules.

use core::alloc::Layout;

use platform::PerCpuAddr;

use crate::{
    arch::percpu,
    smp,
    sync::{IrqLock, PerCpuArea},
};

/// Bytes for it on each CPU.
pub const SIZE: usize = 32 * 1024;
/// The smallest piece, in bytes.
const GRANULE: usize = 16;
const GRANULES: usize = SIZE / GRANULE;
/// The largest alignment: that of the copies.
const MAX_ALIGN: usize = 64;

struct Area {
    used: [u64; GRANULES / 64],
    granules_used: usize,
}

static AREA: IrqLock<Area, PerCpuArea> = IrqLock::new(Area {
    used: [0; GRANULES / 64],
    granules_used: 0,
});

impl Area {
    fn is_used(&self, granule: usize) -> bool {
        self.used[granule / 64] & (1 << (granule % 64)) != 0
    }

    fn mark(&mut self, start: usize, count: usize, used: bool) {
        for granule in start..start + count {
            let bit = 1 << (granule % 64);
            if used {
                self.used[granule / 64] |= bit;
            } else {
                self.used[granule / 64] &= !bit;
            }
        }
        if used {
            self.granules_used += count;
        } else {
            self.granules_used -= count;
        }
    }

    /// The first run of `count` free granules that begins at a multiple of `step`.
    fn find(&self, count: usize, step: usize) -> Option<usize> {
        let mut start = 0;
        while start + count <= GRANULES {
            match (start..start + count).rev().find(|&at| self.is_used(at)) {
                None => return Some(start),
                Some(used) => start = (used + 1).next_multiple_of(step),
            }
        }
        None
    }
}

/// Where the area begins in a copy: behind the static data.
pub fn begin() -> usize {
    let (_, len) = percpu::template();
    len.next_multiple_of(MAX_ALIGN)
}

/// The address of a granule, as that of a static in the template would be.
fn address(granule: usize) -> usize {
    percpu::template().0 + begin() + granule * GRANULE
}

/// Zeroed memory on every CPU. `None`: none that large is free, or the alignment is beyond
/// that of the copies.
pub fn alloc(layout: Layout) -> Option<PerCpuAddr> {
    if layout.align() > MAX_ALIGN {
        return None;
    }
    let count = layout.size().div_ceil(GRANULE).max(1);
    let step = layout.align().div_ceil(GRANULE).max(1);
    let start = {
        let mut area = AREA.lock();
        let start = area.find(count, step)?;
        area.mark(start, count, true);
        start
    };
    let addr = PerCpuAddr(address(start));
    for cpu in smp::cpus() {
        let memory = percpu::dynamic_on(addr.0, cpu);
        // SAFETY: the piece was just marked as ours; it lies in every CPU's copy.
        unsafe { core::ptr::write_bytes(memory.as_ptr(), 0, count * GRANULE) };
    }
    Some(addr)
}

/// Gives memory back.
///
/// # Safety
///
/// `addr` came from [`alloc()`] with `layout`, and nobody uses it any more.
pub unsafe fn free(addr: PerCpuAddr, layout: Layout) {
    let count = layout.size().div_ceil(GRANULE).max(1);
    let start = (addr.0 - address(0)) / GRANULE;
    AREA.lock().mark(start, count, false);
}

/// Bytes in use on each CPU.
pub fn used() -> usize {
    AREA.lock().granules_used * GRANULE
}
