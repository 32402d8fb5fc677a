//! The engine's state as text, for people.

use core::{
    fmt::{self, Write},
    sync::atomic::Ordering,
};

use arrayvec::ArrayString;

use crate::{
    Machine, Rcu,
    seq::{Cookie, Seq},
    tree::{Kind, Tree},
};

/// A node, as it was a moment ago.
pub(crate) struct NodeLine {
    number: usize,
    level: usize,
    first: usize,
    last: usize,
    seq: Seq,
    needed: Cookie,
    mask: [u64; 2],
    /// Of a leaf.
    online: Option<u64>,
    blocked: usize,
    blocking: [usize; 2],
}

impl NodeLine {
    pub fn of<M: Machine>(tree: &Tree<M>, number: usize) -> Self {
        let node = &tree.nodes()[number];
        let state = node.lock();
        Self {
            number,
            level: node.place.level,
            first: node.place.first,
            last: node.place.first + node.place.cpus - 1,
            seq: state.seq,
            needed: state.needed,
            mask: state.mask,
            online: (number >= tree.geometry().first_leaf()).then_some(state.online),
            blocked: state.blocked.len(),
            blocking: [Kind::Normal, Kind::Expedited].map(|kind| state.blocked.blocking(kind)),
        }
    }

    /// Whether a grace period waits for something here.
    pub fn waits(&self, kind: Kind) -> bool {
        self.mask[kind as usize] != 0 || self.blocking[kind as usize] != 0
    }
}

impl fmt::Display for NodeLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:indent$}node {} cpus {}-{}: seq {} waits {:#x} expedited {:#x}",
            "",
            self.number,
            self.first,
            self.last,
            self.seq,
            self.mask[0],
            self.mask[1],
            indent = 2 * self.level,
        )?;
        if let Some(online) = self.online {
            write!(f, " online {online:#x}")?;
        }
        if !self.needed.is_done(self.seq) {
            write!(f, " needs {}", self.needed)?;
        }
        if self.blocked > 0 {
            let [normal, expedited] = self.blocking;
            write!(
                f,
                " switched-away readers {} (block {normal}, expedited {expedited})",
                self.blocked
            )?;
        }
        Ok(())
    }
}

/// The text; see [`Rcu::text`].
struct Text<'a, M: Machine>(&'a Rcu<M>);

impl<M: Machine> Rcu<M> {
    /// The engine's state as text of several lines: numbers, the tree, the callbacks of each
    /// CPU, how long grace periods took. Takes locks one after the other, so it is not of
    /// one moment. Any context but NMI, no lock of level 80 or more held.
    pub fn text(&self) -> impl fmt::Display + '_ {
        Text(self)
    }
}

impl<M: Machine> Text<'_, M> {
    fn numbers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rcu = self.0;
        let stats = rcu.stats();
        let flavour = if M::preemptible() {
            "preemptible"
        } else {
            "non-preemptible"
        };
        writeln!(f, "{flavour} sections, {}", rcu.tree.geometry())?;
        let seq = rcu.tree.seq();
        let state = if seq.is_running() { "running" } else { "idle" };
        writeln!(
            f,
            "normal: seq {seq} {state}, {} ended, {} looks at CPUs, {} CPUs interrupted, {} stalls",
            stats.grace_periods, stats.scans, stats.urged, stats.stalls
        )?;
        let average = |sum: u64, count: u64| sum.checked_div(count).unwrap_or(0);
        writeln!(
            f,
            "  took {} ns on average, {} ns at most",
            average(stats.latency_sum_ns, stats.grace_periods),
            stats.latency_longest_ns
        )?;
        writeln!(
            f,
            "expedited: seq {}, {} ended, took {} ns on average",
            rcu.expedited.seq(),
            stats.expedited,
            average(stats.expedited_sum_ns, stats.expedited)
        )?;
        writeln!(
            f,
            "callbacks: {} queued, {} run (with {} of {} barriers), {} pending",
            stats.queued, stats.invoked, stats.barrier_callbacks, stats.barriers, stats.pending
        )
    }

    fn cpus(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, cpu) in self.0.cpus.iter() {
            let (queued, invoked) = (
                cpu.queued.load(Ordering::Relaxed),
                cpu.invoked.load(Ordering::Relaxed),
            );
            let idle = M::idle(number).snapshot().in_eqs();
            let (running, wanted) = (
                cpu.callbacks.lock().running,
                cpu.wanted.load(Ordering::Relaxed),
            );
            // Its text is made without the lock: printing takes other locks.
            let segments = Segments::of(&cpu.callbacks.lock().list);
            writeln!(
                f,
                "  cpu{number}: {segments}, running {running}, queued {queued}, run {invoked}{}{}{}",
                if cpu.arrivals.any() {
                    ", some arrived"
                } else {
                    ""
                },
                if idle { ", idle" } else { "" },
                if wanted != 0 { ", asked to report" } else { "" },
            )?;
        }
        Ok(())
    }

    fn histogram(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.0.stats();
        let most = stats.latency.iter().copied().max().unwrap_or(0).max(1);
        let filled = || (0..stats.latency.len()).filter(|bucket| stats.latency[*bucket] != 0);
        let (Some(first), Some(last)) = (filled().next(), filled().next_back()) else {
            return writeln!(f, "latency: no grace period yet");
        };
        writeln!(f, "latency of normal grace periods:")?;
        for bucket in first..=last {
            let count = stats.latency[bucket];
            let bar = (count * BAR).div_ceil(most);
            write!(f, "  {:>9} ", Ns(1 << bucket))?;
            write!(f, "{count:>9} ")?;
            (0..bar).try_for_each(|_| f.write_str("#"))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

/// The longest bar.
const BAR: u64 = 40;

impl<M: Machine> fmt::Display for Text<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.numbers(f)?;
        for number in 0..self.0.tree.nodes().len() {
            writeln!(f, "  {}", NodeLine::of(&self.0.tree, number))?;
        }
        self.cpus(f)?;
        self.histogram(f)
    }
}

/// Lengths of segments and what they wait for.
struct Segments([(usize, Option<Cookie>); crate::callbacks::SEGMENTS]);

impl Segments {
    fn of(list: &crate::callbacks::List) -> Self {
        Self(
            crate::callbacks::Segment::ALL.map(|segment| (list.len_of(segment), list.due(segment))),
        )
    }
}

impl fmt::Display for Segments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = crate::callbacks::Segment::ALL.map(crate::callbacks::Segment::name);
        for (index, (name, (len, due))) in names.iter().zip(&self.0).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{name} {len}")?;
            if let Some(due) = due {
                write!(f, " (at {due})")?;
            }
        }
        Ok(())
    }
}

/// A duration to one digit of its unit.
struct Ns(u64);

impl fmt::Display for Ns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = match self.0 {
            ns if ns < 10_000 => (ns, "ns"),
            ns if ns < 10_000_000 => (ns / 1000, "us"),
            ns => (ns / 1_000_000, "ms"),
        };
        let mut text = ArrayString::<32>::new();
        // It fits: 20 digits at most.
        let _ = write!(text, "{value} {unit}");
        f.pad(&text)
    }
}
