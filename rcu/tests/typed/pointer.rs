//! Pointers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use platform::{CpuId, Mark, Platform, hosted::Hosted};
use rcu::{Pointer, Rcu, RcuBox};

use crate::world::{Count, Random, Value, others, rounds, run};

fn boxed(count: &Count, number: u64) -> Option<RcuBox<Value>> {
    Some(RcuBox::try_new(count.value(number)).unwrap())
}

fn number(pointer: &Pointer<Value, Hosted>) -> Option<u64> {
    let guard = rcu::read();
    pointer.read(&guard).map(Value::number)
}

#[test]
fn what_is_assigned_is_read() {
    let count = Count::default();
    run(1, 1, |_, rcu| {
        let mut pointer = Pointer::new();
        assert!(number(&pointer).is_none() && pointer.get_mut().is_none());
        assert!(pointer.replace(None, rcu).is_none());
        assert!(pointer.replace(boxed(&count, 1), rcu).is_none());
        assert_eq!(number(&pointer), Some(1));
        let old = pointer.replace(boxed(&count, 2), rcu).unwrap();
        assert_eq!((old.number(), number(&pointer)), (1, Some(2)));
        *pointer.get_mut().unwrap() = count.value(3);
        assert_eq!(number(&pointer), Some(3));
        assert_eq!(pointer.into_inner().unwrap().into_inner().number(), 3);
        drop(Pointer::<_, Hosted>::from(boxed(&count, 4)));
        // What is left is `old`, which is not dropped before its time.
        assert_eq!((old.number(), count.get()), (1, 1));
    });
    assert_eq!(count.get(), 0);
}

#[test]
fn a_value_comes_back_after_a_grace_period() {
    let count = Count::default();
    run(2, 1, |_, rcu| {
        let pointer = Pointer::from(boxed(&count, 1));
        let old = pointer.replace(boxed(&count, 2), rcu).unwrap();
        assert_eq!(old.synchronize().number(), 1);
        let old = pointer.replace(boxed(&count, 3), rcu).unwrap();
        assert_eq!(old.synchronize_expedited().number(), 2);
        assert_eq!(count.get(), 1);

        let guard = rcu::read();
        let seen = pointer.read(&guard).unwrap();
        let old = pointer.replace(None, rcu).unwrap();
        old.start_poll();
        assert!(!old.poll());
        let old = old.try_take().unwrap_err();
        assert_eq!(seen.number(), 3);
        drop(guard);
        rcu.synchronize();
        assert!(old.poll());
        let mut value = old.try_take().unwrap();
        *value = count.value(4);
        // And can be published anew.
        pointer.assign(Some(value), rcu);
        assert_eq!(number(&pointer), Some(4));
    });
    assert_eq!(count.get(), 0);
}

#[test]
fn polling_alone_makes_a_grace_period() {
    let count = Count::default();
    run(2, 1, |_, rcu| {
        let pointer = Pointer::from(boxed(&count, 1));
        let mut old = pointer.replace(None, rcu).unwrap();
        old.start_poll();
        let value = loop {
            old = match old.try_take() {
                Ok(value) => break value,
                Err(old) => old,
            };
            Hosted::relax();
        };
        assert_eq!(value.number(), 1);
    });
}

#[test]
fn what_is_dropped_waits_for_readers() {
    let count = Count::default();
    run(2, 1, |_, rcu| {
        let pointer = Pointer::from(boxed(&count, 1));
        let guard = rcu::read();
        let seen = pointer.read(&guard).unwrap();
        pointer.assign(boxed(&count, 2), rcu);
        pointer.replace(None, rcu).unwrap().free_after();
        assert_eq!((seen.number(), count.get()), (1, 2));
        drop(guard);
        rcu.barrier();
        assert_eq!(count.get(), 0);
    });
}

#[test]
fn one_grace_period_is_enough_for_all_that_were_retired_before() {
    let count = Count::default();
    run(2, 1, |_, rcu| {
        let pointer = Pointer::from(boxed(&count, 0));
        let retired: Vec<_> = (1..=100)
            .map(|number| pointer.replace(boxed(&count, number), rcu).unwrap())
            .collect();
        rcu.synchronize();
        let before = rcu.stats();
        for (number, old) in retired.into_iter().enumerate() {
            let old = if number % 2 == 0 {
                old.synchronize()
            } else {
                old.synchronize_expedited()
            };
            assert_eq!(old.number(), number as u64);
        }
        let after = rcu.stats();
        assert_eq!(after.grace_periods, before.grace_periods);
        assert_eq!(after.expedited, before.expedited);
    });
    assert_eq!(count.get(), 0);
}

/// Readers on all CPUs but the first, beside two updaters; on one CPU, threads of it. A reader
/// looks again and again at what it found, until its section ends.
#[test]
fn readers_find_whole_values_that_stay() {
    let rounds = rounds(50_000, 1_000);
    for (cpus, seed) in [(1, 1), (2, 2), (4, 3)] {
        let count = Count::default();
        run(cpus, seed, |machine, rcu| {
            let pointer = Arc::new(Pointer::from(boxed(&count, 0)));
            let over = Arc::new(AtomicBool::new(false));
            let readers: Vec<_> = others(cpus.max(2))
                .map(|cpu| {
                    let (pointer, over) = (Arc::clone(&pointer), Arc::clone(&over));
                    let on = CpuId::from_index(cpu.index() % cpus).unwrap();
                    machine.spawn_on(on, move || {
                        let mut random = Random::of(cpu);
                        let mut found = 0;
                        while !over.load(Ordering::Relaxed) {
                            found += read_for_a_while(&pointer, &mut random);
                        }
                        found
                    })
                })
                .collect();
            let second = {
                let (pointer, rcu, count) = (Arc::clone(&pointer), Arc::clone(rcu), count.clone());
                let last = CpuId::from_index(cpus - 1).unwrap();
                machine.spawn_on(last, move || {
                    update(&pointer, &rcu, &count, rounds, &mut Random(77));
                })
            };
            update(&pointer, rcu, &count, rounds, &mut Random(99));
            second.join();
            over.store(true, Ordering::Relaxed);
            for reader in readers {
                assert!(reader.join() > 0, "a reader found nothing");
            }
        });
        assert_eq!(count.get(), 0);
    }
}

/// One section. 1 if there was a value.
fn read_for_a_while(pointer: &Pointer<Value, Hosted>, random: &mut Random) -> u64 {
    let guard = rcu::read();
    let found = pointer.read(&guard);
    if let Some(value) = found {
        let number = value.number();
        for _ in 0..random.below(30) {
            Hosted::mark(Mark::Step);
            assert_eq!(value.number(), number);
        }
    }
    let found = u64::from(found.is_some());
    drop(guard);
    Hosted::relax();
    found
}

/// Retires in every way.
fn update(
    pointer: &Pointer<Value, Hosted>,
    rcu: &Rcu<Hosted>,
    count: &Count,
    rounds: usize,
    random: &mut Random,
) {
    let mut polled = Vec::new();
    for round in 1..=rounds as u64 {
        let new = if random.below(8) == 0 {
            None
        } else {
            boxed(count, round)
        };
        let Some(old) = pointer.replace(new, rcu) else {
            continue;
        };
        match random.below(100) {
            0..4 => drop(old.synchronize()),
            4..8 => drop(old.synchronize_expedited()),
            8..20 => polled.push(old),
            _ => old.free_after(),
        }
        let taken = std::mem::take(&mut polled).into_iter();
        polled.extend(taken.filter_map(|old| old.try_take().err()));
        Hosted::relax();
    }
}
