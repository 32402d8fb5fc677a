//! CPUs that go and come.

use mm::hosted::Memory;
use platform::{
    CpuId,
    hosted::{Hosted, Machine},
};

use crate::{
    arrows::{Taken, count, taken},
    objects::{give, slabs_of, take},
    paths::{CAPACITY, end, small_sheaves},
    world::{MIB, World},
};

pub fn a_cpu_goes() -> Taken {
    let memory = Memory::builder().node(16 * MIB);
    let world = World::new(Machine::builder().cpus(2), memory);
    let cpu = CpuId::new(1).expect("a CPU");
    let cache = world.run(|slabs| small_sheaves(slabs, "going"));
    let fill = |_| {
        let objects = take(cache, 2 * CAPACITY);
        give(cache, objects);
    };
    let run_there = || {
        let there = world.machine.spawn_on(cpu, move || fill(()));
        there.join();
    };
    world.run(|slabs| {
        run_there();
        for _ in 0..3 {
            Hosted::offline(cpu, || {});
            let dead = count(&world, "cpu.dead");
            // SAFETY: it does not run until it is brought back below.
            unsafe { slabs.flush_offline(cpu) };
            assert!(count(&world, "cpu.dead") > dead, "it had sheaves");
            // Nothing of it is left: all slabs go.
            cache.shrink();
            assert_eq!(slabs_of(cache), 0);
            Hosted::online(cpu, || {});
            run_there();
            assert!(slabs_of(cache) > 0);
        }
        end(slabs, cache);
    });
    taken(&world)
}

#[test]
fn the_sheaves_of_a_cpu_that_goes_are_flushed() {
    a_cpu_goes();
}
