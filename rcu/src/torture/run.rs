//! From the start of a run to its verdict.

use alloc::{boxed::Box, sync::Arc};
use core::sync::atomic::{AtomicBool, Ordering};

use super::{
    Ground, Options, Torture,
    barrier::Crowd,
    element::{ELEMENTS, Elements},
    random::Shared,
    tally::{Row, Tally, Wrong},
    threads::{Role, Seat},
    update::Way,
};
use crate::Machine;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// How often the threads are looked at.
const LOOK_NS: u64 = 20 * MS;
/// Of this time all threads pause for a tenth, if the run is long enough; as Linux's
/// `stutter`.
const STUTTER_NS: u64 = 5 * SECOND;

/// Tortures the engine of `ground` as `options` say, prints what came of it, and says
/// whether all went well. Task context; may sleep.
pub fn run<M: Machine, G: Ground<M>>(ground: G, options: Options) -> bool {
    let roles = Role::all(&options);
    let (Some(elements), Some(crowd)) = (
        Elements::try_new(),
        Crowd::try_new(options.barriers, options.flood),
    ) else {
        ground.line(format_args!("rcu-torture: no memory"));
        return false;
    };
    let torture = Arc::new(Torture::<M, G> {
        ground,
        elements,
        crowd,
        seats: roles.into_iter().map(Seat::new).collect(),
        tally: Tally::new(),
        shared_random: Shared::new(options.seed),
        pausing: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
        given_up: AtomicBool::new(false),
        machine: core::marker::PhantomData,
        options,
    });
    let good = torture.run();
    if !good {
        // Callbacks may still be queued, threads may still wait.
        core::mem::forget(torture);
    }
    good
}

impl<M: Machine, G: Ground<M>> Torture<M, G> {
    fn run(self: &Arc<Self>) -> bool {
        let start = M::now_ns();
        let stalls = self.ground.rcu().stats().stalls;
        let flavour = if M::preemptible() {
            "preemptible"
        } else {
            "non-preemptible"
        };
        let cpus = M::online_cpus().count();
        self.say(format_args!(
            "Start of test: flavour={flavour} cpus={cpus} {}",
            self.options
        ));
        #[cfg(debug_assertions)]
        self.ground.rcu().set_faults(self.options.faults);
        self.torture(start, stalls);
        self.finish(stalls);
        self.summary();
        self.verdict(start)
    }

    /// Starts all, and looks on until the time is over or something was found.
    fn torture(self: &Arc<Self>, start: u64, stalls: u64) {
        let mut interrupts = None;
        if self.options.interrupts {
            let torture = Arc::clone(self);
            let read = Box::new(move || torture.read_in_interrupt());
            interrupts = Some(self.ground.interrupts(self.options.seed, read));
        }
        for seat in 0..self.seats.len() {
            if self.spawn(seat).is_err() {
                self.wrong(Wrong::Resources, seat as u64);
            }
        }
        let stutter = STUTTER_NS.min(self.options.duration_ns / 2).max(1);
        let mut watch = self.watch();
        let mut reported = start;
        loop {
            self.nap(LOOK_NS);
            let now = M::now_ns();
            let since = now.saturating_sub(start);
            self.check_progress(&mut watch);
            self.check_stalls(stalls);
            if since >= self.options.duration_ns || self.tally.has_failed() {
                break;
            }
            let pausing = since % stutter > stutter / 10 * 9;
            // Relaxed: noticed sooner or later.
            self.pausing.store(pausing, Ordering::Relaxed);
            if self.options.report_ns > 0 && now - reported >= self.options.report_ns {
                reported += self.options.report_ns;
                self.progress(since);
            }
        }
        self.stopping.store(true, Ordering::Relaxed);
        drop(interrupts);
    }

    fn check_stalls(&self, before: u64) {
        let stalls = self.ground.rcu().stats().stalls.wrapping_sub(before);
        if !self.options.overlong {
            for number in self.tally.count(Wrong::Stall)..stalls {
                self.wrong(Wrong::Stall, number);
            }
        }
    }

    /// Waits for the threads and the callbacks, as long as that may take.
    fn finish(self: &Arc<Self>, stalls: u64) {
        if !self.wait_for_threads() && !self.tally.has_failed() {
            self.wrong(Wrong::Stuck, 0);
        }
        self.check_stalls(stalls);
        // A fault that keeps grace periods from ending would keep this from ending, too.
        #[cfg(debug_assertions)]
        self.ground.rcu().set_faults(crate::Faults::NONE);
        self.withdraw();
        if !self.drain() {
            self.wrong(Wrong::Lost, self.missing());
        }
        self.given_up.store(true, Ordering::Relaxed);
        if !self.have_ended() && !self.wait_for_threads() {
            self.say_who_goes_on();
        }
        if !self.tally.has_failed() {
            // What has run has also returned.
            self.ground.rcu().barrier();
        }
    }

    /// Waits until every element is free and every callback has run, as long as some do.
    /// Whether it came to that.
    fn drain(&self) -> bool {
        let (mut run, mut since) = (0, M::now_ns());
        loop {
            // Elements queue themselves again and again, which a barrier does not wait for.
            if self.elements.free() == ELEMENTS && self.all_ran() {
                return true;
            }
            let (before, now) = (run, M::now_ns());
            run = self.tally.run.load(Ordering::Relaxed);
            if run != before {
                since = now;
            } else if now - since > self.options.stall_ns + SECOND {
                return false;
            }
            self.nap(MS);
        }
    }

    /// How many callbacks have not run.
    fn missing(&self) -> u64 {
        let run = self.tally.run.load(Ordering::Relaxed);
        self.tally.queued.load(Ordering::Relaxed).wrapping_sub(run)
    }

    /// Waits until all threads have ended, as long as that may take. Whether they have.
    fn wait_for_threads(&self) -> bool {
        // What is wrong is known, then: no need to be sure that nothing is.
        let patience = if self.tally.has_failed() {
            self.options.stall_ns / 2
        } else {
            self.options.patience_ns()
        };
        let patience = M::now_ns() + patience;
        while !self.have_ended() {
            if M::now_ns() > patience {
                return false;
            }
            self.nap(MS);
        }
        true
    }

    fn progress(&self, since: u64) {
        let rcu = self.ground.rcu().stats();
        self.say(format_args!(
            "after {} s: ver: {} gp: {} exp: {} Reader Pipe:{}",
            since / SECOND,
            self.elements.version.load(Ordering::Relaxed),
            rcu.grace_periods,
            rcu.expedited,
            Row(&self.tally.ages),
        ));
    }

    fn summary(&self) {
        let (elements, tally) = (&self.elements, &self.tally);
        let number = |word: &core::sync::atomic::AtomicU64| word.load(Ordering::Relaxed);
        self.say(format_args!(
            "ver: {} tfle: {} rta: {} rtaf: {} rtf: {} rtmbe: {} rtbe: {} nt: {}",
            number(&elements.version),
            u8::from(elements.free() == 0),
            number(&elements.taken),
            number(&elements.none_left),
            number(&elements.freed),
            tally.count(Wrong::Order),
            tally.count(Wrong::Barrier),
            number(&tally.interrupts),
        ));
        self.say(format_args!(
            "barriers: {} floods: {}/{} held: {} offline: {} online: {} refused: {}",
            number(&tally.barriers),
            number(&tally.floods),
            number(&tally.flooded),
            number(&tally.held),
            number(&tally.offline),
            number(&tally.online),
            number(&tally.refused),
        ));
        struct Waits<'a>(&'a Tally);
        impl core::fmt::Display for Waits<'_> {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                for (way, name) in Way::ALL {
                    let count = self.0.ways[way as usize].load(Ordering::Relaxed);
                    write!(f, " {name}: {count}")?;
                }
                Ok(())
            }
        }
        self.say(format_args!("Waits:{}", Waits(tally)));
        self.say(format_args!(
            "Callbacks: queued: {} run: {}",
            number(&tally.queued),
            number(&tally.run),
        ));
        self.say(format_args!("Reader Pipe:{}", Row(&tally.ages)));
        self.say(format_args!("Reader Batch:{}", Row(&tally.batches)));
        self.say(format_args!(
            "Free-Block Circulation:{}",
            Row(&elements.circulation)
        ));
    }

    fn verdict(&self, start: u64) -> bool {
        if let Some(first) = self.tally.first(start) {
            self.say(format_args!("{first}"));
            self.say(format_args!(
                "End of test: FAILURE: {}",
                self.tally.failures()
            ));
            return false;
        }
        self.say(format_args!("End of test: SUCCESS"));
        true
    }
}
