//! The checker's calls.

use core::{
    panic::Location,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use super::{
    Finding, Graph, Held, HeldLock, Now, Report,
    classes::{self, ClassId},
    once::Once,
    sites::Sites,
    usage::{Usage, uses_of_holding, uses_of_taking},
};
use crate::{Acquisition, Context, LockKind, MAX_CPUS, lock::LockClass, sync::const_unless_model};

/// What a machine's locks have shown. See [`lockdep`](crate::lockdep).
///
/// Every call takes a function that is handed what is found, in the context of the call and
/// with the lock not taken yet (or still held).
#[derive(Debug)]
pub struct Checker {
    pub(super) graph: Graph,
    pub(super) usage: Usage,
    pub(super) sites: Sites,
    pub(super) once: Once,
    /// By CPU, so that CPUs do not share the word they all write.
    pub(super) acquisitions: [Counter; MAX_CPUS],
    pub(super) deepest: AtomicU32,
    /// Turned off by [`stop`](Self::stop).
    stopped: AtomicBool,
}

/// A counter on a line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Counter(pub(super) AtomicU64);

/// What the checker has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// Classes with a number (in the whole program).
    pub classes: usize,
    /// Edges in the order.
    pub edges: usize,
    /// Acquisitions, tries included.
    pub acquisitions: u64,
    /// The most locks held at a time, with those of interrupts on top.
    pub deepest: u32,
    /// Findings reported.
    pub reported: u64,
    /// Findings not reported, because they had been.
    pub suppressed: u64,
}

impl Checker {
    const_unless_model! {
        /// One that has seen nothing.
        pub fn new() -> Self {
            Self {
                graph: Graph::new(),
                usage: Usage::new(),
                sites: Sites::new(),
                once: Once::new(),
                acquisitions: [const { Counter(AtomicU64::new(0)) }; MAX_CPUS],
                deepest: AtomicU32::new(0),
                stopped: AtomicBool::new(false),
            }
        }
    }

    /// A lock is about to be taken (or a try has taken it). `held` is the running thread's.
    #[inline]
    pub fn acquire(
        &self,
        held: &Held,
        acquisition: &Acquisition,
        now: &Now,
        sink: &mut dyn FnMut(&Report<'_>),
    ) {
        if self.is_stopped() {
            return;
        }
        // Relaxed: a statistic.
        self.acquisitions[now.cpu.index()]
            .0
            .fetch_add(1, Ordering::Relaxed);
        let id = classes::number(acquisition.class);
        let wanted = HeldLock::new(acquisition, id, now);
        let waits = !wanted.is_try;
        if id.is_none()
            || waits && (now.context == Context::Nmi || wanted.sleeps() && !may_wait(held, now))
        {
            self.acquire_unordered(held, &wanted, now, sink);
        } else if let Some(id) = id {
            if waits {
                self.check_held(held, &wanted, id, now, sink);
            }
            let uses = self.usage.unknown(id, uses_of_taking(now, waits));
            if uses != 0 {
                self.new_uses(id, uses, wanted.at, &mut |finding| {
                    self.emit(finding, Some(&wanted), held, now, sink);
                });
            }
        }
        match held.push(&wanted) {
            // Relaxed: a statistic.
            Some(depth) if depth > self.deepest.load(Ordering::Relaxed) => {
                self.deepest.fetch_max(depth, Ordering::Relaxed);
            }
            Some(_) => {}
            None => self.emit(Finding::TooManyHeld, Some(&wanted), held, now, sink),
        }
    }

    /// Compares a lock that is waited for with those held.
    #[inline]
    fn check_held(
        &self,
        held: &Held,
        wanted: &HeldLock,
        id: ClassId,
        now: &Now,
        sink: &mut dyn FnMut(&Report<'_>),
    ) {
        for slot in held.slots() {
            let fields = slot.fields();
            let same_lock = slot.lock() == wanted.lock;
            if !same_lock && fields.context() != now.context {
                continue;
            }
            // A number of 0: the class has none, and no order.
            let Some(other) = fields.id() else { continue };
            let order_known = other != id && self.graph.is_known(other, id);
            let irqs_known = !now.irqs_on || fields.irqs_on();
            if order_known && irqs_known && !same_lock {
                continue;
            }
            if let Some(entry) = slot.get() {
                self.check_pair(held, &entry, wanted, now, sink);
            }
        }
    }

    /// Compares a lock that is waited for with one that is held, where that is not clear at
    /// a glance.
    #[cold]
    #[inline(never)]
    fn check_pair(
        &self,
        held: &Held,
        entry: &HeldLock,
        wanted: &HeldLock,
        now: &Now,
        sink: &mut dyn FnMut(&Report<'_>),
    ) {
        let (Some(from), Some(to)) = (entry.id, wanted.id) else {
            return;
        };
        if entry.context == now.context {
            self.check_irqs_of(held, entry, now, sink);
        }
        let finding = if entry.lock == wanted.lock && from == to {
            Some(Finding::Recursion { held: *entry })
        } else if entry.context != now.context {
            // The address of a lock that contains the other as its first field.
            None
        } else if from == to {
            let grows = wanted.class.nests && wanted.nesting > entry.nesting;
            (!grows).then_some(Finding::SameClass { held: *entry })
        } else if self.graph.is_known(from, to) {
            None
        } else {
            self.new_edge(entry, wanted, from, to)
        };
        if let Some(finding) = finding {
            self.emit(finding, Some(wanted), held, now, sink);
        }
    }

    /// Adds an edge. What it contradicts; then it does not become part of the order.
    fn new_edge(
        &self,
        entry: &HeldLock,
        wanted: &HeldLock,
        from: ClassId,
        to: ClassId,
    ) -> Option<Finding> {
        self.sites.note(from, to, entry, wanted);
        self.graph.add(from, to);
        let (level, outer) = (wanted.class.level, entry.class.level);
        let finding = if let Some(path) = self.graph.path_from(to, |class| class == from) {
            Some(Finding::Cycle { held: *entry, path })
        } else if level < outer || level == outer && !wanted.class.nests {
            Some(Finding::Level { held: *entry })
        } else {
            self.irq_dependency(from, to)
        };
        if finding.is_some() {
            self.graph.withdraw(from, to);
        }
        // Last: as long as others do not find the edge known, they look for themselves.
        self.graph.set_known(from, to);
        finding
    }

    /// An acquisition from which no order can be learned: a fault by itself, or of a class
    /// without a number.
    #[cold]
    #[inline(never)]
    fn acquire_unordered(
        &self,
        held: &Held,
        wanted: &HeldLock,
        now: &Now,
        sink: &mut dyn FnMut(&Report<'_>),
    ) {
        if !wanted.is_try {
            let finding = if now.context == Context::Nmi {
                Some(Finding::WaitInNmi)
            } else if !wanted.sleeps() {
                None
            } else if now.context != Context::Task {
                Some(Finding::SleepingLockInInterrupt)
            } else {
                why_not_sleep(held, now, wanted.at)
            };
            if let Some(finding) = finding {
                self.emit(finding, Some(wanted), held, now, sink);
            }
        }
        if wanted.id.is_none() {
            self.emit(Finding::TooManyClasses, Some(wanted), held, now, sink);
        }
    }

    /// Interrupts may have come on since a lock was taken with them off.
    fn check_irqs_of(
        &self,
        held: &Held,
        entry: &HeldLock,
        now: &Now,
        sink: &mut dyn FnMut(&Report<'_>),
    ) {
        if let Some(id) = entry.id {
            let uses = self.usage.unknown(id, uses_of_holding(now));
            if uses != 0 {
                self.new_uses(id, uses, entry.at, &mut |finding| {
                    self.emit(finding, None, held, now, sink);
                });
            }
        }
    }

    /// A lock is about to be released.
    #[inline]
    pub fn release(
        &self,
        held: &Held,
        class: &'static LockClass,
        lock: usize,
        now: &Now,
        sink: &mut dyn FnMut(&Report<'_>),
    ) {
        if self.is_stopped() {
            return;
        }
        let Some(entry) = held.pop(class, lock) else {
            if !held.pop_beyond() {
                let id = classes::number(class);
                let finding = Finding::NotHeld { class, id, lock };
                self.emit(finding, None, held, now, sink);
            }
            return;
        };
        if now.irqs_on && !entry.irqs_on && entry.context == now.context {
            self.check_irqs_of(held, &entry, now, sink);
        }
        if !entry.sleeps() && (entry.cpu != now.cpu || entry.context != now.context) {
            let finding = Finding::ReleasedElsewhere { held: entry };
            self.emit(finding, None, held, now, sink);
        }
    }

    /// What follows may sleep.
    #[inline]
    pub fn might_sleep(
        &self,
        held: &Held,
        at: &'static Location<'static>,
        now: &Now,
        sink: &mut dyn FnMut(&Report<'_>),
    ) {
        if !self.is_stopped()
            && !may_wait(held, now)
            && let Some(finding) = why_not_sleep(held, now, at)
        {
            self.emit(finding, None, held, now, sink);
        }
    }

    /// A thread ends or a CPU goes idle (`context` is `Task`), or a handler of `context`
    /// ends: nothing taken there may still be held. What is, is forgotten.
    #[inline]
    pub fn check_empty(
        &self,
        held: &Held,
        context: Context,
        now: &Now,
        sink: &mut dyn FnMut(&Report<'_>),
    ) {
        if held.depth() != 0 && !self.is_stopped() {
            self.check_left(held, context, now, sink);
        }
    }

    #[cold]
    #[inline(never)]
    fn check_left(
        &self,
        held: &Held,
        context: Context,
        now: &Now,
        sink: &mut dyn FnMut(&Report<'_>),
    ) {
        for entry in held.locks() {
            if entry.context >= context {
                let finding = Finding::StillHeld { held: entry };
                self.emit(finding, None, held, now, sink);
            }
        }
        held.clear(context);
    }

    /// Ends all checking, for a machine that panics: its locks are no longer used by the
    /// rules.
    pub fn stop(&self) {
        // Relaxed: some calls more or less do not matter.
        self.stopped.store(true, Ordering::Relaxed);
    }

    #[inline(always)]
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Forgets the order and the uses of a class, and which findings were reported (of all
    /// classes), so that a test can plant the same fault again. Nobody may use locks of the
    /// class meanwhile.
    pub fn forget(&self, class: &'static LockClass) {
        if let Some(id) = class.id().and_then(|id| ClassId::new(id as u8)) {
            self.graph.forget(id);
            self.usage.forget(id);
            self.sites.forget(id);
        }
        self.once.clear();
    }

    #[cold]
    #[inline(never)]
    fn emit(
        &self,
        finding: Finding,
        wanted: Option<&HeldLock>,
        held: &Held,
        now: &Now,
        sink: &mut dyn FnMut(&Report<'_>),
    ) {
        if self.once.first(finding.family(), finding.about(wanted)) {
            sink(&Report {
                finding,
                wanted: wanted.copied(),
                now: *now,
                held,
                serial: held.serial(),
                checker: self,
            });
        }
    }
}

impl Default for Checker {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether what runs may sleep, as far as a glance tells.
#[inline]
fn may_wait(held: &Held, now: &Now) -> bool {
    now.may_sleep && now.context == Context::Task && blocking_sleep(held).is_none()
}

/// A held lock whose holder may not sleep.
#[inline]
fn blocking_sleep(held: &Held) -> Option<HeldLock> {
    held.slots().filter_map(|slot| slot.get()).find(|lock| {
        matches!(
            lock.kind,
            LockKind::Spin | LockKind::IrqSpin | LockKind::Local
        )
    })
}

/// Why what runs may not sleep.
#[cold]
fn why_not_sleep(held: &Held, now: &Now, at: &'static Location<'static>) -> Option<Finding> {
    if now.context != Context::Task {
        return Some(Finding::SleepInAtomic { at });
    }
    match blocking_sleep(held) {
        Some(held) => Some(Finding::SleepUnderLock { held, at }),
        None => (!now.may_sleep).then_some(Finding::SleepInAtomic { at }),
    }
}
