//! What a CPU that goes has of memory.

use alloc::vec::Vec;

use kernel_early::layout::{PAGE_SIZE, VMALLOC_END};
use mm::{Gfp, Pages, Use};
use platform::CpuId;

use super::{AllBack, on, others, some_other};
use crate::arch::{paging, probe};
use crate::hotplug;
use crate::kunit::{Ctx, Outcome, kassert, kassert_eq, kassert_ok};
use crate::memory::mm;

/// Frames in the page lists of a CPU.
fn listed(cpu: CpuId) -> u64 {
    let lists = mm().page_lists().find(|(there, _)| *there == cpu);
    lists.map_or(0, |(_, lists)| lists.frames())
}

/// Free pages that a CPU kept go to where all find them; it keeps some again when it is back.
pub fn page_lists_are_drained(_: &mut Ctx) -> Outcome {
    /// Frees a page, which the CPU keeps.
    fn keep_some() -> bool {
        Pages::alloc(mm(), Gfp::KERNEL, 0, Use::Pages).is_some()
    }
    for cpu in others() {
        let _back = AllBack;
        kassert_eq!(on(cpu, keep_some), Ok(true));
        kassert!(listed(cpu) > 0);
        kassert_eq!(hotplug::off(cpu), Ok(()));
        kassert_eq!(listed(cpu), 0);
        kassert_eq!(hotplug::on(cpu), Ok(()));
        kassert_eq!(on(cpu, keep_some), Ok(true));
        kassert!(listed(cpu) > 0);
    }
    Ok(())
}

/// What was unmapped while a CPU was away, and is mapped to something else, is not what the CPU
/// remembers.
pub fn translations_are_forgotten(_: &mut Ctx) -> Outcome {
    /// In no range.
    const PLACE: u64 = VMALLOC_END + 900 * PAGE_SIZE;
    let cpu = some_other();
    let _back = AllBack;
    let pages: Vec<Pages<'_, _>> = (0..2)
        .filter_map(|_| Pages::alloc(mm(), Gfp::KERNEL, 0, Use::Pages))
        .collect();
    kassert_eq!(pages.len(), 2);
    for (page, number) in pages.iter().zip(1..) {
        // SAFETY: our page.
        unsafe { page.as_ptr().cast::<u64>().write(number) };
    }
    let read = || on(cpu, || probe::read_u64(PLACE as usize).ok());
    let map = |page: usize| paging::map_memory(PLACE, pages[page].pfn().phys(), PAGE_SIZE);
    kassert_ok!(map(0));
    let first = read();
    let gone = hotplug::off(cpu);
    let unmapped = paging::unmap(PLACE, PAGE_SIZE);
    let mapped = map(1);
    let back = hotplug::on(cpu);
    let second = read();
    kassert_ok!(paging::unmap(PLACE, PAGE_SIZE));
    kassert_eq!((gone, back), (Ok(()), Ok(())));
    kassert_eq!((unmapped, mapped), (Ok(()), Ok(())));
    kassert_eq!(first, Ok(Some(1)));
    kassert_eq!(second, Ok(Some(2)));
    Ok(())
}
