//! What belongs to a machine, and how threads come to it, leave it and fail it.

use core::{
    any::Any,
    fmt,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};
use std::{
    boxed::Box,
    format,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    string::String,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
    vec::Vec,
};

use super::{
    Builder,
    areas::Areas,
    attached::{Attachments, Values},
    here::{self, Here},
    inject::Injections,
    random::Random,
    sched::{Hints, Sched},
    thread::Thread,
};
use crate::{
    CpuId, CpuMask, MAX_NODES, Spawn, call_list::CallList, deferred::List, eqs::Eqs,
    lockdep::Checker,
};

/// How long a wait lasts before it looks whether the machine has failed.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// What interrupts a CPU.
pub(super) const CALLS: u32 = 1;
pub(super) const DEFERRED: u32 = 2;

/// One CPU. Aligned so that CPUs do not share lines.
#[repr(align(128))]
pub(super) struct CpuState {
    /// Decides at its points; the holder of the baton uses it.
    pub(super) random: Random,
    /// Interrupts that it shall take.
    raised: AtomicU32,
    pub(super) calls: CallList,
    pub(super) deferred: List,
    /// Whoever asks for a look at a switch is to be heard, although no thread changes. Only
    /// the CPU itself uses it.
    pub(super) switch_wanted: AtomicBool,
    pub(super) injections: Injections,
    /// Of its idle thread, which runs only as what an interrupt comes upon.
    pub(super) idle_values: Values,
}

impl CpuState {
    pub(super) fn raise(&self, what: u32) {
        // Release pairs with the Acquire in `take`.
        self.raised.fetch_or(what, Ordering::Release);
    }

    /// What was raised, which is no longer.
    pub(super) fn take(&self) -> u32 {
        // Relaxed: a look; whoever raises it now finds it taken at the next point.
        if self.raised.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        // Acquire: the handler sees what came before it was raised.
        self.raised.swap(0, Ordering::Acquire)
    }
}

pub(super) struct Inner {
    pub(super) seed: u64,
    /// Nothing is decided by chance.
    pub(super) steady: bool,
    /// Those that run.
    pub(super) cpus: Vec<CpuState>,
    pub(super) possible: usize,
    pub(super) nodes: usize,
    pub(super) distances: [[u8; MAX_NODES]; MAX_NODES],
    pub(super) areas: Areas,
    pub(super) attachments: Attachments,
    pub(super) hints: Hints,
    /// By CPU; see `sched`.
    pub(super) idle_words: Arc<[Eqs]>,
    /// Told when a CPU is about to change threads.
    pub(super) on_switch: OnceLock<Box<dyn Fn() + Send + Sync>>,
    sched: Mutex<Sched>,
    /// CPUs that are online, as `sched` says.
    online: AtomicU64,
    /// Held while a call is sent to CPUs that are online.
    pub(super) sending: Mutex<()>,
    /// A thread has ended.
    ended: Condvar,
    pub(super) checker: Box<Checker>,
    /// What was said, if it shall be kept.
    reports: Mutex<Option<Vec<String>>>,
    pub(super) start: Instant,
    limit: Duration,
    failed: AtomicBool,
    /// Why.
    failure: OnceLock<String>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("seed", &self.seed)
            .field("cpus", &self.cpus.len())
            .field("threads", &self.sched().threads)
            .finish_non_exhaustive()
    }
}

impl Inner {
    pub(super) fn new(builder: &Builder, start: Instant) -> Self {
        let cpus = builder.cpus;
        let state = |number| CpuState {
            random: Random::new(builder.seed, number),
            raised: AtomicU32::new(0),
            calls: CallList::new(),
            deferred: List::new(),
            switch_wanted: AtomicBool::new(false),
            injections: Injections::new(),
            idle_values: Values::new(),
        };
        let idle_words: Arc<[Eqs]> = (0..builder.possible).map(|_| Eqs::new()).collect();
        Self {
            seed: builder.seed,
            steady: builder.steady,
            cpus: (0..cpus).map(state).collect(),
            possible: builder.possible,
            nodes: builder.nodes,
            distances: builder.distances,
            areas: Areas::new(builder.possible, builder.percpu_bytes),
            attachments: Attachments::new(),
            hints: Hints::new(cpus),
            idle_words: Arc::clone(&idle_words),
            on_switch: OnceLock::new(),
            sched: Mutex::new(Sched::new(
                cpus,
                idle_words,
                Random::new(builder.seed, cpus),
            )),
            online: AtomicU64::new(CpuMask::first_n(cpus).bits()),
            sending: Mutex::new(()),
            ended: Condvar::new(),
            checker: Box::new(Checker::new()),
            reports: Mutex::new(None),
            start,
            limit: builder.limit,
            failed: AtomicBool::new(false),
            failure: OnceLock::new(),
        }
    }

    /// CPUs that run.
    pub(super) fn online(&self) -> CpuMask {
        // Acquire pairs with the Release in `set_online`.
        CpuMask::from_bits(self.online.load(Ordering::Acquire))
    }

    /// From now on `cpu` is online, or is not: calls that were sent to it have been.
    pub(super) fn set_online(&self, sched: &mut Sched, cpu: CpuId, online: bool) {
        let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        sched.set_online(cpu, online);
        // Release pairs with the Acquire in `online`.
        self.online.store(sched.online().bits(), Ordering::Release);
    }

    pub(super) fn sched(&self) -> MutexGuard<'_, Sched> {
        self.sched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new thread, ready to run.
    pub(super) fn register(self: &Arc<Self>, spawn: &Spawn) -> Thread {
        if let Some(cpu) = spawn.cpu {
            assert!(cpu.index() < self.cpus.len(), "cpu{cpu} never runs");
        }
        let thread = Thread::new(Arc::downgrade(self), spawn);
        let mut sched = self.sched();
        sched.threads.push(thread.clone());
        sched.make_ready(thread.clone(), &self.hints);
        thread
    }

    /// A registered thread that could not be started after all.
    pub(super) fn unregister(&self, thread: &Thread) {
        let mut sched = self.sched();
        sched.forget(thread, &self.hints);
        if let Some(cpu) = thread.on_cpu() {
            thread.set_on_cpu(None);
            sched.give_up(cpu, &self.hints);
        }
        drop(sched);
        self.ended.notify_all();
    }

    /// The calling thread of the host is `thread` while `f` runs.
    pub(super) fn enter<R>(self: &Arc<Self>, thread: &Thread, f: impl FnOnce() -> R) -> R {
        let here = Here::new(Arc::clone(self), thread.clone());
        let _inside = here::Inside::new(&here);
        {
            // Under the lock, so that whoever gives it a CPU either finds this or has given
            // it before `start` looks.
            let _sched = self.sched();
            let _ = thread.0.os.set(std::thread::current());
        }
        let result = catch_unwind(AssertUnwindSafe(|| {
            here.start();
            let result = f();
            here.finish();
            result
        }));
        if let Err(panic) = &result {
            self.fail(&format!("{thread:?}: {}", text(&**panic)));
        }
        self.unregister(thread);
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Waits until all threads have ended. From outside.
    pub(super) fn wait_for_ends(&self) {
        let mut sched = self.sched();
        while !sched.threads.is_empty() {
            let (next, timeout) = self
                .ended
                .wait_timeout(sched, LOOK)
                .unwrap_or_else(PoisonError::into_inner);
            sched = next;
            if timeout.timed_out() && self.is_late() {
                drop(sched);
                self.hang("for the end of its threads");
            }
        }
        drop(sched);
        self.check_failure();
    }

    pub(super) fn is_late(&self) -> bool {
        self.start.elapsed() > self.limit
    }

    /// A wait lasts too long.
    pub(super) fn hang(&self, wait: &str) -> ! {
        let text = format!("hangs, waiting {wait}");
        self.fail(&text);
        if std::thread::panicking() {
            std::eprintln!("a thread of a hosted machine {text} while it unwinds");
            std::process::abort();
        }
        self.check_failure();
        unreachable!("it has just failed");
    }

    /// The machine has failed; the first reason counts.
    pub(super) fn fail(&self, why: &str) {
        if self.failure.set(String::from(why)).is_err() {
            return;
        }
        self.failed.store(true, Ordering::Release);
        let sched = self.sched();
        std::eprintln!(
            "hosted machine failed: {why}\nseed {0}; GRANARY_SEED={0} repeats it\nthreads: {1:#?}",
            self.seed,
            sched.threads,
        );
        for thread in &sched.threads {
            if let Some(os) = thread.0.os.get() {
                os.unpark();
            }
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        // Relaxed: a look; `check_failure` waits for the reason.
        self.failed.load(Ordering::Relaxed)
    }

    /// Panics if the machine has failed, unless this thread does already.
    pub(super) fn check_failure(&self) {
        if self.has_failed() && !std::thread::panicking() {
            let why = self.failure.get().map_or("?", String::as_str);
            panic!("the machine failed (seed {}): {why}", self.seed);
        }
    }

    pub(super) fn report(&self, text: String) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = reports.as_mut() {
            kept.push(text);
            return;
        }
        drop(reports);
        if std::thread::panicking() {
            std::eprintln!("{text}");
        } else {
            panic!("{text}");
        }
    }

    pub(super) fn take_reports(&self) -> Vec<String> {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.replace(Vec::new()).unwrap_or_default()
    }
}

/// What a panic said.
fn text(panic: &(dyn Any + Send)) -> &str {
    let fixed = panic.downcast_ref::<&str>().copied();
    fixed
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text")
}
