//! RCU on a hosted machine, as a user of the crate would have it: readers on every CPU, an
//! updater that replaces what they read, callbacks, a barrier, and what the engine did.
//!
//! `cargo run --release -p granary-rcu --features hosted --example hosted`

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use platform::{
    CpuId,
    hosted::{Hosted, Machine},
};
use rcu::{
    Config, Pointer, RcuBox,
    hosted::{Engine, read},
};

const CPUS: usize = 4;
const UPDATES: u64 = 2000;

/// What is read: both halves are of one update.
struct Pair {
    low: u64,
    high: u64,
}

fn main() {
    let machine = Machine::builder().cpus(CPUS).build();
    let (done, sections) = (AtomicBool::new(false), AtomicU64::new(0));
    let place: Pointer<Pair, Hosted> = Pointer::new();
    machine.run_on_all(|cpu| {
        if cpu == CpuId::BOOT {
            // Dropped here, by a thread of the machine: its threads end with it.
            let rcu = Engine::start(&machine, Config::default());
            for number in 1..=UPDATES {
                let new = RcuBox::try_new(Pair {
                    low: number,
                    high: !number,
                });
                let old = place.replace(new, &rcu);
                // Every tenth is waited for, the others are freed by callbacks.
                if let Some(old) = old
                    && number % 10 == 0
                {
                    assert_eq!(old.synchronize().low, number - 1);
                }
            }
            rcu.barrier();
            done.store(true, Ordering::Relaxed);
            print!("{}", rcu.text());
            for (arrow, count) in rcu.arrows().filter(|(_, count)| *count > 0) {
                println!("  {arrow:24} {count}");
            }
        } else {
            while !done.load(Ordering::Relaxed) {
                let guard = read();
                if let Some(pair) = place.read(&guard) {
                    assert_eq!(pair.low, !pair.high, "a torn or freed pair");
                    sections.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    println!("{} sections", sections.load(Ordering::Relaxed));
}
