//! The order checker against a naive model of it, over random acquisitions.

mod lockdep_machine;

use std::collections::BTreeSet;

use lockdep_machine::{SPIN, Thread};
use platform::{
    lock::{Class, LockClass},
    lock_class,
    lockdep::{Checker, Kind},
};
use proptest::prelude::*;

// One level, and nesting: only the order learned counts.
lock_class! {
    struct C0 = ("0", 1, nests);
    struct C1 = ("1", 1, nests);
    struct C2 = ("2", 1, nests);
    struct C3 = ("3", 1, nests);
    struct C4 = ("4", 1, nests);
    struct C5 = ("5", 1, nests);
    struct C6 = ("6", 1, nests);
    struct C7 = ("7", 1, nests);
}

const CLASSES: usize = 8;
const THREADS: usize = 3;

fn class(index: usize) -> &'static LockClass {
    [
        C0::class(),
        C1::class(),
        C2::class(),
        C3::class(),
        C4::class(),
        C5::class(),
        C6::class(),
        C7::class(),
    ][index]
}

/// What a thread does next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Take { thread: usize, class: usize },
    Give { thread: usize, which: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let take = (0..THREADS, 0..CLASSES).prop_map(|(thread, class)| Step::Take { thread, class });
    let give = (0..THREADS, 0..CLASSES).prop_map(|(thread, which)| Step::Give { thread, which });
    prop::collection::vec(prop_oneof![3 => take, 2 => give], 1..200)
}

/// The model: edges as a set, reachability by closing it.
#[derive(Default)]
struct Model {
    edges: BTreeSet<(usize, usize)>,
    refused: BTreeSet<(usize, usize)>,
    held: [Vec<usize>; THREADS],
}

impl Model {
    /// How many classes lie on the shortest path, both ends included.
    fn path(&self, from: usize, to: usize) -> Option<usize> {
        let mut reached = BTreeSet::from([from]);
        for length in 1..=CLASSES {
            if reached.contains(&to) {
                return Some(length);
            }
            let next: Vec<_> = self
                .edges
                .iter()
                .filter(|(a, _)| reached.contains(a))
                .map(|(_, b)| *b)
                .collect();
            reached.extend(next);
        }
        None
    }

    /// The kinds of findings that an acquisition must give, by the pair's other class.
    fn take(&mut self, thread: usize, class: usize) -> Vec<(usize, Kind)> {
        let mut found = Vec::new();
        for &other in &self.held[thread] {
            let edge = (other, class);
            if self.edges.contains(&edge) || self.refused.contains(&edge) {
                continue;
            }
            match self.path(class, other) {
                None => {
                    self.edges.insert(edge);
                }
                Some(length) => {
                    // Both orders of a pair are one finding.
                    if !self.refused.contains(&(class, other)) {
                        found.push((other, if length == 2 { Kind::AbBa } else { Kind::Cycle }));
                    }
                    self.refused.insert(edge);
                }
            }
        }
        self.held[thread].push(class);
        found
    }
}

/// Runs the steps on both. The checker's findings, in order; they are the model's.
fn run(checker: &Checker, steps: &[Step]) -> Result<(Model, usize), TestCaseError> {
    let mut model = Model::default();
    let mut threads: Vec<_> = (0..THREADS).map(|_| Thread::new(checker)).collect();
    let mut total = 0;
    for &step in steps {
        match step {
            Step::Take { thread, class: new } => {
                if model.held[thread].contains(&new) {
                    continue;
                }
                let mut expected = model.take(thread, new);
                let thread = &mut threads[thread];
                thread.take_as(class(new), 0x100 + new, SPIN);
                total += thread.found.len();
                for (kind, text) in thread.found.drain(..) {
                    let named = expected.iter().position(|(other, expected)| {
                        *expected == kind && text.contains(&format!("\"{other}\""))
                    });
                    let named = named.ok_or_else(|| TestCaseError::fail(text))?;
                    expected.remove(named);
                }
                prop_assert!(expected.is_empty(), "not found: {expected:?} before {new}");
            }
            Step::Give { thread, which } => {
                let held = &mut model.held[thread];
                if !held.is_empty() {
                    let old = held.remove(which % held.len());
                    threads[thread].give_lock(class(old), 0x100 + old);
                    prop_assert!(threads[thread].found.is_empty());
                }
            }
        }
        for (thread, held) in threads.iter().zip(&model.held) {
            let locks: Vec<_> = thread.held.locks().map(|lock| lock.lock - 0x100).collect();
            prop_assert_eq!(&locks, held);
        }
    }
    prop_assert_eq!(checker.statistics().edges, model.edges.len());
    Ok((model, total))
}

/// Only those that take classes in the order of `rank`.
fn ordered(steps: &[Step], rank: &[usize]) -> Vec<Step> {
    let mut held: [Vec<usize>; THREADS] = Default::default();
    steps
        .iter()
        .copied()
        .filter(|step| match *step {
            Step::Take { thread, class } => {
                let held = &mut held[thread];
                let grows = held.iter().all(|&other| rank[other] < rank[class]);
                if grows {
                    held.push(class);
                }
                grows
            }
            Step::Give { thread, which } => {
                let held = &mut held[thread];
                if !held.is_empty() {
                    held.remove(which % held.len());
                }
                true
            }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is done, the checker finds what the model finds.
    #[test]
    fn as_the_model(steps in steps()) {
        let checker = Box::new(Checker::new());
        run(&checker, &steps)?;
    }

    /// What respects some order is never reported; one acquisition that closes a cycle is.
    #[test]
    fn one_inversion(
        steps in steps(),
        rank in Just((0..CLASSES).collect::<Vec<_>>()).prop_shuffle(),
        pick in any::<prop::sample::Index>(),
    ) {
        let checker = Box::new(Checker::new());
        let (model, found) = run(&checker, &ordered(&steps, &rank))?;
        prop_assert_eq!(found, 0);

        let inversions: Vec<_> = (0..CLASSES)
            .flat_map(|from| (0..CLASSES).map(move |to| (from, to)))
            .filter(|(from, to)| from != to && model.path(*from, *to).is_some())
            .collect();
        if inversions.is_empty() {
            return Ok(());
        }
        let (inner, outer) = inversions[pick.index(inversions.len())];
        let mut thread = Thread::new(&checker);
        let held = thread.take(class(outer));
        let wanted = thread.take(class(inner));
        let kind = match model.path(inner, outer) {
            Some(2) => Kind::AbBa,
            _ => Kind::Cycle,
        };
        thread.found_one(kind, &[&held, &wanted]);
    }
}
