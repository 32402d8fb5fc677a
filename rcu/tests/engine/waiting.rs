//! Waiting and asking, against a section that is held open.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::*},
    },
    time::{Duration, Instant},
};

use platform::{
    Platform, Priority,
    hosted::{Hosted, JoinHandle, Machine},
};
use rcu::{
    Cookie, ExpCookie, FullCookie, Rcu,
    hosted::{Engine, read},
};

use crate::world::{Shape, cpu, pause, rounds, spawn};

/// How long something is given to go wrong.
const WHILE: Duration = Duration::from_millis(15);

fn shapes() -> impl Iterator<Item = Shape> {
    Shape::all().filter(|shape| shape.cpus > 1)
}

/// Runs others for a while.
fn for_a_while(mut f: impl FnMut()) {
    let end = Instant::now() + WHILE;
    while Instant::now() < end {
        f();
        pause();
    }
}

/// A thread that is in a section until it is told to leave it.
struct Held {
    state: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

const OUTSIDE: usize = 0;
const INSIDE: usize = 1;
const TO_LEAVE: usize = 2;

impl Held {
    /// On that CPU, which is not the caller's.
    fn begin(machine: &Machine, index: usize) -> Self {
        let state = Arc::new(AtomicUsize::new(OUTSIDE));
        let there = Arc::clone(&state);
        let place = Some(cpu(index));
        let thread = machine.spawn(spawn(place, Priority::Low), move || {
            let section = read();
            there.store(INSIDE, Release);
            while there.load(Acquire) != TO_LEAVE {
                Hosted::relax();
            }
            drop(section);
        });
        while state.load(Acquire) != INSIDE {
            pause();
        }
        Self { state, thread }
    }

    fn end(self) {
        self.state.store(TO_LEAVE, Release);
        self.thread.join();
    }
}

/// All cookies of a moment.
struct Cookies {
    normal: [Cookie; 2],
    expedited: [ExpCookie; 2],
    full: [FullCookie; 2],
}

impl Cookies {
    fn of(rcu: &Rcu<Hosted>) -> Self {
        Self {
            normal: [rcu.snap(), rcu.start_poll()],
            expedited: [rcu.snap_expedited(), rcu.start_poll_expedited()],
            full: [rcu.snap_full(), rcu.start_poll_full()],
        }
    }

    fn ripe(&self, rcu: &Rcu<Hosted>) -> Vec<bool> {
        let normal = self.normal.iter().map(|cookie| rcu.poll(*cookie));
        let expedited = self.expedited.iter();
        let expedited = expedited.map(|cookie| rcu.poll_expedited(*cookie));
        let full = self.full.iter().map(|cookie| rcu.poll_full(*cookie));
        normal.chain(expedited).chain(full).collect()
    }
}

/// No cookie that was taken while somebody is in a section ripens before its end; all that
/// were asked for do after it.
#[test]
fn cookies_ripen_after_sections_of_then() {
    for (seed, shape) in (400..).zip(shapes()) {
        let machine = shape.machine(seed);
        machine.run(|| {
            let rcu = Engine::start(&machine, shape.config());
            for _ in 0..rounds(20, 1) {
                let held = Held::begin(&machine, shape.cpus - 1);
                let early = Cookies::of(&rcu);
                for_a_while(|| assert_eq!(early.ripe(&rcu), [false; 6]));
                // In the middle of the grace period that the first ones wait for.
                let late = Cookies::of(&rcu);
                for_a_while(|| assert_eq!(late.ripe(&rcu), [false; 6]));
                held.end();
                while early.ripe(&rcu).contains(&false) || late.ripe(&rcu).contains(&false) {
                    pause();
                }
                rcu.cond_synchronize(early.normal[0]);
                rcu.cond_synchronize_expedited(early.expedited[0]);
                rcu.cond_synchronize_full(early.full[0]);
                // Nobody has asked for these.
                let mut cookies = Cookies::of(&rcu);
                cookies.normal = [rcu.snap(); 2];
                assert!(rcu.poll(Cookie::COMPLETED));
                assert!(rcu.poll_expedited(ExpCookie::COMPLETED));
                assert!(rcu.poll_full(FullCookie::COMPLETED));
                rcu.synchronize();
                rcu.synchronize_expedited();
                assert_eq!(cookies.ripe(&rcu), [true; 6], "waited for as much");
            }
        });
    }
}

/// A cookie that nobody asks for waits for ever: the engine does nothing of its own.
#[test]
fn nothing_happens_unasked() {
    let shape = Shape {
        cpus: 2,
        fanout: 2,
        preemptible: false,
    };
    let machine = shape.machine(5);
    machine.run(|| {
        let rcu = Engine::start(&machine, shape.config());
        rcu.synchronize();
        rcu.synchronize_expedited();
        let (normal, expedited) = (rcu.snap(), rcu.snap_expedited());
        let full = rcu.snap_full();
        let before = rcu.stats().grace_periods;
        for_a_while(|| {
            assert!(!rcu.poll(normal) && !rcu.poll_expedited(expedited) && !rcu.poll_full(full));
        });
        assert_eq!(rcu.stats().grace_periods, before);
    });
}

/// Of a full cookie either kind of grace period is enough.
#[test]
fn a_full_cookie_ripens_by_either() {
    let shape = Shape {
        cpus: 2,
        fanout: 2,
        preemptible: false,
    };
    let machine = shape.machine(6);
    machine.run(|| {
        let rcu = Engine::start(&machine, shape.config());
        let cookie = rcu.snap_full();
        rcu.synchronize_expedited();
        assert!(rcu.poll_full(cookie) && !rcu.poll(cookie.normal));
        let cookie = rcu.snap_full();
        rcu.synchronize();
        assert!(rcu.poll_full(cookie) && !rcu.poll_expedited(cookie.expedited));
    });
}

/// Waiters of both kinds, and a barrier, do not go on while somebody is in a section, and all
/// do after it; many that wait share grace periods.
#[test]
fn waiters_wait_for_a_section_and_share() {
    const EACH: usize = 8;
    for (seed, shape) in (500..).zip(shapes()) {
        let machine = shape.machine(seed);
        machine.run(|| {
            let rcu = Engine::start(&machine, shape.config());
            rcu.synchronize();
            let held = Held::begin(&machine, shape.cpus - 1);
            let before = rcu.stats();
            let (came, done): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
            let threads: Vec<_> = (0..2 * EACH)
                .map(|index| {
                    let (rcu, done) = (Arc::clone(&rcu), Arc::clone(&done));
                    let came = Arc::clone(&came);
                    machine.spawn(spawn(None, Priority::Normal), move || {
                        came.fetch_add(1, Relaxed);
                        if index % 2 == 0 {
                            rcu.synchronize();
                        } else {
                            rcu.synchronize_expedited();
                        }
                        done.fetch_add(1, Relaxed);
                    })
                })
                .collect();
            while came.load(Relaxed) < 2 * EACH {
                pause();
            }
            for_a_while(|| assert_eq!(done.load(Relaxed), 0));
            held.end();
            threads.into_iter().for_each(JoinHandle::join);
            let after = rcu.stats();
            let normal = after.grace_periods - before.grace_periods;
            let expedited = after.expedited - before.expedited;
            // All came while the first grace period was held up, so the next serves them; but
            // the host may have kept some of them from asking for it.
            assert!((1..=EACH as u64 / 2).contains(&normal), "{normal}");
            assert!((1..=EACH as u64 / 2).contains(&expedited), "{expedited}");
        });
    }
}

/// A section is waited for, whichever CPU it is on.
#[test]
fn every_cpu_is_waited_for() {
    for (seed, shape) in (600..).zip(shapes()) {
        let machine = Arc::new(shape.machine(seed));
        machine.run(|| {
            let rcu = Engine::start(&machine, shape.config());
            for index in 0..shape.cpus {
                // From another CPU: the section may be one with preemption off.
                let other = cpu(usize::from(index == 0));
                let rcu = Arc::clone(&rcu);
                let machine = Arc::clone(&machine);
                let there = Arc::clone(&machine);
                let asks = machine.spawn_on(other, move || {
                    let held = Held::begin(&there, index);
                    let cookies = Cookies::of(&rcu);
                    let end = Instant::now() + WHILE / 5;
                    while Instant::now() < end {
                        assert_eq!(cookies.ripe(&rcu), [false; 6], "cpu{index}");
                        pause();
                    }
                    held.end();
                    while cookies.ripe(&rcu).contains(&false) {
                        pause();
                    }
                });
                asks.join();
            }
        });
    }
}
