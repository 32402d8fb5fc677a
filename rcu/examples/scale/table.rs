//! The table of `docs/rcu.md`.

use crate::sim::{Load, Locks, Random, Sim, on_one_cpu};

const SEED: u64 = 2026;

/// Its lines, with those above the first row.
pub fn lines() -> Vec<String> {
    let mut lines = vec![
        "| CPUs | fan-out | levels | nodes | idle | busy | mixed | all ask | all ask later |"
            .into(),
        "|---|---|---|---|---|---|---|---|---|".into(),
    ];
    for cpus in [1, 16, 256, 4096] {
        for fanout in [2, 16, 64] {
            lines.push(on_one_cpu(|| row(cpus, fanout)));
        }
    }
    lines
}

fn row(cpus: usize, fanout: usize) -> String {
    let mut random = Random(SEED);
    let mut sim = Sim::new(cpus, fanout);
    let mut columns = Vec::new();
    for load in Load::ALL {
        columns.push(sim.grace_period(load, &mut random, |_, _| {}).locks);
    }
    columns.push(sim.requests_when_idle(&mut random).1);
    // This is the one that was asked for.
    let quiet = sim.grace_period(Load::Idle, &mut random, |_, _| {});
    let asked = sim.grace_period(Load::Idle, &mut random, |sim, random| {
        sim.requests(random);
    });
    // What the requests added.
    columns.push(asked.locks.since(&quiet.locks));
    let shape = sim.geometry();
    let columns: String = columns.iter().map(cell).collect();
    let (levels, nodes) = (shape.levels(), shape.nodes());
    format!("| {cpus} | {fanout} | {levels} | {nodes} |{columns}")
}

fn cell(locks: &Locks) -> String {
    format!(" {} / {} / {} |", locks.root(), locks.most(), locks.all())
}
