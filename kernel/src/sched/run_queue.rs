//! Ready threads: a queue for each CPU, a list for each priority.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

use intrusive_collections::{LinkedList, UnsafeRef};
use platform::{CpuId, CpuMask, MAX_CPUS, Priority};

use super::thread::{QueueAdapter, State, Thread};
use crate::{
    arch::{apic, interrupts::vector, preempt},
    boot, smp,
    sync::{self, IrqLock, IrqLockGuard},
};

const PRIORITIES: usize = Priority::Urgent as usize + 1;

/// What runs on a CPU, for those who wonder whether to interrupt it: 0 for idle, else the
/// priority plus 1.
const IDLE: u8 = 0;

/// A CPU's ready threads.
struct RunQueue {
    /// How many there are. Changed under the lock.
    ready: AtomicU32,
    /// How many of them could run elsewhere. Changed under the lock, read without it by
    /// those who look for work.
    floating: AtomicU32,
    /// See [`IDLE`]. Written by the own CPU, under the lock.
    running: AtomicU8,
    /// An interrupt that makes the CPU look again is on its way. Under the lock.
    asked: AtomicBool,
    lists: IrqLock<Lists, sync::RunQueue>,
}

struct Lists {
    by_priority: [LinkedList<QueueAdapter>; PRIORITIES],
}

impl Lists {
    fn top(&self) -> Option<usize> {
        (0..PRIORITIES)
            .rev()
            .find(|&priority| !self.by_priority[priority].is_empty())
    }
}

static QUEUES: [RunQueue; MAX_CPUS] = [const {
    RunQueue {
        ready: AtomicU32::new(0),
        floating: AtomicU32::new(0),
        running: AtomicU8::new(IDLE),
        asked: AtomicBool::new(false),
        lists: IrqLock::new(Lists {
            by_priority: [const { LinkedList::new(QueueAdapter::NEW) }; PRIORITIES],
        }),
    }
}; MAX_CPUS];

/// CPUs that look for work or sleep.
static IDLE_CPUS: AtomicU64 = AtomicU64::new(0);

// Relaxed in both: the lock orders them, and see `idle_begins` for who looks without it. A
// thread's CPUs do not change while it is on a queue.
impl RunQueue {
    fn got(&self, thread: &Thread) {
        self.ready.fetch_add(1, Ordering::Relaxed);
        if !thread.is_bound() {
            self.floating.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn took(&self, thread: &Thread) {
        self.ready.fetch_sub(1, Ordering::Relaxed);
        if !thread.is_bound() {
            self.floating.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn queue(cpu: CpuId) -> &'static RunQueue {
    &QUEUES[cpu.index()]
}

/// Whether a thread may be put on a CPU's queue. With that queue's lock.
fn accepts(cpu: CpuId, thread: &Thread) -> bool {
    thread.stays() || smp::active().contains(cpu)
}

fn level(thread: &Thread) -> u8 {
    thread.priority() as u8 + 1
}

/// Where in its list a thread goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind the others of its priority.
    Last,
    /// Before them: it was interrupted in its turn.
    First,
}

/// Makes a thread ready: puts it on the queue of a CPU that suits it, and interrupts that
/// CPU if the thread goes before what runs there. Preemption off or interrupt context.
///
/// The caller has the sole right to do so: the thread is on no CPU and no queue, its
/// registers are saved.
pub(super) fn make_ready(thread: &Thread, place: Place) {
    // Again only if the CPU ceased to be active meanwhile.
    while !put(thread, choose_cpu(thread), place) {}
}

/// [`make_ready`] for the thread that this CPU has just left: it waits here, unless it may
/// not run here any more. (A CPU with nothing to do is asked to take it.)
pub(super) fn requeue(thread: &Thread, place: Place) {
    let own = smp::this_cpu();
    if !thread.may_run_on(own) || !put(thread, own, place) {
        make_ready(thread, place);
    }
}

/// Puts a thread on the queue of `cpu`, unless that does not take it any more; whether it did.
fn put(thread: &Thread, cpu: CpuId, place: Place) -> bool {
    let own = smp::this_cpu();
    let this = queue(cpu);
    thread.set_cpu(cpu);
    thread.note_state(State::Ready);
    let interrupt = {
        let mut lists = this.lists.lock();
        if !accepts(cpu, thread) {
            return false;
        }
        let list = &mut lists.by_priority[thread.priority() as usize];
        // SAFETY: the thread is alive until it runs and ends (invariant of `Thread`).
        let entry = unsafe { UnsafeRef::from_raw(thread) };
        match place {
            Place::Last => list.push_back(entry),
            Place::First => list.push_front(entry),
        }
        this.got(thread);
        let goes_first = level(thread) > this.running.load(Ordering::Relaxed);
        // One interrupt is enough until the CPU has looked (under this lock).
        goes_first && (cpu == own || !this.asked.swap(true, Ordering::Relaxed))
    };
    if interrupt {
        if cpu == own {
            preempt::want_switch();
        } else {
            ask(cpu);
        }
    } else {
        share(cpu);
    }
    true
}

/// Threads may wait on a CPU's queue for their turn that a CPU with nothing to do could
/// take: asks one. To be called whenever it is settled that a thread has to wait.
pub(super) fn share(cpu: CpuId) {
    if queue(cpu).floating.load(Ordering::Relaxed) == 0 {
        return;
    }
    // SeqCst with the one in `idle_begins`: either that CPU finds the thread, or we find the
    // CPU.
    fence(Ordering::SeqCst);
    if let Some(idle) = idle_cpus().without(cpu).without(smp::this_cpu()).first() {
        ask(idle);
    }
}

/// Makes a CPU look at its queue.
fn ask(cpu: CpuId) {
    apic::send_vector(boot::acpi().cpus[cpu.index()].apic_id, vector::RESCHEDULE);
}

/// CPUs that have nothing to run, or have not seen yet that they do.
pub(super) fn idle_cpus() -> CpuMask {
    // Relaxed: a hint, or ordered by the caller's fence.
    CpuMask::from_bits(IDLE_CPUS.load(Ordering::Relaxed)).intersection(smp::active())
}

/// The CPU it ran on if that has nothing to do, else one that has nothing to do (of the
/// same node first), else the one it ran on.
fn choose_cpu(thread: &Thread) -> CpuId {
    let allowed = thread.places();
    let last = thread.cpu();
    if thread.is_bound() && allowed == CpuMask::only(last) {
        return last;
    }
    let first = allowed.first().unwrap_or(CpuId::BOOT);
    // One that has been given something does not count, though it may not have seen it yet.
    let idle = idle_cpus()
        .intersection(allowed)
        .iter()
        .filter(|&cpu| !has_ready(cpu))
        .fold(CpuMask::EMPTY, CpuMask::with);
    if idle.contains(last) {
        return last;
    }
    let near = boot::topology().cpus_of(boot::topology().node_of(last));
    idle.intersection(near)
        .first()
        .or(idle.first())
        .unwrap_or(if allowed.contains(last) { last } else { first })
}

/// What a CPU that leaves `leaving` runs next. `None`: nothing.
///
/// `keep`: the thread could go on; `Some(true)` if its turn is over. Then only one that goes
/// before it (or, its turn over, is as important) is taken. Interrupts off.
pub(super) fn pick(cpu: CpuId, leaving: &Thread, keep: Option<bool>) -> Option<UnsafeRef<Thread>> {
    let this = queue(cpu);
    let least = match keep {
        None => 0,
        Some(true) => leaving.priority() as usize,
        Some(false) => leaving.priority() as usize + 1,
    };
    {
        let mut lists = this.lists.lock();
        this.asked.store(false, Ordering::Relaxed);
        if let Some(top) = lists.top()
            && top >= least
            && let Some(thread) = lists.by_priority[top].pop_front()
        {
            this.took(&thread);
            this.running.store(level(&thread), Ordering::Relaxed);
            return Some(thread);
        }
        if keep.is_none() {
            this.running.store(IDLE, Ordering::Relaxed);
        }
    }
    if keep.is_none() {
        let stolen = steal(cpu)?;
        // A thread that came meanwhile asked for an interrupt, and is looked at then.
        this.running.store(level(&stolen), Ordering::Relaxed);
        return Some(stolen);
    }
    None
}

/// A thread that waits on another CPU's queue and may run here. Interrupts off.
///
/// This CPU may cease to be active meanwhile; then the thread leaves it at the next tick.
pub(super) fn steal(cpu: CpuId) -> Option<UnsafeRef<Thread>> {
    if !smp::active().contains(cpu) {
        return None;
    }
    for victim in smp::online().without(cpu) {
        let that = queue(victim);
        if that.floating.load(Ordering::Relaxed) == 0 {
            continue;
        }
        // No other queue's lock is held, so CPUs that steal from each other only wait.
        let mut lists = that.lists.lock();
        if let Some(thread) = take_first(&mut lists, |thread| thread.may_run_on(cpu)) {
            that.took(&thread);
            thread.set_cpu(cpu);
            return Some(thread);
        }
    }
    None
}

fn take_first(
    lists: &mut IrqLockGuard<'_, Lists, sync::RunQueue>,
    wanted: impl Fn(&Thread) -> bool,
) -> Option<UnsafeRef<Thread>> {
    for list in lists.by_priority.iter_mut().rev() {
        let mut cursor = list.front_mut();
        while let Some(thread) = cursor.get() {
            if wanted(thread) {
                return cursor.remove();
            }
            cursor.move_next();
        }
    }
    None
}

/// A CPU has nothing to run and begins to look. After this, whoever makes a thread ready
/// that could run here asks, or the CPU finds it.
pub(super) fn idle_begins(cpu: CpuId) {
    IDLE_CPUS.fetch_or(CpuMask::only(cpu).bits(), Ordering::Relaxed);
    // SeqCst with the one in `make_ready`.
    fence(Ordering::SeqCst);
}

/// A CPU has found something.
pub(super) fn idle_ends(cpu: CpuId) {
    IDLE_CPUS.fetch_and(!CpuMask::only(cpu).bits(), Ordering::Relaxed);
}

/// Whether something waits on this CPU's queue.
pub(super) fn has_ready(cpu: CpuId) -> bool {
    queue(cpu).ready.load(Ordering::Relaxed) != 0
}

/// Whether one of the same or a higher priority waits for the CPU.
pub(super) fn contended(cpu: CpuId, running: &Thread) -> bool {
    has_ready(cpu)
        && queue(cpu)
            .lists
            .lock()
            .top()
            .is_some_and(|top| top >= running.priority() as usize)
}

/// How many threads wait on a CPU's queue.
pub fn ready_count(cpu: CpuId) -> u32 {
    queue(cpu).ready.load(Ordering::Relaxed)
}

/// The first thread of a CPU takes over: what runs now.
pub(super) fn note_running(cpu: CpuId, thread: &Thread) {
    queue(cpu).running.store(level(thread), Ordering::Relaxed);
}

/// Lets threads be put on a CPU's queue, or only those that stay with it.
pub(super) fn set_active(cpu: CpuId, active: bool) {
    let _lists = queue(cpu).lists.lock();
    smp::set_active(cpu, active);
}

/// A thread that waits on a CPU's queue and may not run there: the caller makes it ready
/// elsewhere.
pub(super) fn take_stranger(cpu: CpuId) -> Option<UnsafeRef<Thread>> {
    let this = queue(cpu);
    let mut lists = this.lists.lock();
    let thread = take_first(&mut lists, |thread| !thread.may_run_on(cpu))?;
    this.took(&thread);
    Some(thread)
}
