//! Spinning locks and the sequence lock.

use super::{Outcome, Size, ensure, equal, threads::run};
use crate::{
    IrqsOff, Platform, Preempt,
    lock::{Class, IrqSpinLock, Pinned, SeqLock, Spin, SpinGuard, SpinLock},
    lock_class,
};

lock_class! {
    struct SpinTest = ("conformance spin", 200);
    struct IrqSpinTest = ("conformance irq spin", 201);
    struct Outer = ("conformance outer", 202);
    struct Inner = ("conformance inner", 203);
    struct SeqTest = ("conformance seq", 204);
    struct TryTest = ("conformance try", 205);
    struct Guards = ("conformance guards", 206);
    struct IrqGuards = ("conformance irq guards", 207);
}

/// A lock around two counts that are the same whenever the lock is free.
struct Pair<L> {
    lock: L,
    rounds: usize,
}

/// Adds one to both counts; finds out whether somebody else is in between.
fn add(counts: &mut [u64; 2]) -> Outcome {
    let [first, second] = *counts;
    counts[0] = first + 1;
    equal("counts differ inside the lock", second, first)?;
    counts[1] = second + 1;
    Ok(())
}

fn excludes<P, C, E>(size: Size) -> Outcome
where
    P: Platform,
    C: Class,
    E: Pinned<P> + 'static,
{
    let pair = Pair {
        lock: Spin::<_, P, C, E>::new([0, 0]),
        rounds: size.rounds,
    };
    run::<P, _>(size, &pair, |pair, _| {
        (0..pair.rounds).try_for_each(|_| add(&mut pair.lock.lock()))
    })?;
    let [first, second] = pair.lock.into_inner();
    let wanted = (size.threads * size.rounds) as u64;
    equal("additions", first, wanted)?;
    equal("additions", second, wanted)
}

/// A spin lock lets one thread in at a time, which sees what the last one did.
pub fn spin_excludes<P: Platform>(size: Size) -> Outcome {
    excludes::<P, SpinTest, Preempt<P>>(size)
}

/// The same for the lock that turns interrupts off.
pub fn irq_spin_excludes<P: Platform>(size: Size) -> Outcome {
    excludes::<P, IrqSpinTest, IrqsOff<P>>(size)
}

/// A lock inside another, and a try in between.
pub fn nested_locks_exclude<P: Platform>(size: Size) -> Outcome {
    struct Both<P: Platform> {
        outer: SpinLock<[u64; 2], P, Outer>,
        inner: IrqSpinLock<[u64; 2], P, Inner>,
        rounds: usize,
    }
    let both = Both::<P> {
        outer: SpinLock::new([0, 0]),
        inner: IrqSpinLock::new([0, 0]),
        rounds: size.rounds,
    };
    run::<P, _>(size, &both, |both, _| {
        for _ in 0..both.rounds {
            let mut outer = both.outer.lock();
            add(&mut both.inner.lock_under(&outer))?;
            add(&mut outer)?;
            ensure(
                "held by this CPU",
                both.outer.holder() == Some(P::current_cpu()),
            )?;
        }
        Ok(())
    })?;
    equal(
        "the same number of both",
        both.outer.into_inner()[0],
        both.inner.into_inner()[1],
    )
}

/// A lock that is held is refused to a try, is shown as held by its CPU, and is free again
/// afterwards.
pub fn spin_try_and_holder<P: Platform>(_: Size) -> Outcome {
    let lock = SpinLock::<_, P, TryTest>::new(1);
    ensure("free at first", lock.holder().is_none())?;
    {
        let held = lock.lock();
        let cpu = SpinGuard::preempt(&held).cpu();
        ensure("holder", lock.holder() == Some(cpu))?;
        ensure("a try while it is held", lock.try_lock().is_none())?;
    }
    ensure("given back", lock.holder().is_none())?;
    let taken = lock.try_lock().map(|mut value| *value += 1);
    ensure("a try while it is free", taken.is_some())?;
    equal("value", lock.into_inner(), 2)
}

/// What a lock turns off is off while it is held, and on again afterwards, also if guards
/// end in another order than they began.
pub fn guards_turn_off_and_on<P: Platform>(_: Size) -> Outcome {
    let lock = SpinLock::<_, P, Guards>::new(());
    let irq_lock = IrqSpinLock::<_, P, IrqGuards>::new(());
    ensure("called where it may sleep", P::may_sleep())?;
    ensure("called with interrupts on", P::irqs_enabled())?;
    let first = lock.lock();
    ensure("no sleep under a spin lock", !P::may_sleep())?;
    ensure("interrupts under a spin lock", P::irqs_enabled())?;
    let second = irq_lock.lock_under(&first);
    ensure("no interrupts under an irq lock", !P::irqs_enabled())?;
    drop(first);
    ensure("still no interrupts", !P::irqs_enabled())?;
    ensure("still no sleep", !P::may_sleep())?;
    drop(second);
    ensure("interrupts are on again", P::irqs_enabled())?;
    ensure("may sleep again", P::may_sleep())?;
    ensure("a failed try leaves nothing off", {
        let held = irq_lock.lock();
        let refused = irq_lock.try_lock().is_none();
        drop(held);
        refused && P::irqs_enabled() && P::may_sleep()
    })
}

/// Readers of a sequence lock get the words of one write, of each write once it was made,
/// and never go back.
pub fn sequence_reads_are_whole<P: Platform>(size: Size) -> Outcome {
    struct Shared<P: Platform> {
        lock: SeqLock<[u64; 3], P, SeqTest, 3>,
        rounds: usize,
    }
    let shared = Shared::<P> {
        lock: SeqLock::new([0; 3]),
        rounds: size.rounds,
    };
    run::<P, _>(size, &shared, |shared, index| {
        let mut last = 0;
        for _ in 0..shared.rounds {
            if index == 0 {
                shared.lock.update(|words| words.map(|word| word + 1));
            }
            let [first, second, third] = shared.lock.read();
            equal("words of one write", second, first)?;
            equal("words of one write", third, first)?;
            ensure("never goes back", first >= last)?;
            last = first;
        }
        Ok(())
    })?;
    equal("writes", shared.lock.read()[0], size.rounds as u64)
}
