//! What is said when there is no memory: the state of every zone, as Linux's report has it.

use core::fmt;

use arrayvec::ArrayVec;
use platform::sync::{AtomicU64, Ordering};

use crate::{
    alloc::Request,
    frame::{PAGE_SIZE, Use, ZoneIndex},
    gfp::Gfp,
    machine::Machine,
    mm::{Counts, Mm, ZONES},
    report::Kind,
    zone::Watermarks,
};

/// This many reports are made in [`PERIOD_NS`]; the others are counted (Linux: 10 in 10 s).
const BURST: u64 = 10;
const PERIOD_NS: u64 = 10_000_000_000;

/// Keeps a flood of failures from being a flood of reports.
#[derive(Debug)]
pub(crate) struct RateLimit {
    /// When the period began.
    began: AtomicU64,
    /// Reports in it, made or not.
    count: AtomicU64,
    /// Failures since boot.
    all: AtomicU64,
}

impl RateLimit {
    pub(crate) fn new() -> Self {
        Self {
            began: AtomicU64::new(0),
            count: AtomicU64::new(0),
            all: AtomicU64::new(0),
        }
    }

    /// Whether to report now; how many were not reported in the period that has ended.
    fn pass(&self, now_ns: u64) -> Option<u64> {
        // Relaxed, and no more than about right: two who find the period over both begin one.
        self.all.fetch_add(1, Ordering::Relaxed);
        let mut missed = 0;
        if now_ns.saturating_sub(self.began.load(Ordering::Relaxed)) >= PERIOD_NS {
            self.began.store(now_ns, Ordering::Relaxed);
            missed = self.count.swap(0, Ordering::Relaxed).saturating_sub(BURST);
        }
        (self.count.fetch_add(1, Ordering::Relaxed) < BURST).then_some(missed)
    }
}

/// The state of all zones at some time: taken before it is shown, since whoever shows it may
/// hold locks that come after the zones'.
#[derive(Debug)]
pub struct State {
    zones: ArrayVec<ZoneState, ZONES>,
    all: Counts,
    rounds: u64,
    freed: u64,
}

#[derive(Debug)]
struct ZoneState {
    index: ZoneIndex,
    marks: Watermarks,
    protection: u64,
    counts: Counts,
}

impl State {
    /// The state now. Takes the zones' locks one after the other.
    pub fn of<M: Machine>(mm: &Mm<M>) -> Self {
        let mut all = Counts::default();
        let zones = mm
            .zones()
            .map(|zone| {
                let counts = mm.zone_counts(zone);
                all.add(&counts);
                ZoneState {
                    index: zone.index(),
                    marks: zone.watermarks(),
                    protection: zone.protection(),
                    counts,
                }
            })
            .collect();
        let (rounds, freed) = mm.reclaimed();
        Self {
            zones,
            all,
            rounds,
            freed,
        }
    }
}

fn kib(frames: u64) -> u64 {
    frames * (PAGE_SIZE as u64 / 1024)
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = &self.all;
        writeln!(f, "Mem-Info:")?;
        write!(f, " free:{} free_pcp:{}", all.free, all.listed)?;
        for usage in Use::ALL {
            let name = Underscored(usage.name());
            write!(f, " {name}:{}", all.used[usage as usize])?;
        }
        writeln!(f, " bad:{}", all.bad)?;
        for zone in &self.zones {
            let (node, kind) = (zone.index.node(), zone.index.kind());
            let (counts, marks) = (&zone.counts, &zone.marks);
            writeln!(
                f,
                "Node {node} {kind} free:{}kB boost:0kB min:{}kB low:{}kB high:{}kB \
                 protection:{}kB present:{}kB managed:{}kB free_pcp:{}kB",
                kib(counts.free),
                kib(marks.min),
                kib(marks.low),
                kib(marks.high),
                kib(zone.protection),
                kib(counts.present),
                kib(counts.managed),
                kib(counts.listed),
            )?;
            write!(f, "Node {node} {kind}:")?;
            for (order, blocks) in counts.blocks.iter().enumerate() {
                write!(f, " {blocks}*{}kB", kib(1 << order))?;
            }
            writeln!(f, " = {}kB", kib(counts.free))?;
        }
        write!(
            f,
            "{} pages RAM, {} managed; {} rounds of reclaim freed {} pages",
            all.present, all.managed, self.rounds, self.freed
        )
    }
}

/// A name whose blanks would not suit a list of `name:value`.
struct Underscored(&'static str);

impl fmt::Display for Underscored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.split(' ').enumerate() {
            if index > 0 {
                f.write_str("_")?;
            }
            f.write_str(word)?;
        }
        Ok(())
    }
}

impl<M: Machine> Mm<M> {
    /// Allocations that found no memory since boot.
    pub fn failures(&self) -> u64 {
        // Relaxed: a statistic.
        self.failures.all.load(Ordering::Relaxed)
    }

    /// Reports that an allocation failed, unless it does not want that or there were many.
    #[cold]
    pub(crate) fn report_failure(&self, request: &Request, why: &str) {
        if request.gfp.intersects(Gfp::NOWARN.union(Gfp::NOLOCK)) {
            return;
        }
        let Some(missed) = self.failures.pass(M::now_ns()) else {
            return;
        };
        let Request {
            gfp, order, usage, ..
        } = request;
        self.report(
            Kind::OutOfMemory,
            None,
            format_args!(
                "{why}: order:{order}, mode:{:#x}({gfp}), use:{}, node:{}{}\n{}",
                gfp.bits(),
                usage.name(),
                Near(request.node),
                Missed(missed),
                State::of(self),
            ),
            request.caller,
        );
    }
}

struct Near(Option<platform::NodeId>);

impl fmt::Display for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(node) => node.fmt(f),
            None => f.write_str("near"),
        }
    }
}

struct Missed(u64);

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " ({count} failures before it were not reported)"),
        }
    }
}
