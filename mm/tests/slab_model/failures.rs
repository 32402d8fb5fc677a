//! Each allocation of pages fails once, wherever it is, and nothing is lost.

use mm::hosted::Memory;
use platform::hosted::Machine;

use super::{
    actor::{Actor, Shared},
    world::{MIB, Random, rounds, run},
};

/// A sequence of operations; whether any allocation of pages failed.
fn sequence(seed: u64, ops: u64, nth: u32) -> bool {
    let machine = Machine::builder().nodes(2);
    let memory = Memory::builder().node(12 * MIB).node(12 * MIB);
    let mut failed = false;
    run(machine, memory, |world| {
        let shared = Shared::new(world, 2, seed);
        let mut actor = Actor::new(&shared, seed);
        let mut random = Random(seed);
        world.slabs.set_quarantine(seed as usize % 2 * 20_000);
        world.mm.debug().faults(|faults| faults.fail_nth(nth));
        for _ in 0..ops {
            actor.run(&super::actor::Op::random(&mut random));
        }
        failed = !world.mm.debug().faults(|faults| faults.pending());
        world.mm.debug().faults(|faults| faults.fail_nth(0));
        actor.end();
        shared.end();
    });
    failed
}

#[test]
fn failing_at_every_point_loses_nothing() {
    for seed in 0..rounds(20, 2) {
        let mut points = 0;
        while sequence(seed, 120, points + 1) {
            points += 1;
        }
        assert!(points > 10, "only {points} points");
    }
}
