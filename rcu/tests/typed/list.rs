//! Lists.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use platform::{CpuId, Mark, Platform, hosted::Hosted, lock_class};
use proptest::prelude::*;
use rcu::{
    Rcu, RcuBox,
    list::{Element, List},
};

use crate::world::{Count, Random, Value, others, rounds, run};

lock_class! { struct Numbers = ("numbers", 10); }

type Values = List<Value, Hosted, Numbers>;

fn element(count: &Count, number: u64) -> RcuBox<Element<Value>> {
    Element::try_new(count.value(number)).unwrap()
}

/// A list of those numbers.
fn list_of(count: &Count, numbers: &[u64]) -> Values {
    let list = List::new();
    let mut updater = list.lock();
    for number in numbers.iter().rev() {
        updater.push_front(element(count, *number));
    }
    drop(updater);
    list
}

fn numbers(list: &Values) -> Vec<u64> {
    let guard = rcu::read();
    list.iter(&guard).map(Value::number).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Insert(usize),
    Remove(usize),
    Replace(usize),
    /// Whether to wait for what was removed, and put it in again.
    Reuse,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => any::<usize>().prop_map(Step::Insert),
        4 => any::<usize>().prop_map(Step::Remove),
        3 => any::<usize>().prop_map(Step::Replace),
        1 => Just(Step::Reuse),
    ];
    proptest::collection::vec(step, 1..60)
}

/// Does the same to a list and to a vector.
fn follow(rcu: &Rcu<Hosted>, count: &Count, steps: &[Step]) {
    let list = Values::new();
    let mut model = Vec::new();
    let mut last = None;
    for (number, step) in steps.iter().enumerate() {
        let number = number as u64;
        let place = match *step {
            Step::Insert(place) | Step::Remove(place) | Step::Replace(place) => {
                place % (model.len() + 1)
            }
            Step::Reuse => 0,
        };
        let new = match step {
            Step::Insert(_) | Step::Replace(_) => Some(element(count, number)),
            Step::Remove(_) | Step::Reuse => None,
        };
        let mut updater = list.lock();
        let mut cursor = updater.cursor();
        assert!((0..place).all(|_| cursor.move_next()));
        assert_eq!(
            cursor.current().map(Value::number),
            model.get(place).copied()
        );
        match (step, new) {
            (Step::Insert(_), Some(new)) => {
                cursor.insert(new);
                model.insert(place, number);
            }
            (Step::Replace(_), Some(new)) => match cursor.replace(new, rcu) {
                Ok(old) => {
                    assert_eq!(old.number(), model[place]);
                    model[place] = number;
                    last = Some(old);
                }
                Err(new) => assert_eq!((place, new.number()), (model.len(), number)),
            },
            (Step::Remove(_), None) => {
                let removed = cursor.remove(rcu);
                assert_eq!(removed.is_some(), place < model.len());
                if let Some(old) = removed {
                    assert_eq!(old.number(), model.remove(place));
                    last = Some(old);
                }
            }
            (Step::Reuse, None) => {
                drop(updater);
                if let Some(old) = last.take() {
                    let mut old = old.synchronize();
                    *old.get_mut() = count.value(number);
                    list.lock().push_front(old);
                    model.insert(0, number);
                }
                continue;
            }
            _ => unreachable!(),
        }
        assert_eq!(
            cursor.current().map(Value::number),
            model.get(place).copied()
        );
        drop(updater);
        assert_eq!(numbers(&list), model);
    }
    let alive = model.len() as isize;
    drop(last);
    rcu.barrier();
    assert_eq!(count.get(), alive);
    drop(list);
    assert_eq!(count.get(), 0);
}

#[test]
fn a_list_does_what_a_vector_does() {
    run(1, 1, |_, rcu| {
        let rounds = rounds(2_000, 60) as u32;
        proptest!(ProptestConfig::with_cases(rounds), |(steps in steps())| {
            follow(rcu, &Count::default(), &steps);
        });
    });
}

#[test]
fn a_reader_goes_on_from_what_was_removed() {
    let count = Count::default();
    run(1, 1, |_, rcu| {
        let list = list_of(&count, &[1, 2, 3, 4, 5]);
        let guard = rcu::read();
        let mut reader = list.iter(&guard);
        assert_eq!(reader.nth(1).map(Value::number), Some(2));
        let early = reader.clone();
        // The one it stands on, and the one after; then the third one is replaced.
        let mut updater = list.lock();
        let mut cursor = updater.cursor();
        assert!(cursor.seek(|value| value.number() == 2));
        cursor.remove(rcu);
        cursor.remove(rcu);
        cursor.replace(element(&count, 40), rcu).unwrap();
        assert!(cursor.seek(|value| value.number() == 5));
        assert!(!cursor.seek(|value| value.number() == 1));
        cursor.insert(element(&count, 6));
        drop(updater);
        // As the removed ones lead on: the third one that was there, then the new end.
        let rest: Vec<_> = reader.map(Value::number).collect();
        assert_eq!(rest, [3, 4, 5, 6]);
        assert_eq!(early.count(), 4);
        assert_eq!(
            list.iter(&guard).map(Value::number).collect::<Vec<_>>(),
            [1, 40, 5, 6]
        );
        drop(guard);
        rcu.barrier();
        assert_eq!(count.get(), 4);
    });
    assert_eq!(count.get(), 0);
}

/// Numbers that stay in the list all the while are multiples of this.
const STAYS: u64 = 4;
const LARGEST: u64 = 40;

/// What a reader must meet: everything that stays, nothing twice, in order.
fn check_walk(list: &Values, random: &mut Random) -> u64 {
    let guard = rcu::read();
    let mut stays = (0..=LARGEST).step_by(STAYS as usize);
    let mut last = None;
    let mut others = 0;
    for value in list.iter(&guard) {
        let number = value.number();
        assert!(last < Some(number), "{number} after {last:?}");
        last = Some(number);
        if number.is_multiple_of(STAYS) {
            assert_eq!(stays.next(), Some(number), "one was not met");
        } else {
            others += 1;
        }
        if random.below(4) == 0 {
            Hosted::mark(Mark::Step);
            assert_eq!(value.number(), number);
        }
    }
    assert_eq!(stays.next(), None, "the rest was not met");
    drop(guard);
    Hosted::relax();
    others
}

/// Inserts or removes a number that does not stay, or replaces one that does.
fn update(list: &Values, rcu: &Rcu<Hosted>, count: &Count, random: &mut Random) {
    let number = random.below(LARGEST);
    let new = element(count, number);
    let mut updater = list.lock();
    let mut cursor = updater.cursor();
    cursor.seek(|value| value.number() >= number);
    let is_there = cursor
        .current()
        .is_some_and(|value| value.number() == number);
    let old = if number.is_multiple_of(STAYS) {
        assert!(is_there);
        cursor.replace(new, rcu).ok()
    } else if is_there {
        cursor.remove(rcu)
    } else {
        cursor.insert(new);
        None
    };
    drop(updater);
    match old {
        Some(old) if random.below(64) == 0 => drop(old.synchronize_expedited()),
        old => drop(old),
    }
    Hosted::relax();
}

/// Two CPUs update, the others read; on one CPU, threads of it.
#[test]
fn readers_meet_what_stays() {
    let rounds = rounds(40_000, 1_000);
    for (cpus, seed) in [(1, 1), (2, 2), (4, 3)] {
        let count = Count::default();
        run(cpus, seed, |machine, rcu| {
            let stays: Vec<_> = (0..=LARGEST).step_by(STAYS as usize).collect();
            let list = Arc::new(list_of(&count, &stays));
            let over = Arc::new(AtomicBool::new(false));
            let readers: Vec<_> = others(cpus.max(3))
                .map(|cpu| {
                    let (list, over) = (Arc::clone(&list), Arc::clone(&over));
                    let on = CpuId::from_index(cpu.index() % cpus);
                    machine.spawn_on(on.unwrap(), move || {
                        let mut random = Random::of(cpu);
                        let mut met = 0;
                        while !over.load(Ordering::Relaxed) {
                            met += check_walk(&list, &mut random);
                        }
                        met
                    })
                })
                .collect();
            let second = {
                let (list, rcu, count) = (Arc::clone(&list), Arc::clone(rcu), count.clone());
                machine.spawn_on(CpuId::from_index(cpus - 1).unwrap(), move || {
                    let mut random = Random(77);
                    (0..rounds).for_each(|_| update(&list, &rcu, &count, &mut random));
                })
            };
            let mut random = Random(99);
            (0..rounds).for_each(|_| update(&list, rcu, &count, &mut random));
            second.join();
            over.store(true, Ordering::Relaxed);
            for reader in readers {
                assert!(reader.join() > 0, "a reader met nothing that came and went");
            }
            // Each once.
            let mut seen = HashMap::new();
            numbers(&list)
                .into_iter()
                .for_each(|number| *seen.entry(number).or_insert(0) += 1);
            assert!(seen.values().all(|times| *times == 1));
        });
        assert_eq!(count.get(), 0);
    }
}
