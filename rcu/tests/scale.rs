//! How the tree scales: which locks a grace period takes, and how often, on up to 4096
//! simulated CPUs; and that it ends neither early nor late.

#[path = "../examples/scale/sim.rs"]
mod sim;
#[path = "../examples/scale/table.rs"]
mod table;

use rcu::geometry::Geometry;
use sim::{Load, Locks, Outcome, Random, Sim, on_one_cpu};

const CPUS: [usize; 4] = [1, 16, 256, 4096];
const FANOUTS: [usize; 3] = [2, 16, 64];

fn for_all_shapes(check: impl Fn(&mut Sim, &mut Random)) {
    for cpus in CPUS {
        for fanout in FANOUTS {
            on_one_cpu(|| check(&mut Sim::new(cpus, fanout), &mut Random(7)));
        }
    }
}

/// For each node: how many children it has, and whether it is a leaf.
fn nodes(geometry: &Geometry) -> impl Iterator<Item = (u64, Option<usize>)> {
    (0..geometry.nodes()).map(|node| {
        let children = geometry.place(node).children.count_ones();
        (u64::from(children), node.checked_sub(geometry.first_leaf()))
    })
}

/// What a grace period takes. Its beginning and its end: every lock once, and the root's once
/// more. A look: every leaf's. A report: the leaf's; the last one of a node: the parent's.
fn expected(geometry: &Geometry, outcome: &Outcome) -> Locks {
    let locks = nodes(geometry).enumerate().map(|(node, (children, leaf))| {
        let ends = if node == 0 { 3 } else { 2 };
        ends + match leaf {
            None => children,
            Some(leaf) => outcome.looks + outcome.reports[leaf],
        }
    });
    Locks(locks.collect())
}

#[test]
fn a_grace_period_takes_a_nodes_lock_once_for_each_child() {
    for_all_shapes(|sim, random| {
        for load in Load::ALL {
            let outcome = sim.grace_period(load, random, |_, _| {});
            let geometry = sim.geometry();
            assert_eq!(
                outcome.locks,
                expected(geometry, &outcome),
                "{geometry}, {load:?}"
            );
            assert!(!outcome.more);
            let reported: u64 = outcome.reports.iter().sum();
            match load {
                Load::Idle => assert_eq!((outcome.looks, reported), (1, 0)),
                Load::Busy => assert_eq!((outcome.looks, reported), (1, sim.cpus() as u64 - 1)),
                Load::Mixed => assert!(outcome.looks <= 2),
            }
            // Whatever the number of CPUs.
            if geometry.levels() > 1 {
                assert!(outcome.locks.root() <= 64 + 3);
                assert!(outcome.locks.most() <= 64 + 4);
            }
        }
    });
}

#[test]
fn of_many_requests_one_child_each_comes_to_the_root() {
    for_all_shapes(|sim, random| {
        let (woken, locks) = sim.requests_when_idle(random);
        assert_eq!(woken, 1, "one has to wake the engine");
        // As in a report, the first one of each child goes up.
        let children = nodes(sim.geometry()).map(|(children, _)| children);
        assert_eq!(locks, Locks(children.collect()), "{}", sim.geometry());
        // A second round meets the first at the leaves.
        let (woken, locks) = sim.requests_when_idle(random);
        assert_eq!(woken, 0);
        assert_eq!(locks.all(), sim.cpus() as u64);
        // What was asked for is the next one.
        assert!(!sim.grace_period(Load::Idle, random, |_, _| {}).more);
    });
}

#[test]
fn requests_while_a_grace_period_runs_stay_at_the_leaves() {
    for_all_shapes(|sim, random| {
        let outcome = sim.grace_period(Load::Idle, random, |sim, random| {
            assert_eq!(sim.requests(random), 0, "the engine is awake");
        });
        assert!(outcome.more, "the requests were forgotten");
        let mut wanted = expected(sim.geometry(), &outcome);
        for (locks, (children, leaf)) in wanted.0.iter_mut().zip(nodes(sim.geometry())) {
            *locks += leaf.map_or(0, |_| children);
        }
        // The end tells the root what it found, once.
        wanted.0[0] += 1;
        assert_eq!(outcome.locks, wanted, "{}", sim.geometry());
    });
}

#[test]
fn a_grace_period_ends_when_the_last_cpu_has_reported() {
    for_all_shapes(|sim, random| {
        let reports = sim.churn(2 + 4096 / sim.cpus().max(64), random);
        assert!(reports > 0 || sim.cpus() == 1);
    });
}

#[test]
fn the_table_is_the_one_that_is_shown() {
    let docs = include_str!("../../docs/rcu.md");
    let table = table::lines().join("\n");
    assert!(docs.contains(&table), "docs/rcu.md is to have\n{table}");
}
