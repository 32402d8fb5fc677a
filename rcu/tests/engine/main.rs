//! The engine on hosted machines.

mod blocked;
mod callbacks;
mod faults;
mod memory;
mod readers;
mod waiting;
mod world;

use std::time::Duration;

use platform::hosted::Machine;
use rcu::{
    Config,
    hosted::{Engine, make_preemptible},
};

/// All other CPUs sleep: who waits for a grace period makes it, and nobody is asked.
#[test]
fn idle_cpus_are_not_asked() {
    const ROUNDS: u64 = 50;
    for preemptible in [false, true] {
        let machine = Machine::builder().cpus(4).steady().build();
        if preemptible {
            make_preemptible(&machine);
        }
        machine.run(|| {
            let rcu = Engine::start(&machine, Config::default());
            for _ in 0..ROUNDS {
                // For the engine's threads to fall asleep.
                std::thread::sleep(Duration::from_millis(1));
                rcu.synchronize();
            }
            let arrow = |name| rcu.arrows().find(|arrow| arrow.0 == name).unwrap().1;
            assert_eq!(rcu.stats().grace_periods, ROUNDS);
            let (idle, asked) = (arrow("cpu.idle"), arrow("cpu.ask"));
            assert_eq!(idle + asked, 3 * ROUNDS);
            // The host may keep a thread from falling asleep.
            assert!(asked < ROUNDS, "asked {asked} CPUs that sleep");
        });
    }
}
