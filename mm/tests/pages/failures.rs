//! No memory: shrinkers, reports, and sequences that fail at every point.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use mm::{
    Gfp, Mm, Use,
    hosted::{Memory, Reports},
    pages::Pages,
    reclaim::{Shrink, Wanted},
    report::Kind,
};
use platform::hosted::{Hosted, Machine};

use super::world::{Held, MIB, World, alloc, alloc_node, free, node};

/// Keeps pages, and frees some when asked; or only says so.
struct Keeper {
    mm: Arc<Mm<Hosted>>,
    kept: Mutex<Vec<Held>>,
    calls: AtomicU64,
    lies: u64,
    /// Allocates in between, as shrinkers may.
    allocates: bool,
}

impl Keeper {
    fn register(mm: &Arc<Mm<Hosted>>, lies: u64, allocates: bool) -> &'static Self {
        let keeper = Box::leak(Box::new(Self {
            mm: Arc::clone(mm),
            kept: Mutex::new(Vec::new()),
            calls: AtomicU64::new(0),
            lies,
            allocates,
        }));
        mm.register_shrinker(keeper).unwrap();
        keeper
    }

    /// Ends it; the calls that there were.
    fn end(&'static self) -> u64 {
        assert!(self.mm.unregister_shrinker(self));
        assert!(!self.mm.unregister_shrinker(self));
        for held in self.kept.lock().unwrap().drain(..) {
            free(&self.mm, held);
        }
        let mm: *const Arc<Mm<Hosted>> = &raw const self.mm;
        // SAFETY: the last use of a leaked value that nobody knows any more.
        drop(unsafe { mm.read() });
        self.calls.load(Relaxed)
    }
}

impl Shrink for Keeper {
    fn name(&self) -> &'static str {
        "keeper"
    }

    fn count(&self) -> u64 {
        self.kept.lock().unwrap().iter().map(Held::frames).sum()
    }

    fn scan(&self, wanted: Wanted) -> u64 {
        self.calls.fetch_add(1, Relaxed);
        if self.allocates {
            let own = alloc(&self.mm, Gfp::KERNEL | Gfp::NOWARN, 8, Use::Meta);
            own.into_iter().for_each(|held| free(&self.mm, held));
        }
        let mut freed = self.lies;
        while freed < wanted.frames {
            // The lock must not be held where the CPU may change hands.
            let Some(held) = self.kept.lock().unwrap().pop() else {
                break;
            };
            freed += held.frames();
            free(&self.mm, held);
        }
        freed
    }
}

fn exhaust(mm: &Mm<Hosted>, order: usize) -> Vec<Held> {
    std::iter::from_fn(|| alloc(mm, Gfp::NOWAIT, order, Use::Pages)).collect()
}

/// An allocation gets what a shrinker keeps; one that may not sleep does not.
#[test]
fn shrinkers_give_memory_back() {
    let machine = Machine::builder().cpus(2).nodes(2).seed(31);
    let memory = Memory::builder().node(8 * MIB).node(8 * MIB);
    let world = World::new(machine, memory);
    world.run(|mm| {
        let keeper = Keeper::register(world.mm(), 0, true);
        *keeper.kept.lock().unwrap() = exhaust(mm, 0);
        for gfp in [Gfp::ATOMIC | Gfp::NOWARN, Gfp::NOLOCK] {
            while let Some(held) = alloc(mm, gfp, 0, Use::Pages) {
                keeper.kept.lock().unwrap().push(held);
            }
        }
        assert_eq!(keeper.calls.load(Relaxed), 0);
        let before = keeper.count();
        let held: Vec<_> = (0..500)
            .map(|_| alloc(mm, Gfp::KERNEL, 0, Use::Slab).unwrap())
            .collect();
        assert!(keeper.count() + 500 <= before);
        let (rounds, freed) = mm.reclaimed();
        assert!(rounds > 0 && freed >= 500, "{rounds} rounds freed {freed}");
        held.into_iter().for_each(|held| free(mm, held));
        assert!(keeper.end() > 0);
    });
    assert_eq!(world.take_reports(Kind::OutOfMemory), 0);
    world.assert_all_back();
}

/// A shrinker that says it freed something, and did not, is asked a bounded number of times;
/// then the allocation fails, and says so.
#[test]
fn a_shrinker_that_lies_does_not_hang_anybody() {
    let world = World::new(Machine::builder().cpus(3), Memory::builder().node(6 * MIB));
    let held = world.run(|mm| exhaust(mm, 0));
    let keeper = Keeper::register_on(&world, 1000);
    world.run_on_all(|mm, _| {
        for _ in 0..3 {
            assert!(alloc(mm, Gfp::KERNEL, 0, Use::Pages).is_none());
        }
    });
    world.run(|mm| {
        held.into_iter().for_each(|held| free(mm, held));
        let calls = keeper.end();
        // 16 rounds at most for each of 9 allocations.
        assert!((9..=9 * 16).contains(&calls), "{calls} calls");
    });
    assert_eq!(world.take_reports(Kind::OutOfMemory), 9);
    world.assert_all_back();
}

impl Keeper {
    fn register_on(world: &World, lies: u64) -> &'static Self {
        world.run(|_| Self::register(world.mm(), lies, false))
    }
}

/// What is said: what was wanted, and every zone, with numbers that add up. A flood of
/// failures is no flood of reports, and those who do not want one get none.
#[test]
fn out_of_memory_is_reported() {
    let machine = Machine::builder().cpus(2).nodes(2);
    let memory = Memory::builder().node(6 * MIB).node(4 * MIB);
    let world = World::new(machine, memory);
    world.run(|mm| {
        let held = exhaust(mm, 0);
        let free_before = mm.counts().free;
        assert!(alloc_node(mm, node(1), Gfp::KERNEL, 0, Use::Slab).is_none());
        let said = Reports::here().expect(Kind::OutOfMemory).text;
        for wanted in [
            "page allocation failure, asked for at mm/tests/pages/failures.rs:",
            "no memory: order:0, mode:",
            "use:slab, node:1",
            "Mem-Info:",
            "Node 0 DMA32 free:",
            "Node 1 DMA32 free:",
        ] {
            assert!(said.contains(wanted), "no {wanted:?} in {said}");
        }
        let mut sum = 0;
        for line in said.lines().filter(|line| line.contains("*4kB")) {
            let (blocks, whole) = line.split_once(" = ").unwrap();
            let kib = |text: &str| text.trim_end_matches("kB").parse::<u64>().unwrap();
            let added: u64 = blocks
                .split_whitespace()
                .filter_map(|word| word.split_once('*'))
                .map(|(count, size)| count.parse::<u64>().unwrap() * kib(size))
                .sum();
            assert_eq!(added, kib(whole), "{line}");
            sum += added;
        }
        assert_eq!(sum, free_before * 4);
        // Silent ones.
        for gfp in [Gfp::NOWAIT, Gfp::KERNEL | Gfp::NOWARN, Gfp::NOLOCK] {
            assert!(alloc(mm, gfp, 0, Use::Pages).is_none());
        }
        assert!(Reports::here().take().is_empty());
        // Where nothing can be freed one round is enough.
        let (rounds, _) = mm.reclaimed();
        assert!(alloc(mm, Gfp::KERNEL | Gfp::NOWARN, 0, Use::Pages).is_none());
        assert_eq!(mm.reclaimed().0, rounds + 1);
        // What no machine has.
        for order in [11, usize::MAX] {
            assert!(alloc(mm, Gfp::KERNEL, order, Use::Pages).is_none());
            let said = Reports::here().expect(Kind::OutOfMemory).text;
            assert!(said.contains("no block is that large"), "{said}");
        }
        let failures = mm.failures();
        for _ in 0..100 {
            assert!(alloc(mm, Gfp::ATOMIC, 10, Use::Pages).is_none());
        }
        let said = Reports::here().take().len();
        assert!((1..=10).contains(&said), "{said} reports of 100 failures");
        assert_eq!(mm.failures(), failures + 100);
        held.into_iter().for_each(|held| free(mm, held));
    });
    world.assert_all_back();
}

/// Memory that lies in other CPUs' page lists is found before an allocation fails.
#[test]
fn what_other_cpus_keep_is_found() {
    let world = World::new(Machine::builder().cpus(4), Memory::builder().node(8 * MIB));
    let all = world.run_on_all(|mm, _| {
        let held: Vec<_> = (0..200)
            .map(|_| alloc(mm, Gfp::KERNEL, 0, Use::Pages).unwrap())
            .collect();
        held.into_iter().for_each(|held| free(mm, held));
    });
    assert_eq!(all.len(), 4);
    world.run(|mm| {
        let listed = mm.counts().listed;
        assert!(listed > 100, "{listed} frames in lists");
        let min = mm.zones().next().unwrap().watermarks().min;
        let mut held = Vec::new();
        while let Some(one) = alloc(mm, Gfp::KERNEL | Gfp::NOWARN, 0, Use::Pages) {
            held.push(one);
        }
        assert_eq!(mm.counts().free_frames(), min);
        held.into_iter().for_each(|held| free(mm, held));
    });
    world.assert_all_back();
}

/// What a user of pages may do in one go, with an answer to each failure.
fn sequence(mm: &Mm<Hosted>) -> Option<()> {
    let mut kept = Vec::new();
    for order in [0, 0, 3, 1, 5, 10] {
        kept.push(Pages::alloc(
            mm,
            Gfp::KERNEL | Gfp::NOWARN,
            order,
            Use::Slab,
        )?);
    }
    kept.truncate(2);
    for (gfp, order) in [
        (Gfp::ATOMIC | Gfp::ZERO, 2),
        (Gfp::NOWAIT, 0),
        (Gfp::NOLOCK, 1),
        (Gfp::KERNEL | Gfp::DMA32, 0),
    ] {
        kept.push(Pages::alloc(mm, gfp | Gfp::NOWARN, order, Use::Meta)?);
    }
    let far = Gfp::KERNEL | Gfp::THISNODE | Gfp::NOWARN;
    kept.push(Pages::alloc_node(mm, node(1), far, 3, Use::PerCpu)?);
    Some(())
}

/// The sequence fails at each of its points, and leaks nothing.
#[test]
fn failing_at_every_point_leaks_nothing() {
    let machine = Machine::builder().cpus(2).nodes(2);
    let memory = Memory::builder().node(8 * MIB).node(8 * MIB);
    let world = World::new(machine, memory);
    let mut points = 0;
    for nth in 1.. {
        let (done, pending) = world.run(|mm| {
            mm.debug().faults(|faults| faults.fail_nth(nth));
            let done = sequence(mm);
            let pending = mm.debug().faults(|faults| faults.pending());
            mm.debug().faults(|faults| faults.fail_nth(0));
            (done, pending)
        });
        assert_eq!(done.is_some(), pending, "point {nth}");
        world.assert_all_back();
        if pending {
            break;
        }
        points = nth;
    }
    assert_eq!(points, 11);
}
