//! What is counted, and what went wrong.

use core::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use super::element::PIPE;
use super::update::Way;

/// What can go wrong. Any of them is a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Wrong {
    /// A reader saw an age of more than 1.
    Age,
    /// A second grace period began within a section.
    Batch,
    /// A reader saw an element that is free, or freed and used again.
    Freed,
    /// A reader did not see what was written before it was published.
    Order,
    /// A cookie was ripe within a section that began before it was taken.
    Early,
    /// A cookie was not ripe although somebody had waited for it.
    Late,
    /// A cookie did not become ripe in any time.
    Never,
    /// A barrier returned before callbacks from before it had run.
    Barrier,
    /// Callbacks of a flood, or of a barrier, did not run in any time.
    NotRun,
    /// Not as many callbacks ran as were queued, at the end.
    Lost,
    /// A grace period was reported as stalled.
    Stall,
    /// One that was held up on purpose was not.
    NoStall,
    /// A thread made no progress.
    Stuck,
    /// A CPU did not come back.
    Hotplug,
    /// There was no memory, or no thread.
    Resources,
}

impl Wrong {
    const COUNT: usize = 15;
    const ALL: [(Self, &'static str); Self::COUNT] = [
        (Self::Age, "readers saw a freed object (age above 1)"),
        (Self::Batch, "sections saw two grace periods begin"),
        (Self::Freed, "readers saw a poisoned or reused object"),
        (Self::Order, "readers saw an object before its contents"),
        (Self::Early, "cookies were ripe too early"),
        (Self::Late, "cookies were not ripe after a wait"),
        (Self::Never, "cookies never became ripe"),
        (Self::Barrier, "barriers returned too early"),
        (Self::NotRun, "waits for callbacks had no end"),
        (Self::Lost, "times callbacks queued and run differ"),
        (Self::Stall, "grace periods stalled"),
        (Self::NoStall, "stalls were not reported"),
        (Self::Stuck, "threads made no progress"),
        (Self::Hotplug, "CPUs did not come back"),
        (Self::Resources, "times there was no memory or thread"),
    ];
}

/// The counts of a run. All Relaxed where nothing else is said: they are statistics.
#[derive(Debug)]
pub struct Tally {
    /// Sections, by the age of what they saw when they ended.
    pub ages: [AtomicU64; PIPE + 1],
    /// Sections, by the grace periods that began in them.
    pub batches: [AtomicU64; PIPE + 1],
    /// Sections in interrupts, soft interrupts and NMIs.
    pub interrupts: AtomicU64,
    /// Waits, by their way.
    pub ways: [AtomicU64; Way::COUNT],
    /// Callbacks queued and run.
    pub queued: AtomicU64,
    pub run: AtomicU64,
    /// Barriers that returned.
    pub barriers: AtomicU64,
    /// Callbacks of floods, and floods.
    pub flooded: AtomicU64,
    pub floods: AtomicU64,
    /// Sections held long on purpose.
    pub held: AtomicU64,
    /// CPUs taken off, and brought back.
    pub offline: AtomicU64,
    pub online: AtomicU64,
    /// CPUs that could not be taken off.
    pub refused: AtomicU64,
    wrong: [AtomicU64; Wrong::COUNT],
    /// The first thing that went wrong: when (never 0), and what with which number.
    first_at: AtomicU64,
    first: AtomicU64,
}

impl Tally {
    pub const fn new() -> Self {
        const fn zero() -> AtomicU64 {
            AtomicU64::new(0)
        }
        Self {
            ages: [const { zero() }; PIPE + 1],
            batches: [const { zero() }; PIPE + 1],
            interrupts: zero(),
            ways: [const { zero() }; Way::COUNT],
            queued: zero(),
            run: zero(),
            barriers: zero(),
            flooded: zero(),
            floods: zero(),
            held: zero(),
            offline: zero(),
            online: zero(),
            refused: zero(),
            wrong: [const { zero() }; Wrong::COUNT],
            first_at: zero(),
            first: zero(),
        }
    }

    /// Something went wrong, at `now_ns`; `number` says more of it. Any context.
    pub fn wrong(&self, wrong: Wrong, number: u64, now_ns: u64) {
        self.wrong[wrong as usize].fetch_add(1, Ordering::Relaxed);
        let at = now_ns.max(1);
        if self
            .first_at
            .compare_exchange(0, at, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
        {
            let packed = (number << 8) | wrong as u64;
            self.first.store(packed, Ordering::Relaxed);
        }
    }

    /// How often that went wrong.
    pub fn count(&self, wrong: Wrong) -> u64 {
        self.wrong[wrong as usize].load(Ordering::Relaxed)
    }

    /// Whether something went wrong.
    pub fn has_failed(&self) -> bool {
        self.first_at.load(Ordering::Relaxed) != 0
    }

    /// What went wrong first, and when after `start_ns`.
    pub fn first(&self, start_ns: u64) -> Option<impl fmt::Display> {
        struct First(u64, &'static str, u64);
        impl fmt::Display for First {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self(at, what, number) = self;
                write!(f, "first after {at} us: {what} ({number})")
            }
        }
        let at = self.first_at.load(Ordering::Relaxed);
        let packed = self.first.load(Ordering::Relaxed);
        let (_, what) = Wrong::ALL[(packed & 0xff) as usize];
        (at != 0).then(|| First(at.saturating_sub(start_ns) / 1_000, what, packed >> 8))
    }

    /// All that went wrong, as `3 cookies were ripe too early; ...`.
    pub fn failures(&self) -> impl fmt::Display + '_ {
        struct Failures<'a>(&'a Tally);
        impl fmt::Display for Failures<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut separator = "";
                for (wrong, text) in Wrong::ALL {
                    let count = self.0.count(wrong);
                    if count > 0 {
                        write!(f, "{separator}{count} {text}")?;
                        separator = "; ";
                    }
                }
                Ok(())
            }
        }
        Failures(self)
    }
}

/// Numbers in a row, as histograms are printed.
pub struct Row<'a>(pub &'a [AtomicU64]);

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for number in self.0 {
            write!(f, " {}", number.load(Ordering::Relaxed))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_own_text() {
        for (index, (wrong, text)) in Wrong::ALL.into_iter().enumerate() {
            assert_eq!(wrong as usize, index);
            let tally = Tally::new();
            assert!(!tally.has_failed());
            tally.wrong(wrong, 7, 5_000);
            tally.wrong(Wrong::Age, 8, 6_000);
            assert!(tally.has_failed());
            let first = tally.first(1_000).map(|first| std::format!("{first}"));
            assert_eq!(first, Some(std::format!("first after 4 us: {text} (7)")));
            assert!(std::format!("{}", tally.failures()).contains(text));
        }
    }
}
