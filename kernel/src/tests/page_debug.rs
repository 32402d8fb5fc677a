//! The checks of the page allocator: what is used wrongly is reported, and changes nothing;
//! allocations fail where they are told to.

use alloc::vec::Vec;

use mm::owner::{Group, Record};
use mm::report::Kind as Found;
use mm::{Gfp, Pfn, State, Use};
use platform::{Platform, Preempt};

use crate::kunit::{Ctx, Outcome, kassert, kassert_eq, kassert_ok, kskip, kunit_suite};
use crate::machine::Kernel;
use crate::memory::{frame_map, mm};
use crate::report::Kind;
use crate::{boot, sched, symbols};

kunit_suite! {
    name: "page_debug",
    teardown: off,
    cases: [
        double_free => { expects: [
            Kind::Memory(Found::DoubleFree),
            Kind::Memory(Found::DoubleFree),
            Kind::Memory(Found::DoubleFree),
        ] },
        double_free_with_poison => { expects: [
            Kind::Memory(Found::DoubleFree),
            Kind::Memory(Found::DoubleFree),
            Kind::Memory(Found::DoubleFree),
        ] },
        wrong_order => { expects: [
            Kind::Memory(Found::WrongOrder),
            Kind::Memory(Found::WrongOrder),
        ] },
        wrong_use => { expects: [Kind::Memory(Found::WrongUse)] },
        a_part_of_a_block => { expects: [
            Kind::Memory(Found::NotHead),
            Kind::Memory(Found::NotHead),
        ] },
        foreign_addresses => { expects: [
            Kind::Memory(Found::Foreign),
            Kind::Memory(Found::Foreign),
            Kind::Memory(Found::Foreign),
        ] },
        addresses_of_no_frame,
        written_while_free => { expects: [Kind::Memory(Found::Poison)] },
        written_in_the_middle => { expects: [Kind::Memory(Found::Poison)] },
        free_pages_are_filled,
        poison_comes_and_goes,
        every_allocation_can_fail,
        only_marked_threads_fail,
        owners_are_known,
        owners_of_wrong_frees => { expects: [Kind::Memory(Found::DoubleFree)] },
        leaks_are_found,
    ],
}

/// What a test leaves behind is what the command line wanted.
fn off(_: &mut Ctx) -> Outcome {
    mm().debug().set_poison(boot::command_line().page_poison);
    faults_off();
    Ok(())
}

fn faults_off() {
    mm().debug().faults(|page| {
        page.attr.configure(&mm::fault::Knobs::OFF);
    });
}

fn alloc(order: usize, usage: Use) -> Option<Pfn> {
    mm().alloc_pages(Gfp::ATOMIC, order, usage)
}

fn free(pfn: Pfn, order: usize, usage: Use) {
    // SAFETY: the tests free what they allocated, or what is refused.
    unsafe { mm().free_pages(pfn, order, usage) };
}

fn state(pfn: Pfn) -> State {
    mm().frames()
        .get(pfn)
        .map_or(State::Hole, |frame| frame.word().state())
}

/// Orders that go by the page lists, and one that does not.
const ORDERS: [usize; 3] = [0, 3, 6];

fn double_free(_: &mut Ctx) -> Outcome {
    for order in ORDERS {
        let pfn = kassert_ok!(alloc(order, Use::Meta));
        // Nobody else of this CPU gets the block in between.
        let _pinned = Preempt::<Kernel>::disable();
        free(pfn, order, Use::Meta);
        free(pfn, order, Use::Meta);
    }
    Ok(())
}

fn double_free_with_poison(ctx: &mut Ctx) -> Outcome {
    mm().debug().set_poison(true);
    double_free(ctx)
}

fn wrong_order(_: &mut Ctx) -> Outcome {
    let pfn = kassert_ok!(alloc(2, Use::Pages));
    free(pfn, 0, Use::Pages);
    free(pfn, 5, Use::Pages);
    kassert_eq!(state(pfn), State::Used(Use::Pages));
    free(pfn, 2, Use::Pages);
    Ok(())
}

fn wrong_use(_: &mut Ctx) -> Outcome {
    let pfn = kassert_ok!(alloc(0, Use::Slab));
    free(pfn, 0, Use::Vmalloc);
    kassert_eq!(state(pfn), State::Used(Use::Slab));
    free(pfn, 0, Use::Slab);
    Ok(())
}

fn a_part_of_a_block(_: &mut Ctx) -> Outcome {
    let pfn = kassert_ok!(alloc(3, Use::Pages));
    free(pfn.add(1), 0, Use::Pages);
    free(pfn.add(4), 2, Use::Pages);
    free(pfn, 3, Use::Pages);
    Ok(())
}

/// Boot memory, what is the firmware's or a hole, and what is beyond the end.
fn foreign_addresses(_: &mut Ctx) -> Outcome {
    let end = frame_map::end();
    let find = |wanted: &dyn Fn(State) -> bool| (0..end.0).map(Pfn).find(|pfn| wanted(state(*pfn)));
    let boot = kassert_ok!(find(&|state| state == State::Boot));
    let other = kassert_ok!(find(&|state| matches!(
        state,
        State::Hole | State::Reserved
    )));
    for pfn in [boot, other, end.add(5)] {
        let before = state(pfn);
        free(pfn, 0, Use::Pages);
        kassert_eq!(state(pfn), before);
    }
    Ok(())
}

/// An address that is none of the direct map has no frame to be freed by.
fn addresses_of_no_frame(_: &mut Ctx) -> Outcome {
    let here = 0_u64;
    let on_stack = core::ptr::from_ref(&here) as usize;
    let in_kernel = addresses_of_no_frame as *const () as usize;
    for address in [0, 0x1000, on_stack, in_kernel, usize::MAX] {
        kassert_eq!(mm().frames().pfn_of_address(address), None, "{address:#x}");
    }
    Ok(())
}

fn write(pfn: Pfn, offset: usize, value: u8) {
    // SAFETY: memory that the test has, or has just freed with nobody else on this CPU: its
    // page lists hold it.
    unsafe {
        mm().frames()
            .address_of(pfn)
            .add(offset)
            .write_volatile(value)
    };
}

fn read(pfn: Pfn, offset: usize) -> u8 {
    // SAFETY: as in `write`; reading harms nobody.
    unsafe { mm().frames().address_of(pfn).add(offset).read_volatile() }
}

/// Writes to a freed block, and allocates until it comes again.
fn damage(order: usize, offset: usize) -> Outcome {
    mm().debug().set_poison(true);
    let bad_before = mm().counts().bad;
    let pfn = kassert_ok!(alloc(order, Use::Meta));
    let next = {
        // The block is in this CPU's lists, and is the next that they give.
        let _pinned = Preempt::<Kernel>::disable();
        free(pfn, order, Use::Meta);
        write(pfn, offset, 1);
        alloc(order, Use::Pages)
    };
    let next = kassert_ok!(next);
    kassert!(next != pfn, "a damaged block was handed out");
    kassert_eq!(state(pfn), State::Bad);
    kassert_eq!(mm().counts().bad, bad_before + (1 << order));
    free(next, order, Use::Pages);
    Ok(())
}

fn written_while_free(_: &mut Ctx) -> Outcome {
    damage(0, 0)
}

fn written_in_the_middle(_: &mut Ctx) -> Outcome {
    damage(1, 4096 + 77)
}

fn free_pages_are_filled(_: &mut Ctx) -> Outcome {
    mm().debug().set_poison(true);
    let pfn = kassert_ok!(alloc(0, Use::Meta));
    write(pfn, 5, 1);
    let seen = {
        let _pinned = Preempt::<Kernel>::disable();
        free(pfn, 0, Use::Meta);
        [0, 5, 4095].map(|offset| read(pfn, offset))
    };
    kassert_eq!(seen, [mm::poison::PATTERN; 3]);
    let zeroed = kassert_ok!(mm().alloc_pages(Gfp::ATOMIC | Gfp::ZERO, 0, Use::Pages));
    let zeros = [0, 5, 4095].map(|offset| read(zeroed, offset));
    free(zeroed, 0, Use::Pages);
    kassert_eq!(zeros, [0; 3]);
    Ok(())
}

/// Other threads and CPUs allocate and free all the while, and write to what is theirs.
fn poison_comes_and_goes(ctx: &mut Ctx) -> Outcome {
    let rounds = crate::kunit::rounds(20_000, 500);
    let mut held: Vec<(Pfn, usize)> = Vec::new();
    kassert_ok!(held.try_reserve(64));
    for round in 0..rounds {
        if ctx.rng().below(20) == 0 {
            mm().debug().set_poison(ctx.rng().below(2) == 0);
        }
        if held.len() < 64 && ctx.rng().below(2) == 0 {
            let order = ctx.rng().below(4) as usize;
            let pfn = kassert_ok!(mm().alloc_pages(Gfp::KERNEL, order, Use::Pages));
            write(pfn, round as usize % 4096, round as u8);
            held.push((pfn, order));
        } else if !held.is_empty() {
            let index = ctx.rng().below(held.len() as u64) as usize;
            let (pfn, order) = held.swap_remove(index);
            free(pfn, order, Use::Pages);
        }
    }
    held.into_iter()
        .for_each(|(pfn, order)| free(pfn, order, Use::Pages));
    Ok(())
}

/// Allocates several blocks and gives them back, wherever it is made to stop. How many it got.
fn sequence() -> usize {
    const WANTED: [usize; 4] = [0, 3, 10, 0];
    let mut held = [None; WANTED.len()];
    for (slot, order) in held.iter_mut().zip(WANTED) {
        *slot = mm().alloc_pages(Gfp::KERNEL, order, Use::Meta);
        if slot.is_none() {
            break;
        }
    }
    for (slot, order) in held.iter().zip(WANTED) {
        slot.iter().for_each(|pfn| free(*pfn, order, Use::Meta));
    }
    held.iter().flatten().count()
}

fn mark_only_me() {
    mm().debug().faults(|page| {
        let mut knobs = mm::fault::Knobs::OFF;
        knobs.task = mm::fault::Marks::one(sched::current_ref().id);
        page.attr.configure(&knobs);
    });
}

fn every_allocation_can_fail(_: &mut Ctx) -> Outcome {
    mark_only_me();
    let used = || mm().counts().used[Use::Meta as usize];
    let before = used();
    let all = sequence();
    for nth in 1.. {
        mm().debug().faults(|page| page.fail_nth(nth));
        let got = sequence();
        let pending = mm().debug().faults(|page| page.pending());
        kassert_eq!(used(), before);
        if pending {
            kassert_eq!((got, nth as usize), (all, all + 1));
            break;
        }
        kassert_eq!(got, nth as usize - 1);
    }
    Ok(())
}

fn only_marked_threads_fail(_: &mut Ctx) -> Outcome {
    mark_only_me();
    mm().debug().faults(|page| {
        let knobs = [
            ("times", "-1"),
            ("min-order", "0"),
            ("ignore-gfp-wait", "off"),
            ("probability", "100"),
        ];
        knobs.map(|(knob, value)| page.set(knob, value).is_ok())
    });
    let mine = sequence();
    let mark = mm().debug().fault_knobs().task;
    // A thread is made with pages, so that begins unmarked.
    mm().debug()
        .faults(|page| page.set("task", "4294967295").is_ok());
    let other = sched::Builder::new().spawn(format_args!("unmarked"), sequence);
    let others = kassert_ok!(other).join();
    faults_off();
    kassert_eq!((mine, mark.is_empty()), (0, false));
    kassert_eq!(others, 4);
    kassert_eq!(sequence(), 4);
    Ok(())
}

fn needs_owners() -> Outcome {
    if !mm().debug().owners().is_on() {
        kskip!("page_owner is off");
    }
    Ok(())
}

/// Whether a function is among the callers.
fn names(stack: &[usize], function: &str) -> bool {
    let named = |address: &usize| symbols::resolve(*address as u64 - 1);
    stack
        .iter()
        .take_while(|address| **address != 0)
        .filter_map(named)
        .any(|symbol| alloc::format!("{symbol}").contains(function))
}

#[inline(never)]
fn allocator_of_blocks(order: usize) -> Option<Pfn> {
    core::hint::black_box(alloc(order, Use::Slab))
}

#[inline(never)]
fn freer_of_blocks(pfn: Pfn, order: usize) {
    free(pfn, order, Use::Slab);
    core::hint::black_box(pfn);
}

fn record(pfn: Pfn) -> Result<Record, crate::kunit::Stop> {
    let record = kassert_ok!(mm().debug().record(pfn));
    Ok(record)
}

fn owners_are_known(_: &mut Ctx) -> Outcome {
    needs_owners()?;
    let pfn = kassert_ok!(allocator_of_blocks(2));
    let found = record(pfn.add(3))?;
    freer_of_blocks(pfn, 2);
    let allocated = kassert_ok!(found.allocated);
    kassert!(
        found.in_use && found.order == 2 && found.usage == Some(Use::Slab),
        "{found:?}"
    );
    kassert_eq!(allocated.thread, sched::current_ref().id);
    kassert!(names(&allocated.stack, "allocator_of_blocks"), "{found}");
    // What only records is not shown.
    for own in ["capture", "note_alloc", "on_alloc"] {
        kassert!(!names(&allocated.stack, own), "{own}: {found}");
    }
    let found = record(pfn)?;
    let freed = kassert_ok!(found.freed);
    kassert!(
        !found.in_use && found.allocated == Some(allocated),
        "{found:?}"
    );
    kassert!(names(&freed.stack, "freer_of_blocks"), "{found}");
    kassert!(freed.at_ns >= allocated.at_ns && freed.at_ns <= Kernel::now_ns());
    Ok(())
}

fn owners_of_wrong_frees(_: &mut Ctx) -> Outcome {
    needs_owners()?;
    let pfn = kassert_ok!(allocator_of_blocks(0));
    let found = {
        let _pinned = Preempt::<Kernel>::disable();
        freer_of_blocks(pfn, 0);
        free(pfn, 0, Use::Slab);
        mm().debug().record(pfn)
    };
    // The second free is not recorded over the first.
    let freed = kassert_ok!(kassert_ok!(found).freed);
    kassert!(names(&freed.stack, "freer_of_blocks"));
    Ok(())
}

fn leaks_are_found(_: &mut Ctx) -> Outcome {
    needs_owners()?;
    let owners = mm().debug().owners();
    let mut room: Vec<Group> = Vec::new();
    kassert_ok!(room.try_reserve_exact(64));
    room.resize(64, Group::EMPTY);
    owners.mark();
    let mine = |room: &mut [Group]| {
        let leaks = owners.leaks(room);
        let groups = leaks.groups.iter();
        groups
            .filter(|group| names(&group.stack, "allocator_of_blocks"))
            .map(|group| group.pages)
            .sum::<u64>()
    };
    kassert_eq!(mine(&mut room), 0);
    let first = kassert_ok!(allocator_of_blocks(1));
    let second = kassert_ok!(allocator_of_blocks(4));
    kassert_eq!(mine(&mut room), 18);
    freer_of_blocks(second, 4);
    kassert_eq!(mine(&mut room), 2);
    freer_of_blocks(first, 1);
    kassert_eq!(mine(&mut room), 0);
    Ok(())
}
