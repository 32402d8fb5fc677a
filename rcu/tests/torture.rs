//! Torture on hosted machines: both flavours of readers, and the faults that it must find.

use std::{
    env, fmt,
    sync::{Arc, Mutex},
};

use platform::{
    CpuId, Platform,
    hosted::{Hosted, Injection, Machine},
};
use rcu::{
    Config, Faults, Rcu,
    hosted::{Engine, make_preemptible},
    torture::{Ground, Options, run},
};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// What is found by chance is found in this time.
const LONG: u64 = 50 * SECOND;

/// A hosted machine as ground for torture.
struct World {
    machine: Arc<Machine>,
    rcu: Arc<Rcu<Hosted>>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Ground<Hosted> for World {
    type Interrupts = [Injection; 2];

    fn rcu(&self) -> &Rcu<Hosted> {
        &self.rcu
    }

    fn line(&self, text: fmt::Arguments<'_>) {
        println!("{text}");
        self.lines.lock().unwrap().push(text.to_string());
    }

    fn preempt(&self) {
        Hosted::yield_now();
    }

    fn offline(&self, cpu: CpuId) -> bool {
        rcu::hosted::offline(&self.rcu, cpu);
        true
    }

    fn online(&self, cpu: CpuId) -> bool {
        rcu::hosted::online(&self.rcu, cpu);
        true
    }

    fn interrupts(&self, _: u64, read: Box<dyn Fn() + Send + Sync>) -> [Injection; 2] {
        let read: Arc<dyn Fn() + Send + Sync> = read.into();
        let again = Arc::clone(&read);
        [
            self.machine.on_interrupt(4_000, move || read()),
            self.machine.on_nmi(4_000, move || again()),
        ]
    }
}

/// Under `cargo xtask test --long` and in CI: that percentage of `full`; else `quick`.
fn scaled(full: u64, quick: u64) -> u64 {
    match env::var("GRANARY_PERCENT") {
        Ok(percent) => {
            let percent: u64 = percent.parse().expect("GRANARY_PERCENT is no number");
            (full * percent / 100).max(quick)
        }
        Err(_) => quick,
    }
}

/// Tortures a machine of `cpus` CPUs. Whether all went well, and what was said.
fn torture(
    cpus: usize,
    preemptible: bool,
    change: impl FnOnce(&mut Options) + Send,
) -> (bool, Vec<String>) {
    let seed = 11 + cpus as u64;
    let mut options = Options::new(seed, SECOND, cpus);
    // As many as there are make a flood of the host's threads, not of callbacks.
    options.flood = 4_000;
    options.flood_ns = 50 * MS;
    change(&mut options);
    let limit = std::time::Duration::from_nanos(options.duration_ns + 10 * options.stall_ns);
    let machine = Machine::builder().cpus(cpus).seed(seed).limit(limit);
    let machine = Arc::new(machine.build());
    if preemptible {
        make_preemptible(&machine);
    }
    // Stalls are for the torture to find.
    machine.take_reports();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let good = machine.run(|| {
        let config = Config {
            leaf_fanout: 2,
            fanout: 2,
            stall_ns: options.stall_ns,
            ..Config::default()
        };
        let engine = Engine::start(&machine, config);
        let world = World {
            machine: Arc::clone(&machine),
            rcu: Arc::clone(&engine),
            lines: Arc::clone(&lines),
        };
        let good = run(world, options);
        if !good {
            // What has failed keeps the engine.
            engine.stop();
            std::mem::forget(engine);
        }
        good
    });
    let lines = lines.lock().unwrap().clone();
    (good, lines)
}

fn stands(cpus: usize, preemptible: bool) {
    let (good, lines) = torture(cpus, preemptible, |options| {
        options.duration_ns = scaled(60 * SECOND, 1_500 * MS);
        // The host may leave a thread alone for long.
        options.stall_ns = 30 * SECOND;
    });
    assert!(good, "{lines:#?}");
    assert_eq!(lines.last().unwrap(), "rcu-torture: End of test: SUCCESS");
    // It has done something of each kind.
    let waits = lines.iter().find(|line| line.contains("Waits:")).unwrap();
    assert!(!waits.contains(" 0"), "{waits}");
    let rest = lines
        .iter()
        .find(|line| line.contains("barriers:"))
        .unwrap();
    assert!(!rest.contains("barriers: 0 "), "{rest}");
    assert!(!rest.contains("floods: 0/"), "{rest}");
    assert!(cpus == 1 || !rest.contains("offline: 0"), "{rest}");
}

#[test]
fn one_cpu() {
    stands(1, false);
}

#[test]
fn one_cpu_preemptible() {
    stands(1, true);
}

#[test]
fn eight_cpus() {
    stands(8, false);
}

#[test]
fn eight_cpus_preemptible() {
    stands(8, true);
}

/// With a fault the torture fails, and says one of these.
fn finds(fault: Faults, duration_ns: u64, preemptible: bool, findings: &[&str]) {
    let (good, lines) = torture(4, preemptible, |options| {
        options.duration_ns = duration_ns;
        options.stall_ns = 3 * SECOND;
        options.faults = fault;
    });
    let verdict = lines.last().unwrap();
    assert!(!good, "{fault:?} was not found");
    assert!(
        findings.iter().any(|finding| verdict.contains(finding)),
        "{lines:#?}"
    );
}

/// What readers find who were not waited for.
const TOO_EARLY: &[&str] = &["readers saw", "sections saw", "cookies were ripe too early"];

#[test]
fn finds_a_cpu_that_is_not_waited_for() {
    finds(Faults::SKIP_CPU, LONG, false, TOO_EARLY);
    finds(Faults::SKIP_CPU, LONG, true, TOO_EARLY);
}

#[test]
fn finds_callbacks_that_run_early() {
    finds(Faults::EARLY_SEGMENT, LONG, false, TOO_EARLY);
    finds(Faults::EARLY_SEGMENT, LONG, true, TOO_EARLY);
}

#[test]
fn finds_a_cpu_that_is_taken_for_idle() {
    finds(Faults::STILL_IDLE, LONG, false, TOO_EARLY);
    finds(Faults::STILL_IDLE, LONG, true, TOO_EARLY);
}

#[test]
fn finds_reports_that_are_lost() {
    finds(Faults::LOSE_QS, LONG, false, &["grace periods stalled"]);
    finds(Faults::LOSE_QS, LONG, true, &["grace periods stalled"]);
}

#[test]
fn finds_a_callback_that_is_lost_with_its_cpu() {
    let findings = &["queued and run differ", "had no end", "no progress"];
    finds(Faults::DROP_ON_HOTPLUG, 8 * SECOND, false, findings);
}

/// A section that is held for too long is reported, and the engine goes on.
#[test]
fn a_stall_is_no_end() {
    let (good, lines) = torture(4, false, |options| {
        options.stall_ns = 2 * SECOND;
        options.overlong = true;
    });
    assert!(good, "{lines:#?}");
}
