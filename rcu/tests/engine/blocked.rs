//! Threads that are switched away in a section (preemptible flavour), and stalls.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::*},
};

use platform::{
    Platform, Preempt, Priority,
    hosted::{Hosted, JoinHandle, Machine},
};
use rcu::{
    Config, Rcu,
    hosted::{Engine, read},
};

use crate::world::{Shape, cpu, pause, spawn};

const SHAPE: Shape = Shape {
    cpus: 4,
    fanout: 2,
    preemptible: true,
};

fn arrow(rcu: &Rcu<Hosted>, name: &str) -> u64 {
    rcu.arrows().find(|arrow| arrow.0 == name).unwrap().1
}

/// A thread of CPU 1 that is in a section, nested, and cannot run: another thread of that CPU
/// goes first. Until it is let go on.
struct Away {
    number: u32,
    reader: JoinHandle<()>,
    first: JoinHandle<()>,
    go_on: Arc<AtomicBool>,
}

impl Away {
    /// `before` is called while it is in the section and runs.
    fn begin(machine: &Machine, before: impl FnOnce()) -> Self {
        let inside = Arc::new(AtomicBool::new(false));
        let go_on = Arc::new(AtomicBool::new(false));
        let (there, until) = (Arc::clone(&inside), Arc::clone(&go_on));
        let place = Some(cpu(1));
        let reader = machine.spawn(spawn(place, Priority::Low), move || {
            let (outer, inner) = (read(), read());
            there.store(true, Relaxed);
            while !until.load(Relaxed) {
                Hosted::relax();
            }
            drop(inner);
            drop(outer);
        });
        while !inside.load(Relaxed) {
            pause();
        }
        before();
        let (runs, until) = (Arc::new(AtomicBool::new(false)), Arc::clone(&go_on));
        let there = Arc::clone(&runs);
        let first = machine.spawn(spawn(place, Priority::Normal), move || {
            there.store(true, Relaxed);
            while !until.load(Relaxed) {
                Hosted::yield_now();
            }
        });
        while !runs.load(Relaxed) {
            pause();
        }
        Self {
            number: reader.thread().number(),
            reader,
            first,
            go_on,
        }
    }

    fn end(self) {
        self.go_on.store(true, Relaxed);
        self.first.join();
        self.reader.join();
    }
}

/// It is waited for by grace periods of both kinds, though its CPU passes one quiescent state
/// after the other.
#[test]
fn a_thread_that_was_switched_away_is_waited_for() {
    for seed in 0..4 {
        let machine = SHAPE.machine(seed);
        machine.run(|| {
            let rcu = Engine::start(&machine, SHAPE.config());
            // Switched away before the grace periods, and in them.
            for early in [true, false] {
                let done = Arc::new(AtomicUsize::new(0));
                let mut waiters = Vec::new();
                let mut wait = || {
                    let asked = ["cpu.ask", "exp.in_section"].map(|name| arrow(&rcu, name));
                    for expedited in 0..2 {
                        let (rcu, done) = (Arc::clone(&rcu), Arc::clone(&done));
                        waiters.push(machine.spawn_on(cpu(2 * expedited), move || {
                            match expedited {
                                0 => rcu.synchronize(),
                                _ => rcu.synchronize_expedited(),
                            }
                            done.fetch_add(1, Relaxed);
                        }));
                    }
                    asked
                };
                let away = if early {
                    let away = Away::begin(&machine, || {});
                    wait();
                    away
                } else {
                    Away::begin(&machine, || {
                        let [ask, in_section] = wait();
                        while arrow(&rcu, "cpu.ask") == ask
                            || arrow(&rcu, "exp.in_section") == in_section
                        {
                            pause();
                        }
                    })
                };
                for _ in 0..300 {
                    assert_eq!(done.load(Relaxed), 0);
                    pause();
                }
                away.end();
                waiters.into_iter().for_each(JoinHandle::join);
            }
            let left = arrow(&rcu, "reader.leaves") + arrow(&rcu, "reader.last");
            let came = arrow(&rcu, "reader.blocks") + arrow(&rcu, "reader.queued");
            assert_eq!(came, left, "threads that came to a list and left it");
            assert!(arrow(&rcu, "reader.last") > 0);
        });
    }
}

/// A section that a tick comes upon reports as it ends, or, ended where preemption is off, as
/// that comes on: not at a later tick, for there is none.
#[test]
fn a_section_that_a_tick_came_upon_reports_as_it_ends() {
    const INSIDE: usize = 1;
    const TO_LEAVE: usize = 2;
    const SEEN: usize = 3;
    for (preemptible, pinned) in [(false, false), (true, false), (true, true)] {
        let shape = Shape {
            preemptible,
            ..SHAPE
        };
        let machine = shape.machine(1);
        machine.run(|| {
            let config = Config {
                // No interrupt but ticks.
                urge_ns: u64::MAX,
                ..shape.config()
            };
            let rcu = Engine::start(&machine, config);
            let state = Arc::new(AtomicUsize::new(0));
            let there = Arc::clone(&state);
            let reader = machine.spawn_on(cpu(1), move || {
                let section = read();
                there.store(INSIDE, Relaxed);
                while there.load(Relaxed) == INSIDE {
                    Hosted::relax();
                }
                let pin = pinned.then(Preempt::<Hosted>::disable);
                drop(section);
                drop(pin);
                // No point, no tick.
                while there.load(Acquire) != SEEN {
                    std::thread::yield_now();
                }
            });
            while state.load(Relaxed) != INSIDE {
                pause();
            }
            let came_upon = |rcu: &Rcu<Hosted>| arrow(rcu, "cpu.tick_in_section");
            let before = came_upon(&rcu);
            let cookie = rcu.start_poll();
            // Some of them may be other CPUs', which report soon; then it is this one's.
            while came_upon(&rcu) < before + 50 {
                pause();
            }
            assert!(!rcu.poll(cookie));
            state.store(TO_LEAVE, Relaxed);
            while !rcu.poll(cookie) {
                pause();
            }
            state.store(SEEN, Release);
            reader.join();
        });
    }
}

/// Sections that end in sections of another kind.
#[test]
fn both_ends_of_sections_are_met() {
    let machine = SHAPE.machine(7);
    machine.run(|| {
        let rcu = Engine::start(&machine, SHAPE.config());
        let stop = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..4)
            .map(|index| {
                let stop = Arc::clone(&stop);
                machine.spawn_on(cpu(index), move || {
                    while !stop.load(Relaxed) {
                        let section = read();
                        (0..20).for_each(|_| Hosted::relax());
                        // Now and then the section ends in one of another kind.
                        let pinned = (index % 2 == 0).then(Preempt::<Hosted>::disable);
                        drop(section);
                        drop(pinned);
                    }
                })
            })
            .collect();
        let ends = |rcu: &Rcu<Hosted>| {
            ["cpu.section_end", "cpu.section_end_later"].map(|name| arrow(rcu, name))
        };
        while ends(&rcu).contains(&0) {
            rcu.synchronize();
            rcu.synchronize_expedited();
        }
        stop.store(true, Relaxed);
        readers.into_iter().for_each(JoinHandle::join);
    });
}

/// A reader that stays in its section is reported, normal and expedited, by its CPU or, if it
/// was switched away, by its thread; the engine goes on after it.
#[test]
fn a_stall_names_who_causes_it() {
    for preemptible in [false, true] {
        let shape = Shape {
            preemptible,
            ..SHAPE
        };
        let machine = shape.machine(8);
        machine.take_reports();
        let config = Config {
            stall_ns: 5_000_000,
            ..shape.config()
        };
        let number = machine.run(|| {
            let rcu = Engine::start(&machine, config);
            let (number, end): (_, Box<dyn FnOnce()>) = if preemptible {
                let away = Away::begin(&machine, || {});
                (away.number, Box::new(move || away.end()))
            } else {
                let (inside, leave) = (Arc::new(AtomicBool::new(false)), Arc::default());
                let (there, until): (_, Arc<AtomicBool>) =
                    (Arc::clone(&inside), Arc::clone(&leave));
                let reader = machine.spawn_on(cpu(1), move || {
                    let _section = read();
                    there.store(true, Relaxed);
                    while !until.load(Relaxed) {
                        Hosted::relax();
                    }
                });
                while !inside.load(Relaxed) {
                    pause();
                }
                let end = move || {
                    leave.store(true, Relaxed);
                    reader.join();
                };
                (0, Box::new(end))
            };
            let waiters: Vec<_> = (0..2)
                .map(|expedited| {
                    let rcu = Arc::clone(&rcu);
                    machine.spawn_on(cpu(2), move || match expedited {
                        0 => rcu.synchronize(),
                        _ => rcu.synchronize_expedited(),
                    })
                })
                .collect();
            while arrow(&rcu, "gp.stall") == 0 || arrow(&rcu, "exp.stall") == 0 {
                pause();
            }
            // The report follows the count.
            Hosted::park_until(Hosted::now_ns() + 2_000_000);
            end();
            waiters.into_iter().for_each(JoinHandle::join);
            rcu.synchronize();
            number
        });
        let reports = machine.take_reports();
        let who = if preemptible {
            format!("waits for CPUs none, switched-away threads {number};")
        } else {
            "waits for CPUs 1, switched-away threads none;".to_owned()
        };
        for kind in ["rcu: normal", "rcu: expedited"] {
            let named = |report: &&String| report.starts_with(kind) && report.contains(&who);
            assert!(
                reports.iter().any(|report| named(&report)),
                "{kind}, {who}: {reports:#?}"
            );
        }
    }
}
