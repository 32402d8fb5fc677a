//! Counters of the arrows in the state tables of `docs/rcu.md`: a table entry that no test
//! ever takes is a claim that nothing has checked.

use core::sync::atomic::{AtomicU64, Ordering};

macro_rules! arrows {
    ($($(#[doc = $doc:literal])+ $arrow:ident = $name:literal,)*) => {
        /// An arrow of a state table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Arrow {
            $($(#[doc = $doc])+ $arrow,)*
        }

        impl Arrow {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$arrow,)*];

            /// The name in `docs/rcu.md` and in listings.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$arrow => $name,)*
                }
            }
        }
    };
}

arrows! {
    /// Only callbacks want a grace period, and the last one began too short a time ago.
    GpDelay = "gp.delay",
    /// idle -> running, by the engine's thread.
    GpStart = "gp.start",
    /// idle -> running, by a caller that would otherwise wait for the thread.
    GpStartHelped = "gp.start_helped",
    /// running: the first look at all CPUs.
    GpFirstScan = "gp.first_scan",
    /// running: a later look.
    GpScan = "gp.scan",
    /// running: holdouts are interrupted.
    GpUrge = "gp.urge",
    /// running: longer than the stall time.
    GpStall = "gp.stall",
    /// A tick finds that the engine's thread does not come to run.
    GpThreadLate = "gp.thread_late",
    /// running -> idle.
    GpEnd = "gp.end",
    /// running -> idle, and the next one is wanted already.
    GpEndMore = "gp.end_more",

    /// A request marks its way up to an idle root.
    RequestRoot = "request.root",
    /// A request meets one for as much.
    RequestKnown = "request.known",
    /// A request meets a running grace period, whose end will find the mark.
    RequestRunning = "request.running",
    /// A request meets the start of what it asks for.
    RequestStarted = "request.started",

    /// A CPU was idle when looked at.
    CpuIdle = "cpu.idle",
    /// A CPU has been idle since the last look.
    CpuPassed = "cpu.passed",
    /// The CPU that makes the grace period is in no section.
    CpuOwn = "cpu.own",
    /// A busy CPU is asked to report.
    CpuAsk = "cpu.ask",
    /// It reports as it changes threads.
    CpuSwitch = "cpu.switch",
    /// It reports in a tick that came upon no section.
    CpuTick = "cpu.tick",
    /// The tick came upon a section: asked to report at its end.
    CpuTickInSection = "cpu.tick_in_section",
    /// It reports in an interrupt sent for that.
    CpuInterrupt = "cpu.interrupt",
    /// That interrupt came upon a section.
    CpuInterruptInSection = "cpu.interrupt_in_section",
    /// It reports at the end of a (preemptible) section.
    CpuSectionEnd = "cpu.section_end",
    /// A (preemptible) section ended where preemption is off: at the next chance.
    CpuSectionEndLater = "cpu.section_end_later",
    /// A CPU comes.
    CpuComes = "cpu.comes",
    /// A CPU goes that had reported, or was not waited for.
    CpuGoes = "cpu.goes",
    /// A CPU goes that had not reported: it does with that.
    CpuGoesOwing = "cpu.goes_owing",

    /// The last bit of a node: its parent's is cleared.
    NodeUp = "node.up",
    /// The last bit of a node, but threads on its list block the grace period.
    NodeBlocked = "node.blocked",
    /// The last bit of the root: all have reported.
    RootDone = "node.root_done",

    /// off -> on: a thread is switched away in a section that the grace period waits for.
    ReaderBlocks = "reader.blocks",
    /// off -> on: a thread is switched away in a section that began after its CPU reported.
    ReaderQueued = "reader.queued",
    /// on -> on: the section ends where preemption is off, and goes on as one of that kind.
    ReaderOverstays = "reader.overstays",
    /// on -> off: the section ends; others block the leaf, or nobody waits.
    ReaderLeaves = "reader.leaves",
    /// on -> off: it was the last that the leaf waited for.
    ReaderLast = "reader.last",

    /// A callback was pushed where nobody would come for it; counted when it is taken over.
    CbFirst = "cb.first",
    /// Callbacks were pushed where somebody was about to come; counted as above, once for all
    /// that are taken over at a time.
    CbLater = "cb.later",
    /// Who pushed comes all the same, since it was one of many.
    CbMany = "cb.many",
    /// arrived -> next: by who has the lock of the list. Counts callbacks.
    CbTakeOver = "cb.take_over",
    /// Nothing on the list waits: who pushes next comes.
    CbRest = "cb.rest",
    /// next -> wait or next ready: callbacks get a name for what they wait for.
    CbName = "cb.name",
    /// next stays: both named segments are taken by earlier grace periods.
    CbNoPlace = "cb.no_place",
    /// wait -> done.
    CbRipe = "cb.ripe",
    /// A name that is over already when it is asked for.
    CbRipeAtOnce = "cb.ripe_at_once",
    /// done -> run.
    CbRun = "cb.run",
    /// Callbacks of a CPU that went: to next of another.
    CbAdopt = "cb.adopt",
    /// A head was queued twice.
    CbTwice = "cb.twice",

    /// Somebody's expedited grace period was enough.
    ExpShared = "exp.shared",
    /// Somebody on the way up has asked for as much: wait for that.
    ExpWaits = "exp.waits",
    /// idle -> running.
    ExpStart = "exp.start",
    /// A CPU is idle: not interrupted.
    ExpIdle = "exp.idle",
    /// CPUs are interrupted.
    ExpInterrupt = "exp.interrupt",
    /// The interrupt came upon no section.
    ExpReported = "exp.reported",
    /// The interrupt came upon a section: it reports at its end.
    ExpInSection = "exp.in_section",
    /// running: longer than the stall time.
    ExpStall = "exp.stall",
    /// running -> idle.
    ExpEnd = "exp.end",

    /// Another barrier began and ended meanwhile.
    BarrierShared = "barrier.shared",
    /// A CPU has no callbacks.
    BarrierNone = "barrier.none",
    /// A callback of the barrier's is queued behind the others.
    BarrierQueued = "barrier.queued",
    /// All callbacks are being run: the barrier's goes behind them.
    BarrierBehindRunning = "barrier.behind_running",
    /// The last of the barrier's callbacks has run.
    BarrierLast = "barrier.last",
    /// There were none to wait for.
    BarrierEmpty = "barrier.empty",
}

/// A counter for each arrow.
#[derive(Debug)]
pub(crate) struct Arrows([AtomicU64; Arrow::ALL.len()]);

impl Arrows {
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Arrow::ALL.len()])
    }

    /// It is taken.
    #[inline]
    pub fn take(&self, arrow: Arrow) {
        self.add(arrow, 1);
    }

    /// It is taken `count` times.
    #[inline]
    pub fn add(&self, arrow: Arrow, count: u64) {
        // Relaxed: a statistic.
        self.0[arrow as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// How often it was taken.
    pub fn count(&self, arrow: Arrow) -> u64 {
        self.0[arrow as usize].load(Ordering::Relaxed)
    }
}
