//! What waits for grace periods: on every road, and with faults.

use std::ptr::NonNull;

use mm::{
    Gfp,
    fault::Knobs,
    hosted::Reports,
    kvfree_rcu::Head,
    slab::{
        Flags, KmemCache, Slabs, Spec,
        text::{Attribute, OneCache, Snapshot},
        walk::plant::LanePlant,
    },
};
use platform::{IrqsOff, hosted::Hosted};
use rcu::hosted::Engine;

use crate::{World, cache, fault, lone, tally, walk, whatis, world::take};

/// Objects that fit into an rcu sheaf of the caches below: 62 places, and one has the cookie.
const SHEAF: usize = 61;
/// Pointers of a page.
const PAGE: usize = 509;

/// Runs with an engine of RCU, but without drainers: nothing that is given to `kfree_rcu` is freed before
/// `f` is over, nor does anybody ask for a grace period. Then all is freed.
fn with_engine(world: &World, f: impl FnOnce(&'static Slabs<Hosted>, &Engine)) {
    world.run(|slabs| {
        let engine = Engine::start(&world.machine, rcu::Config::default());
        // SAFETY: when the engine ends nothing waits for it, nor will it.
        unsafe { slabs.set_rcu(&engine) };
        f(slabs, &engine);
        slabs.stop_drainers();
        engine.barrier();
        tally(slabs);
    });
}

/// A cache whose objects go past the sheaves.
fn debug_cache(slabs: &'static Slabs<Hosted>) -> &'static KmemCache<Hosted> {
    let flags = Flags::RED_ZONE | Flags::CONSISTENCY_CHECKS;
    slabs.create(&Spec::new("debug", 64).flags(flags)).unwrap()
}

fn queue(slabs: &Slabs<Hosted>, object: NonNull<u8>) {
    // SAFETY: the caller's, and large enough for a head.
    unsafe { slabs.kfree_rcu(object, object.cast::<Head>()) };
}

/// Allocates objects, and gives them to `kfree_rcu`.
fn in_flight(cache: &KmemCache<Hosted>, slabs: &Slabs<Hosted>, count: usize) -> Vec<NonNull<u8>> {
    let objects = take(cache, count);
    objects.iter().for_each(|object| queue(slabs, *object));
    objects
}

/// Runs without pages for whoever may not wait for them.
fn without_pages(slabs: &Slabs<Hosted>, f: impl FnOnce()) {
    let fail = |probability| {
        slabs.mm().debug().faults(|page| {
            // Of all orders and flags.
            page.fail_nth(0);
            page.attr.configure(&Knobs {
                probability,
                times: -1,
                verbose: 0,
                ..Knobs::OFF
            });
        });
    };
    fail(100);
    f();
    fail(0);
}

/// Five in a chain, one page and three more in pages, two closed sheaves and ten more in sheaves.
fn on_all_roads(slabs: &'static Slabs<Hosted>) -> [(NonNull<u8>, &'static str); 5] {
    let debug = debug_cache(slabs);
    let chained = take(debug, 5);
    without_pages(slabs, || {
        chained.iter().for_each(|object| queue(slabs, *object));
    });
    let paged = in_flight(debug, slabs, PAGE + 3);
    let sheaves = in_flight(cache(slabs, "waits", 64), slabs, 2 * SHEAF + 10);
    [
        (chained[0], "(open)"),
        (paged[0], "(normal 1, expedited 1; not over)"),
        (paged[PAGE], "(open)"),
        (sheaves[SHEAF], "(normal 1, expedited 1; not over)"),
        (sheaves[2 * SHEAF], "rcu_free"),
    ]
}

fn batches(slabs: &Slabs<Hosted>) -> String {
    // SAFETY: nobody changes anything.
    unsafe { slabs.batches() }.to_string()
}

#[test]
fn what_waits_is_counted_on_every_road() {
    with_engine(&lone(), |slabs, _| {
        let before = tally(slabs);
        let large = slabs.kmalloc(20_000, Gfp::KERNEL).unwrap();
        on_all_roads(slabs);
        queue(slabs, large);
        let now = tally(slabs);
        let all = 5 + PAGE + 3 + 2 * SHEAF + 10;
        assert_eq!(now.waiting, before.waiting + all as u64, "{now}");
        assert_eq!(now.pages.large, before.pages.large + 8);
        assert!(now.to_string().contains(" waiting, 0 deferred"), "{now}");
    });
}

#[test]
fn calls_that_are_still_to_be_made_count_as_deferred() {
    with_engine(&lone(), |slabs, _| {
        let object = take(debug_cache(slabs), 1)[0];
        let large = slabs.kmalloc(20_000, Gfp::KERNEL).unwrap();
        // The deferred work comes when they are on again.
        let off = IrqsOff::<Hosted>::disable();
        for memory in [object, large] {
            // SAFETY: this one's, and large enough for a head.
            unsafe { slabs.kfree_rcu_nolock(memory, memory.cast::<Head>()) };
        }
        let now = tally(slabs);
        assert_eq!((now.deferred, now.waiting), (1, 0), "{now}");
        assert_eq!(whatis::state(slabs, object), "free: deferred on cpu0");
        drop(off);
        let now = tally(slabs);
        assert_eq!((now.deferred, now.waiting), (0, 1), "{now}");
    });
}

#[test]
fn it_is_said_which_grace_period_is_waited_for() {
    let world = lone();
    with_engine(&world, |slabs, engine| {
        let said = on_all_roads(slabs);
        let size = debug_cache_size(slabs);
        let bytes = (5 + PAGE + 3) * size + 2 * SHEAF * 64;
        let expected = |over: &str, ended: u32| {
            format!(
                "grace periods that are over: normal {ended}, expedited 0\n\
                 cpu0: awake, {bytes} bytes wait, 0 objects taken\n  \
                 waits: {} objects in 2 sheaves (normal 1, expedited 1; {over})\n  \
                 waits: 10 objects in 1 sheaf (open)\n  \
                 page: 3 pointers to kmalloc (open)\n  \
                 page: {PAGE} pointers to kmalloc (normal 1, expedited 1; {over})\n  \
                 chain: 5 heads (open)\n",
                2 * SHEAF
            )
        };
        assert_eq!(batches(slabs), expected("not over", 0));
        for (object, place) in said {
            let state = whatis::state(slabs, object);
            let expected = match place {
                "rcu_free" => "free: in the rcu_free sheaf of cpu0".into(),
                awaited => format!("free: waiting for a grace period on cpu0 {awaited}"),
            };
            assert_eq!(state, expected);
        }
        engine.synchronize();
        assert_eq!(batches(slabs), expected("over", 1));
        let state = whatis::state(slabs, said[3].0);
        assert!(state.ends_with("(normal 1, expedited 1; over)"), "{state}");
        slabs.kvfree_rcu_barrier();
        let rest = batches(slabs);
        assert!(
            rest.ends_with("\ncpu0: awake, 0 bytes wait, 0 objects taken\n"),
            "{rest}"
        );
    });
}

fn debug_cache_size(slabs: &Slabs<Hosted>) -> usize {
    slabs.caches().find("debug").unwrap().layout().size as usize
}

#[test]
fn without_rcu_it_is_said_that_there_is_none() {
    let world = lone();
    world.run(|slabs| {
        let cache = cache(slabs, "early", 64);
        let objects = in_flight(cache, slabs, SHEAF + 1);
        tally(slabs);
        let said = "\n  early: 61 objects in 1 sheaf (closed before there was RCU)\n";
        let text = batches(slabs);
        assert!(text.starts_with("grace periods: there is no RCU yet\ncpu0: awake, "));
        assert!(text.contains(said), "{text}");
        let state = whatis::state(slabs, objects[0]);
        assert!(state.ends_with(" on cpu0 (closed before there was RCU)"));
    });
    // What was closed before gets a name.
    with_engine(&world, |slabs, _| {
        let text = batches(slabs);
        assert!(text.contains("61 objects in 1 sheaf (normal "), "{text}");
    });
}

#[test]
fn a_cache_shows_what_waits() {
    with_engine(&lone(), |slabs, _| {
        let cache = cache(slabs, "waits", 64);
        in_flight(cache, slabs, SHEAF + 1);
        let show = |name| {
            let mut text = String::new();
            let attribute = Attribute::named(name).unwrap();
            attribute.show(&slabs.caches(), cache, &mut text).unwrap();
            text
        };
        assert_eq!(show("rcu_waiting"), "61 C0=61\n");
        assert_eq!(show("rcu_waiting_bytes"), "3904 C0=3904\n");
        let mut now = Snapshot::new();
        // SAFETY: this thread is the only one.
        unsafe { now.take(cache) };
        let text = OneCache(&slabs.caches(), cache, &now).to_string();
        assert!(
            text.contains(" spare - rcu_free 1/62 waiting 61\n"),
            "{text}"
        );
    });
}

#[test]
fn an_object_in_two_batches_is_found() {
    let world = lone();
    with_engine(&world, |slabs, _| {
        let cache = debug_cache(slabs);
        let objects = in_flight(cache, slabs, PAGE);
        // In a full page, and in another one.
        queue(slabs, objects[7]);
        let place = "waiting for a grace period on cpu0";
        let expected = format!(
            "cache debug: the object {:#x} is {place} and {place}",
            objects[7].addr()
        );
        assert_eq!(fault(slabs), expected);
    });
    // What was given twice is freed twice, whatever it is by then.
    assert!(!Reports::of(&world.machine).take().is_empty());
}

#[test]
fn a_written_head_ends_its_chain_and_is_found() {
    with_engine(&lone(), |slabs, _| {
        let objects = take(debug_cache(slabs), 5);
        without_pages(slabs, || {
            objects.iter().for_each(|object| queue(slabs, *object));
        });
        let link = objects[2].cast::<usize>();
        // SAFETY: a link of a chain; written to, wrong on purpose.
        let before = unsafe { link.read() };
        for wrong in [0, 0x10, 0x4141_4141_4141_4141, before + 1] {
            // SAFETY: as above.
            unsafe { link.write(wrong) };
            let found = fault(slabs);
            let expected = "3 objects wait for a grace period on cpu0, counted 5";
            assert!(found.ends_with(expected), "{wrong:#x}: {found}");
            // Nothing stumbles over it.
            assert!(batches(slabs).contains("chain: 3 heads"));
            assert_eq!(whatis::state(slabs, objects[0]), "allocated");
        }
        // SAFETY: as above.
        unsafe { link.write(before) };
        tally(slabs);
    });
}

#[test]
fn what_only_the_engine_could_do_wrong_is_found() {
    let faults = [
        (
            LanePlant::LostSheaf,
            "cache planted: CPUs and barns have 1 sheaves, counted 2",
        ),
        (
            LanePlant::Twice,
            "is waiting for a grace period on cpu0 and waiting for a grace period on cpu0",
        ),
        (
            LanePlant::Stranger,
            "waiting for a grace period on cpu0 is no object of the cache",
        ),
        (
            LanePlant::LongSheaf,
            "cache planted: 62 of 62 objects waiting for a grace period on cpu0; the cache's sheaves have 62",
        ),
        (
            LanePlant::Count,
            "cache planted: 61 objects wait for a grace period on cpu0, counted 60",
        ),
        (
            LanePlant::Loose,
            "cache planted: 0 objects are in pages and chains of cpu0, counted 1",
        ),
        (
            LanePlant::Unlinked,
            "cache planted: the lane of cpu0 misses the cache, of which something is there",
        ),
        (
            LanePlant::Forgotten,
            "cache planted: cpu0 has an rcu_free sheaf, its lane knows of none",
        ),
        (LanePlant::Bytes, " bytes wait on cpu0, counted "),
        (
            LanePlant::Pages,
            "the lane of cpu0 has 1 pages of pointers, counted 2",
        ),
        (LanePlant::Deferred, "0 frees are deferred, counted 1"),
        (
            LanePlant::Denied,
            "cache planted: the lane of cpu0 misses the cache, of which something is there",
        ),
    ];
    with_engine(&lone(), |slabs, _| {
        in_flight(debug_cache(slabs), slabs, 3);
        let cache = cache(slabs, "planted", 64);
        in_flight(cache, slabs, SHEAF + 1);
        // One kept in main less: all of them wait.
        cache.shrink();
        let before = tally(slabs);
        for (plant, expected) in faults {
            // SAFETY: nobody uses the cache meanwhile.
            let undo = unsafe { cache.plant_on_lane(plant) };
            let found = walk(slabs).map_err(|fault| fault.to_string());
            undo();
            match found {
                Ok(_) => panic!("{plant:?} is not found"),
                Err(found) => assert!(found.contains(expected), "{plant:?}: {found}"),
            }
            assert_eq!(tally(slabs), before, "{plant:?}");
        }
    });
}
