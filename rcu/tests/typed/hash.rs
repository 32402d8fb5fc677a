//! Hash tables.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use platform::{CpuId, Mark, Platform, hosted::Hosted, lock_class};
use proptest::prelude::*;
use rcu::{
    Rcu, RcuBox,
    hash::{Entry, HashTable},
};

use crate::world::{Count, Random, Value, others, rounds, run};

lock_class! { struct Buckets = ("buckets", 10); }

type Table<S> = HashTable<String, Value, Hosted, Buckets, S>;
/// The same in every run.
type Fixed = BuildHasherDefault<DefaultHasher>;

/// A hash function by which all keys are in one list.
#[derive(Clone, Copy, Debug, Default)]
struct Same;

impl BuildHasher for Same {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self
    }
}

impl Hasher for Same {
    fn finish(&self) -> u64 {
        7
    }

    fn write(&mut self, _bytes: &[u8]) {}
}

fn entry(count: &Count, key: u64, number: u64) -> RcuBox<Entry<String, Value>> {
    Entry::try_of(key.to_string(), count.value(number)).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64),
    Remove(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..20u64).prop_map(Step::Insert),
        2 => (0..20u64).prop_map(Step::Remove),
    ];
    proptest::collection::vec(step, 1..80)
}

/// Does the same to a table and to one of `std`.
fn follow<S: BuildHasher>(rcu: &Rcu<Hosted>, table: Table<S>, steps: &[Step]) {
    let count = Count::default();
    let mut model = HashMap::new();
    for (number, step) in steps.iter().enumerate() {
        let number = number as u64;
        let (old, was, key) = match *step {
            Step::Insert(key) => {
                let old = table.insert(entry(&count, key, number), rcu);
                (old, model.insert(key.to_string(), number), key)
            }
            Step::Remove(key) => {
                let key_text = key.to_string();
                (table.remove(&*key_text, rcu), model.remove(&key_text), key)
            }
        };
        assert_eq!(old.as_ref().map(|old| old.value.number()), was);
        assert!(old.is_none_or(|old| old.key == key.to_string()));
        let guard = rcu::read();
        for key in 0..20u64 {
            let found = table.get(&*key.to_string(), &guard);
            assert_eq!(
                found.map(Value::number),
                model.get(&key.to_string()).copied()
            );
        }
        let all: HashMap<_, _> = table
            .iter(&guard)
            .map(|pair| (pair.key.clone(), pair.value.number()))
            .collect();
        assert_eq!(all, model);
        assert_eq!(table.iter(&guard).count(), model.len());
    }
    rcu.barrier();
    assert_eq!(count.get(), model.len() as isize);
    drop(table);
    assert_eq!(count.get(), 0);
}

#[test]
fn a_table_does_what_that_of_std_does() {
    run(1, 1, |_, rcu| {
        let rounds = rounds(1_000, 40) as u32;
        proptest!(ProptestConfig::with_cases(rounds), |(steps in steps(), buckets in 0..9usize)| {
            follow(rcu, Table::try_new(buckets, Fixed::default()).unwrap(), &steps);
            follow(rcu, Table::try_new(buckets, Same).unwrap(), &steps);
        });
    });
}

#[test]
fn a_table_that_is_too_large_is_not_made() {
    assert!(Table::try_new(usize::MAX, Same).is_none());
    assert!(Table::try_new(1 << 62, Same).is_none());
}

/// Keys below this are always there; those from here on come and go.
const STAY: u64 = 8;
const KEYS: u64 = 16;

/// A value is its key in the high half, and a number that only grows in the low half.
fn check_lookups<S: BuildHasher>(table: &Table<S>, latest: &mut [u64], random: &mut Random) -> u64 {
    let key = random.below(KEYS);
    let guard = rcu::read();
    let found = table.get(&*key.to_string(), &guard);
    let hits = u64::from(found.is_some());
    match found {
        Some(value) => {
            let number = value.number();
            assert_eq!(number >> 32, key);
            assert!(number >= latest[key as usize], "an older value than before");
            latest[key as usize] = number;
            Hosted::mark(Mark::Step);
            assert_eq!(value.number(), number);
        }
        None => assert!(key >= STAY, "a key that is there was not found"),
    }
    drop(guard);
    Hosted::relax();
    hits
}

#[test]
fn lookups_find_what_stays() {
    let rounds = rounds(40_000, 1_000) as u64;
    for (cpus, buckets, seed) in [(1, 1, 1), (2, 2, 2), (4, 4, 3)] {
        let count = Count::default();
        run(cpus, seed, |machine, rcu| {
            let table = Table::try_new(buckets, Fixed::default()).unwrap();
            for key in 0..STAY {
                table.insert(entry(&count, key, key << 32), rcu);
            }
            let table = Arc::new(table);
            let over = Arc::new(AtomicBool::new(false));
            let readers: Vec<_> = others(cpus.max(2))
                .map(|cpu| {
                    let (table, over) = (Arc::clone(&table), Arc::clone(&over));
                    let on = CpuId::from_index(cpu.index() % cpus).unwrap();
                    machine.spawn_on(on, move || {
                        let mut random = Random::of(cpu);
                        let (mut hits, mut latest) = (0, [0; KEYS as usize]);
                        while !over.load(Ordering::Relaxed) {
                            hits += check_lookups(&table, &mut latest, &mut random);
                        }
                        hits
                    })
                })
                .collect();
            let mut random = Random(99);
            for round in 1..=rounds {
                let key = random.below(KEYS);
                let remove = key >= STAY && random.below(2) == 0;
                let old = if remove {
                    table.remove(&*key.to_string(), rcu)
                } else {
                    table.insert(entry(&count, key, key << 32 | round), rcu)
                };
                assert!(key >= STAY || old.is_some());
                drop(old);
                Hosted::relax();
            }
            over.store(true, Ordering::Relaxed);
            for reader in readers {
                assert!(reader.join() > 0, "a reader found nothing");
            }
        });
        assert_eq!(count.get(), 0);
    }
}
