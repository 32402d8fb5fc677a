//! Physical memory: the accounts, and the memory itself.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use kernel_early::layout::{FRAME_MAP, PAGE_SIZE, PHYS_MAP, phys_to_virt};
use mm::boot::{Purpose, State, handover};
use mm::frame::{Frame, MAX_ORDER, Pfn};
use mm::region::Region;
use mm::{BlockKind, Gfp, Pages};

use crate::arch::percpu::PerCpuCell;
use crate::arch::stacks::{self, Use};
use crate::arch::{paging, probe};
use crate::kunit::{Ctx, Outcome, Stop, kassert, kassert_eq, kassert_ok, kskip, kunit_suite};
use crate::memory::frame_map;
use crate::{boot, memory, percpu, sched, smp};

kunit_suite! {
    name: "memory",
    cases: [
        regions_are_in_order,
        sums_agree,
        shares_add_up,
        every_frame_is_what_it_should_be,
        address_to_frame_and_back,
        summary,
        used_for_what_it_is,
        trampoline_is_low,
        free_memory_is_mapped,
        free_memory_holds_patterns,
        cpus_have_memory_of_their_nodes,
        every_frame_has_a_descriptor,
        descriptors_of_holes_are_zeros_and_stay_so,
        descriptors_are_on_their_nodes,
    ],
}

percpu! {
    static HERE: u64 = 0;
}

fn regions() -> Vec<(Region, State)> {
    memory::with_frames(|frames| frames.regions().to_vec())
}

fn state_at(address: u64) -> Option<State> {
    memory::with_frames(|frames| frames.state_at(address))
}

/// Ascending, without overlap, and whole pages wherever the kernel uses or may use them.
fn regions_are_in_order(_: &mut Ctx) -> Outcome {
    let regions = regions();
    kassert!(!regions.is_empty());
    for pair in regions.windows(2) {
        kassert!(pair[0].0.end() <= pair[1].0.start(), "{pair:?}");
        let merged = pair[0].0.end() == pair[1].0.start() && pair[0].1 == pair[1].1;
        kassert!(!merged, "two regions that are one: {pair:?}");
    }
    for (region, state) in regions {
        if state != State::Reserved {
            let aligned = region.start() % PAGE_SIZE == 0 && region.end() % PAGE_SIZE == 0;
            kassert!(aligned, "{region:?} {state:?}");
        }
    }
    Ok(())
}

fn sums_agree(_: &mut Ctx) -> Outcome {
    let all_states = [State::Free, State::Reserved]
        .into_iter()
        .chain(Purpose::ALL.into_iter().map(State::Used));
    let regions = regions();
    let mut sum = 0;
    for state in all_states {
        let here: u64 = regions
            .iter()
            .filter(|(_, of)| *of == state)
            .map(|(region, _)| region.size())
            .sum();
        kassert_eq!(
            memory::with_frames(|frames| frames.bytes(state)),
            here,
            "{state:?}"
        );
        sum += here;
    }
    let total = memory::with_frames(|frames| frames.total());
    kassert_eq!(sum, total);
    kassert_eq!(
        total,
        regions.iter().map(|(region, _)| region.size()).sum::<u64>()
    );
    let free = memory::with_frames(|frames| frames.bytes(State::Free));
    kassert!(free > 0 && memory::usable_bytes() >= free);
    Ok(())
}

/// Every byte of the firmware's map is in exactly one share.
fn shares_add_up(_: &mut Ctx) -> Outcome {
    let shares = memory::Shares::now();
    kassert_eq!(shares.sum(), shares.total, "{shares:?}");
    kassert_eq!(
        shares.total,
        memory::with_frames(|frames| frames.total()),
        "the firmware's map is what it was"
    );
    // What the accounts call free is the page allocator's, less what is too high for it.
    let counts = memory::mm().counts();
    let free = memory::with_frames(|frames| frames.bytes(State::Free));
    kassert_eq!(counts.managed * PAGE_SIZE, free - shares.too_high);
    kassert!(shares.free > 0 && shares.used.iter().sum::<u64>() > 0);
    Ok(())
}

/// Every frame is what the accounts say, or what the allocator says of it, on its node; those
/// in between are holes; and the frames of each state are as many as the allocator counts.
fn every_frame_is_what_it_should_be(_: &mut Ctx) -> Outcome {
    let (regions, end) = (regions(), frame_map::end());
    let frames = memory::mm().frames();
    kassert_eq!(frames.end(), end);
    let word = |pfn: Pfn| frames.get(pfn).map(Frame::word);
    let hole = |pfn: Pfn| word(pfn).is_some_and(|word| word.state() == mm::State::Hole);
    let mut behind = Pfn(0);
    for block in handover::blocks(&regions, end, memory::node_at) {
        for between in (behind.0..block.start.0).map(Pfn) {
            kassert!(hole(between), "{between}: {:?}", word(between));
        }
        behind = block.end;
        for pfn in (block.start.0..block.end.0).map(Pfn) {
            let word = kassert_ok!(word(pfn));
            let fits = match block.kind {
                BlockKind::Boot => word.state() == mm::State::Boot,
                BlockKind::Reserved => word.state() == mm::State::Reserved,
                BlockKind::Free => !matches!(
                    word.state(),
                    mm::State::Boot | mm::State::Reserved | mm::State::Hole
                ),
            };
            kassert!(fits, "{pfn}: {word:?} in {block:?}");
            kassert_eq!(word.zone().node(), block.node, "{pfn}");
        }
    }
    kassert_eq!(behind, end);
    kassert_eq!(word(end), None);
    quiet_audit()
}

/// From an address to its frame and its node, and back, for every page of the map.
fn address_to_frame_and_back(_: &mut Ctx) -> Outcome {
    let frames = memory::mm().frames();
    for pfn in (0..frames.end().0).map(Pfn) {
        let address = frames.address_of(pfn).addr();
        kassert_eq!(address as u64, phys_to_virt(pfn.phys()));
        kassert_eq!(frames.pfn_of_address(address), Some(pfn));
        kassert_eq!(frames.pfn_of_address(address + 4095), Some(pfn));
        let frame = kassert_ok!(frames.get(pfn));
        kassert_eq!(frames.pfn_of(frame), pfn);
        kassert_eq!(
            core::ptr::from_ref(frame).addr() as u64,
            frame_map::address_of(pfn)
        );
        let word = frame.word();
        if word.state() != mm::State::Hole {
            kassert_eq!(word.zone().node(), memory::node_at(pfn.phys()).0, "{pfn}");
        }
        if let Some((head, word)) = frames.head_of(pfn) {
            let inside = head <= pfn && pfn.0 < head.0 + (1 << word.order());
            kassert!(inside, "{pfn}: head {head} is {word:?}");
        }
    }
    let end = frames.address_of(frames.end()).addr();
    kassert_eq!(frames.pfn_of_address(end), None);
    kassert_eq!(frames.pfn_of_address(PHYS_MAP as usize - 1), None);
    kassert_eq!(frames.pfn_of_address(FRAME_MAP as usize), None);
    Ok(())
}

/// [`Mm::audit`](mm::Mm::audit), tried a few times: other threads may allocate now and then.
pub fn quiet_audit() -> Outcome {
    const TRIES: usize = 10;
    let mut result = memory::mm().audit();
    for _ in 1..TRIES {
        if result.is_ok() {
            break;
        }
        sched::sleep_ns(2_000_000);
        result = memory::mm().audit();
    }
    kassert_eq!(result, Ok(()));
    Ok(())
}

/// `mem` shows these figures, and they add up there, too.
fn summary(_: &mut Ctx) -> Outcome {
    let mut text = String::new();
    memory::print_summary(&mut text);
    for name in [
        "boot: kernel",
        "boot: page tables",
        "boot: boot heap",
        "boot: frame map",
        "used: stack",
        "free",
        "free, in page lists",
        "reserved",
        "total",
    ] {
        kassert!(
            text.lines().any(|line| line.starts_with(name)),
            "no line for {name}:\n{text}"
        );
    }
    kassert!(!text.contains("THE PARTS"), "{text}");
    Ok(())
}

fn physical<T>(place: &T) -> Result<u64, Stop> {
    let address = core::ptr::from_ref(place).addr() as u64;
    Ok(kassert_ok!(paging::lookup(address), "{address:#x}").phys)
}

/// Things lie where the accounts say such things are.
fn used_for_what_it_is(_: &mut Ctx) -> Outcome {
    static CONSTANT: u64 = 17;
    let boxed = Box::new(0u64);
    let local = core::hint::black_box(0u64);
    kassert_eq!(
        state_at(physical(&CONSTANT)?),
        Some(State::Used(Purpose::Kernel))
    );
    // Boxes are of a slab.
    let boxed = kassert_ok!(Pfn::of_phys(physical(&*boxed)?));
    let (_, word) = kassert_ok!(memory::mm().frames().head_of(boxed));
    kassert_eq!(word.state(), mm::State::Used(mm::Use::Slab));
    // Threads got their stacks from the page allocator.
    let stack = kassert_ok!(Pfn::of_phys(physical(&local)?));
    let (_, word) = kassert_ok!(memory::mm().frames().head_of(stack));
    kassert_eq!(word.state(), mm::State::Used(mm::Use::Stack));
    kassert_eq!(
        state_at(paging::root()),
        Some(State::Used(Purpose::PageTables))
    );
    for cpu in smp::online() {
        let place = physical(HERE.on(cpu))?;
        kassert_eq!(
            state_at(place),
            Some(State::Used(Purpose::PerCpu)),
            "{cpu:?}"
        );
    }
    if let Some((_, data)) = boot::ramdisk().and_then(|ramdisk| ramdisk.members().next()) {
        let place = data.as_ptr().addr() as u64 - PHYS_MAP;
        kassert_eq!(state_at(place), Some(State::Used(Purpose::Ramdisk)));
    }
    Ok(())
}

/// Other CPUs start in real mode, which reaches the first MiB.
fn trampoline_is_low(_: &mut Ctx) -> Outcome {
    let places = memory::with_frames(|frames| {
        frames
            .regions_of(State::Used(Purpose::Trampoline))
            .collect::<Vec<_>>()
    });
    kassert!(!places.is_empty());
    for place in places {
        kassert!(place.start() > 0 && place.end() <= 1 << 20, "{place:?}");
    }
    Ok(())
}

/// The physical addresses of up to `most` free pages, spread evenly over each free region,
/// its first and last page among them.
fn sample(most: u64) -> Vec<u64> {
    let free: Vec<Region> = memory::with_frames(|frames| frames.free().collect());
    let mut pages = Vec::new();
    for region in free {
        let last = region.pages() - 1;
        let step = (last / most).max(1);
        pages.extend(
            (0..last)
                .step_by(step as usize)
                .map(|page| region.start() + page * PAGE_SIZE),
        );
        pages.push(region.start() + last * PAGE_SIZE);
    }
    pages
}

fn free_memory_is_mapped(_: &mut Ctx) -> Outcome {
    for phys in sample(2_000) {
        let page = kassert_ok!(paging::lookup(phys_to_virt(phys)), "{phys:#x}");
        kassert_eq!(page.phys, phys);
        kassert!(
            page.writable && !page.executable && !page.uncached,
            "{phys:#x}: {page:?}"
        );
    }
    Ok(())
}

/// Words of a free page that are written, from its start.
const WORDS: [u64; 3] = [0, PAGE_SIZE / 2, PAGE_SIZE - 8];

/// Memory is there, every address is another place, and bits can be both 0 and 1: in half of
/// what is free.
fn free_memory_holds_patterns(_: &mut Ctx) -> Outcome {
    /// A page out of so many.
    const STEP: usize = 7;
    let mm = memory::mm();
    let mut blocks = Vec::new();
    let enough = mm.counts().free / 2;
    while (blocks.len() as u64) << MAX_ORDER < enough {
        let gfp = Gfp::KERNEL | Gfp::NOWARN;
        let Some(block) = Pages::alloc(mm, gfp, MAX_ORDER, mm::Use::Pages) else {
            break;
        };
        blocks.push(block);
    }
    kassert!(!blocks.is_empty());
    let places = || {
        let starts = blocks.iter().map(|block| block.as_ptr().addr().get());
        starts
            .flat_map(|start| {
                (0..1_usize << MAX_ORDER)
                    .step_by(STEP)
                    .map(move |page| start + page * 4096)
            })
            .flat_map(|page| WORDS.map(|word| page as u64 + word))
    };
    for invert in [0, u64::MAX] {
        // All first, so that two addresses of one place are found out.
        for place in places() {
            // SAFETY: in a block that is ours, mapped for writing (else this is the test that
            // says so, by a fault).
            unsafe { (place as *mut u64).write_volatile(place ^ invert) };
        }
        for place in places() {
            kassert_eq!(
                probe::read_u64(place as usize),
                Ok(place ^ invert),
                "{place:#x}"
            );
        }
    }
    Ok(())
}

/// A CPU's own data and its stacks for interrupts are on its node, where that has memory.
fn cpus_have_memory_of_their_nodes(_: &mut Ctx) -> Outcome {
    let (topology, acpi) = (boot::topology(), boot::acpi());
    if topology.node_count() == 1 {
        kskip!("there is only one node");
    }
    for cpu in smp::online() {
        let node = topology.node_of(cpu);
        let on_node = |region: Region| {
            acpi.memory
                .iter()
                .any(|range| range.node == node && region.contains(range.start))
                || acpi.node_at(region.start()).0 == node
        };
        if !memory::with_frames(|frames| frames.free().any(on_node)) {
            continue;
        }
        let own = physical(HERE.on(cpu))?;
        kassert_eq!(acpi.node_at(own).0, node, "data of {cpu:?} at {own:#x}");
        let stack = stacks::locate(Use::Nmi, cpu).bottom;
        let stack = kassert_ok!(paging::lookup(stack)).phys;
        kassert_eq!(
            acpi.node_at(stack).0,
            node,
            "NMI stack of {cpu:?} at {stack:#x}"
        );
    }
    Ok(())
}

/// Frames that a page of descriptors describes.
const DESCRIBED: u32 = (PAGE_SIZE as usize / size_of::<Frame>()) as u32;

/// The pages of descriptors: the first frame of each.
fn descriptor_pages() -> impl Iterator<Item = Pfn> {
    (0..frame_map::end().0).step_by(DESCRIBED as usize).map(Pfn)
}

fn describes_memory(page: Pfn) -> bool {
    let end = Pfn(page.0 + DESCRIBED);
    memory::with_frames(|frames| handover::has_memory(frames.regions(), page, end))
}

/// The map reaches over all memory that can be used, and no further.
fn every_frame_has_a_descriptor(_: &mut Ctx) -> Outcome {
    let end = frame_map::end();
    for (region, state) in regions() {
        let inside = region.end() <= end.phys();
        kassert!(inside || state == State::Reserved, "{region:?} {state:?}");
    }
    kassert_eq!(frame_map::address_of(Pfn(0)), FRAME_MAP);
    for page in descriptor_pages() {
        let address = frame_map::address_of(page);
        let found = kassert_ok!(
            paging::lookup(address),
            "descriptor of {page} at {address:#x}"
        );
        let of_memory = describes_memory(page);
        kassert!(!found.executable && !found.uncached, "{page}: {found:?}");
        // Those of a hole may be a part of a large page.
        kassert!(found.writable || !of_memory, "{page}: {found:?}");
        kassert_eq!(
            state_at(found.phys),
            Some(State::Used(Purpose::FrameMap)),
            "{page}"
        );
    }
    let behind = frame_map::address_of(Pfn(end.0.next_multiple_of(DESCRIBED)));
    kassert_eq!(paging::lookup(behind), None);
    Ok(())
}

fn descriptors_of_holes_are_zeros_and_stay_so(_: &mut Ctx) -> Outcome {
    let mut shared = None;
    for page in descriptor_pages().filter(|page| !describes_memory(*page)) {
        let address = frame_map::address_of(page) as usize;
        let found = kassert_ok!(paging::lookup(address as u64));
        for word in (0..PAGE_SIZE as usize).step_by(size_of::<Frame>()) {
            kassert_eq!(probe::read_u64(address + word), Ok(0), "{page}");
        }
        if found.size > PAGE_SIZE {
            // In a large page with descriptors of memory.
            continue;
        }
        kassert!(!found.writable, "{page}: {found:?}");
        kassert_eq!(*shared.get_or_insert(found.phys), found.phys, "{page}");
        kassert!(probe::write_u8(address, 1).is_err(), "{page}");
    }
    if shared.is_none() {
        kskip!("memory has no holes of that size here");
    }
    Ok(())
}

fn descriptors_are_on_their_nodes(_: &mut Ctx) -> Outcome {
    if boot::topology().node_count() == 1 {
        kskip!("there is only one node");
    }
    for page in descriptor_pages().filter(|page| describes_memory(*page)) {
        let place = kassert_ok!(paging::lookup(frame_map::address_of(page)));
        let node = memory::node_at(page.phys()).0;
        // Small pages may describe two nodes, and a hole's begin is nobody's.
        let behind = memory::node_at(page.phys() + u64::from(DESCRIBED) * PAGE_SIZE - 1).0;
        let memory = memory::with_frames(|frames| frames.state_at(page.phys()).is_some());
        if node == behind && memory {
            kassert_eq!(memory::node_at(place.phys).0, node, "{page}");
        }
    }
    Ok(())
}
