//! Readers.
//!
//! A reader finds the current element, and looks at it again at the end of its section. In
//! between it waits: mostly not at all, sometimes so long that several grace periods could
//! end. What makes the section changes meanwhile (a section within a section, preemption or
//! interrupts off), always so that it goes on without a gap.

use core::sync::atomic::Ordering;

use platform::{Context, IrqsOff, Platform, Preempt};

use super::{
    Ground, Torture,
    element::{Look, PIPE},
    random::Random,
    tally::Wrong,
    threads::Seat,
};
use crate::{Cookie, ExpCookie, FullCookie, Guard, Machine};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

/// What makes a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// A guard.
    Guard,
    /// A guard within a guard.
    Nested,
    /// Preemption off.
    Preempt,
    /// Interrupts off.
    Irqs,
}

impl By {
    fn draw(random: &mut Random) -> Self {
        match random.below(16) {
            0..8 => Self::Guard,
            8..11 => Self::Nested,
            11..14 => Self::Preempt,
            _ => Self::Irqs,
        }
    }

    fn begin<M: Machine>(self) -> Held<M> {
        match self {
            Self::Guard => Held::Guard(Guard::new()),
            Self::Nested => Held::Nested(Guard::new(), Guard::new()),
            Self::Preempt => Held::Preempt(Preempt::disable()),
            Self::Irqs => Held::Irqs(IrqsOff::disable()),
        }
    }
}

/// A section, or a part of one, until it is dropped.
#[allow(dead_code, reason = "they are kept to be dropped")]
enum Held<M: Machine> {
    Guard(Guard<M>),
    Nested(Guard<M>, Guard<M>),
    Preempt(Preempt<M>),
    Irqs(IrqsOff<M>),
}

/// What was taken when a section began, and may not be ripe before it ends.
struct Cookies {
    normal: Cookie,
    expedited: ExpCookie,
    full: FullCookie,
}

impl<M: Machine, G: Ground<M>> Torture<M, G> {
    /// A thread that reads. `nap`: it sleeps between any two sections, so that its CPU goes
    /// in and out of idle; else only now and then.
    pub(super) fn reader(&self, seat: &Seat, random: &mut Random, nap: bool) {
        while self.goes_on(seat) {
            if nap {
                self.pause(random.between(20 * US, 3 * MS));
                self.read_in_thread(random);
                continue;
            }
            for _ in 0..random.between(1, 200) {
                self.read_in_thread(random);
            }
            self.pause(random.between(100 * US, 4 * MS));
        }
    }

    fn read_in_thread(&self, random: &mut Random) {
        let by = By::draw(random);
        let total = delay(random);
        self.read(by, random, |random, section: &mut Held<M>| {
            let parts = if total == 0 { 0 } else { random.between(1, 4) };
            for _ in 0..parts {
                let longest = match section {
                    Held::Irqs(_) => 100 * US,
                    _ => u64::MAX,
                };
                self.linger(random, (total / parts).min(longest), section);
                if random.one_in(3) {
                    // The next part begins before this one ends. What turns interrupts off
                    // can only be undone in the opposite order.
                    let next = match (&section, By::draw(random)) {
                        (Held::Irqs(_), By::Irqs) => By::Preempt,
                        (_, next) => next,
                    };
                    *section = next.begin();
                }
            }
        });
    }

    /// A section in whatever context this is.
    pub(super) fn read_in_interrupt(&self) {
        if self.is_stopping() {
            return;
        }
        let mut random = self.shared_random.split();
        self.tally.interrupts.fetch_add(1, Ordering::Relaxed);
        self.read(By::Guard, &mut random, |random, _| {
            if random.one_in(4) {
                wait::<M>(random.below(20 * US));
            }
        });
    }

    fn read(&self, by: By, random: &mut Random, within: impl FnOnce(&mut Random, &mut Held<M>)) {
        let rcu = self.ground.rcu();
        let mut section = by.begin::<M>();
        let Some(index) = self.elements.current() else {
            return;
        };
        let cookies = (M::context() != Context::Nmi).then(|| Cookies {
            normal: rcu.snap(),
            expedited: rcu.snap_expedited(),
            full: rcu.snap_full(),
        });
        let element = self.elements.get(index);
        let before = element.look();
        match before {
            Look::Good(_) => {}
            Look::Damaged => self.wrong(Wrong::Freed, index as u64),
            Look::Unordered => self.wrong(Wrong::Order, index as u64),
        }

        within(random, &mut section);

        let age = element.age();
        if age > 1 {
            self.wrong(Wrong::Age, age as u64);
        }
        if element.look() != before {
            self.wrong(Wrong::Freed, index as u64);
        }
        self.tally.ages[age.min(PIPE)].fetch_add(1, Ordering::Relaxed);
        if let Some(cookies) = cookies {
            self.check_unripe(&cookies);
        }
        drop(section);
    }

    /// In the section in which the cookies were taken.
    fn check_unripe(&self, cookies: &Cookies) {
        let rcu = self.ground.rcu();
        // A cookie names the grace period after the next start, so its number grows when one
        // starts.
        let count = |cookie: Cookie| cookie.to_bits() >> 2;
        let begun = count(rcu.snap()).wrapping_sub(count(cookies.normal)) & (u64::MAX >> 2);
        if begun > 1 {
            self.wrong(Wrong::Batch, begun);
        }
        self.tally.batches[(begun as usize).min(PIPE)].fetch_add(1, Ordering::Relaxed);
        if rcu.poll(cookies.normal) {
            self.wrong(Wrong::Early, 1);
        }
        if rcu.poll_expedited(cookies.expedited) {
            self.wrong(Wrong::Early, 2);
        }
        if rcu.poll_full(cookies.full) {
            self.wrong(Wrong::Early, 3);
        }
    }

    /// Spends `ns` in a section; may be preempted where that is allowed.
    fn linger(&self, random: &mut Random, ns: u64, section: &Held<M>) {
        let preemptible = M::preemptible() && matches!(section, Held::Guard(_) | Held::Nested(..));
        if preemptible && random.one_in(4) {
            if random.one_in(2) {
                self.ground.preempt();
            } else {
                let irqs_off = IrqsOff::<M>::disable();
                M::resched_here();
                drop(irqs_off);
            }
        }
        wait::<M>(ns);
    }

    /// A thread that interrupts CPUs, and reads there.
    pub(super) fn interrupter(&self, seat: &Seat, random: &mut Random) {
        while self.goes_on(seat) {
            self.pause(random.between(100 * US, 3 * MS));
            let online = M::online_cpus();
            let chosen = random.below(online.count() as u64) as usize;
            let Some(cpu) = online.iter().nth(chosen) else {
                continue;
            };
            M::call(platform::CpuMask::only(cpu), &|| self.read_in_interrupt());
        }
    }

    /// A thread that holds a section for long, though not for too long: for up to an eighth
    /// of the time that makes a stall.
    pub(super) fn holder(&self, seat: &Seat, random: &mut Random) {
        let longest = self.options.stall_ns / 8;
        while self.goes_on(seat) {
            self.pause(random.between(longest, 4 * longest));
            let ns = random.below(longest);
            self.read(By::Guard, random, |_, _| {
                // Not beyond the end of the run.
                let end = M::now_ns() + ns;
                while M::now_ns() < end && !self.is_stopping() {
                    wait::<M>(MS);
                }
            });
            self.tally.held.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Holds a section for longer than the stall time, which is to be reported.
    pub(super) fn overlong(&self) {
        let reports = self.ground.rcu().stats().stalls;
        let guard = Guard::<M>::new();
        wait::<M>(self.options.stall_ns + self.options.stall_ns / 2);
        drop(guard);
        if self.ground.rcu().stats().stalls == reports {
            self.wrong(Wrong::NoStall, 0);
        }
    }
}

/// How long a section shall take: mostly next to nothing.
fn delay(random: &mut Random) -> u64 {
    match random.below(2_000) {
        0 => random.below(40 * MS),
        1..40 => random.below(5 * MS),
        40..200 => random.below(500 * US),
        200..1_000 => random.below(20 * US),
        _ => 0,
    }
}

/// Spends `ns`, without leaving the CPU of its own accord.
pub(super) fn wait<P: Platform>(ns: u64) {
    if ns == 0 {
        return;
    }
    let end = P::now_ns() + ns;
    while P::now_ns() < end {
        P::relax();
    }
}
