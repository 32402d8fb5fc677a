//! A CPU's timers and the hardware behind them.

use core::{
    ptr,
    sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering},
};

use intrusive_collections::{KeyAdapter, RBTree, RBTreeAtomicLink, UnsafeRef, intrusive_adapter};
use platform::{CpuId, MAX_CPUS};

use super::TICK_NS;
use crate::{
    arch::{apic, interrupts::vector},
    boot, sched, smp, softirq,
    sync::{IrqLock, IrqLockGuard, Timers},
    time, watchdog,
};

/// No deadline.
const NEVER: u64 = u64::MAX;
/// The hardware counts this far at most; the rest is set when it rings.
const LONGEST_NS: u64 = 1_000_000_000;
/// A node that is on no CPU.
const NOWHERE: u32 = u32::MAX;

/// What happens at the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Wakes the thread `target`.
    Alarm,
    /// The soft interrupt calls the timer `target`.
    Call,
    /// The interrupt itself is what is wanted.
    Nothing,
}

/// A timer's place in a CPU's tree.
#[derive(Debug)]
pub struct TimerNode {
    link: RBTreeAtomicLink,
    /// Changed under the base's lock while the node is in no tree.
    deadline: AtomicU64,
    /// The CPU whose lock guards the node; [`NOWHERE`] before it was armed first.
    cpu: AtomicU32,
    kind: Kind,
    pub(super) target: AtomicPtr<()>,
    /// Which tree: under the base's lock.
    place: AtomicU32,
}

const IDLE: u32 = 0;
const ARMED: u32 = 1;
const EXPIRED: u32 = 2;
const MOVING: u32 = 3;

intrusive_adapter!(Adapter = UnsafeRef<TimerNode>: TimerNode { link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for Adapter {
    type Key = u64;

    fn get_key(&self, node: &'a TimerNode) -> u64 {
        // Relaxed: guarded by the base's lock.
        node.deadline.load(Ordering::Relaxed)
    }
}

/// A CPU's timers.
pub(super) struct Base {
    armed: RBTree<Adapter>,
    expired: RBTree<Adapter>,
    /// Whose function runs now.
    pub(super) running: *const TimerNode,
    /// What the hardware is set for.
    programmed: u64,
    /// The next tick.
    tick_at: u64,
    /// Somebody else has the hardware (see [`super::Raw`]).
    pub(super) taken: bool,
}

// SAFETY: the pointer is only compared with.
unsafe impl Send for Base {}

static BASES: [IrqLock<Base, Timers>; MAX_CPUS] = [const {
    IrqLock::new(Base {
        armed: RBTree::new(Adapter::NEW),
        expired: RBTree::new(Adapter::NEW),
        running: ptr::null(),
        programmed: NEVER,
        tick_at: NEVER,
        taken: false,
    })
}; MAX_CPUS];

type BaseGuard = IrqLockGuard<'static, Base, Timers>;

impl TimerNode {
    pub(super) const fn new(kind: Kind) -> Self {
        Self {
            link: RBTreeAtomicLink::new(),
            deadline: AtomicU64::new(NEVER),
            cpu: AtomicU32::new(NOWHERE),
            kind,
            target: AtomicPtr::new(ptr::null_mut()),
            place: AtomicU32::new(IDLE),
        }
    }

    /// The alarm of a thread.
    pub const fn for_thread() -> Self {
        Self::new(Kind::Alarm)
    }

    /// A node whose interrupt is all that it is for.
    pub const fn for_interrupt() -> Self {
        Self::new(Kind::Nothing)
    }
}

pub(super) fn lock(cpu: CpuId) -> BaseGuard {
    BASES[cpu.index()].lock()
}

/// Locks the base that guards `node`. A node that was never armed: none.
pub(super) fn lock_of(node: &TimerNode) -> Option<BaseGuard> {
    loop {
        // Relaxed: looked at again under the lock, and only changed under it.
        let cpu = CpuId::new(node.cpu.load(Ordering::Relaxed))?;
        let base = lock(cpu);
        if node.cpu.load(Ordering::Relaxed) == cpu.number() {
            return Some(base);
        }
    }
}

impl Base {
    /// Sets the hardware for the first deadline, if it is not. Own CPU.
    fn program(&mut self, now: u64) {
        if self.taken {
            return;
        }
        let first = self
            .armed
            .front()
            .get()
            .map_or(NEVER, |node| node.deadline.load(Ordering::Relaxed))
            .min(self.tick_at);
        if first == self.programmed {
            return;
        }
        self.programmed = first;
        if first == NEVER {
            apic::disarm_timer();
        } else {
            apic::arm_timer(first.saturating_sub(now).clamp(1, LONGEST_NS));
        }
    }

    /// Sets the hardware anew whatever it was set for. Own CPU.
    pub(super) fn reprogram(&mut self) {
        self.programmed = NEVER - 1;
        self.program(time::now_ns());
    }

    /// Takes the node out of the tree it is in, if it is in one. Whether it was armed.
    pub(super) fn remove(&mut self, node: &TimerNode) -> bool {
        let place = node.place.swap(IDLE, Ordering::Relaxed);
        let tree = match place {
            ARMED => &mut self.armed,
            EXPIRED => &mut self.expired,
            MOVING => return true,
            _ => return false,
        };
        // SAFETY: `place`, under this base's lock, says that the node is in this tree.
        unsafe { tree.cursor_mut_from_ptr(node) }.remove();
        true
    }

    /// # Safety
    ///
    /// The node must be in no tree, and stay where it is until it is taken out.
    unsafe fn insert(&mut self, node: &TimerNode, deadline: u64) {
        node.deadline.store(deadline, Ordering::Relaxed);
        node.place.store(ARMED, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        self.armed.insert(unsafe { UnsafeRef::from_raw(node) });
    }

    /// The first node whose function is due; it is running from here on.
    pub(super) fn start_expired(&mut self) -> Option<*const TimerNode> {
        let node = self.expired.front_mut().remove()?;
        node.place.store(IDLE, Ordering::Relaxed);
        self.running = UnsafeRef::into_raw(node);
        Some(self.running)
    }
}

/// Sets the alarm of a thread.
///
/// # Safety
///
/// `node` and `thread` must stay until [`cancel_alarm`].
pub unsafe fn arm_alarm(node: &TimerNode, thread: &sched::Thread, deadline: u64) {
    node.target
        .store(ptr::from_ref(thread).cast_mut().cast(), Ordering::Relaxed);
    // SAFETY: as the caller promises.
    unsafe { arm(node, deadline) };
}

/// After this the alarm does not fire, and has not half fired.
pub fn cancel_alarm(node: &TimerNode) {
    if let Some(mut base) = lock_of(node) {
        base.remove(node);
    }
}

/// Arms a node on this CPU; one that is armed gets the new deadline. (If its function runs
/// on another CPU, it stays there, so that it does not run twice at a time.) `true` if it was
/// armed already.
///
/// A node that changes CPUs is `MOVING` between the two locks, and counts as armed: who arms
/// or cancels it then takes it over, and this call was before theirs.
///
/// # Safety
///
/// The node and its target must stay until the node has fired or is cancelled.
pub(super) unsafe fn arm(node: &TimerNode, deadline: u64) -> bool {
    let _pinned = sched::Pinned::disable();
    let own = smp::this_cpu();
    let mut base = loop {
        match lock_of(node) {
            Some(base) => break base,
            // Armed for the first time: whoever is first says where. Relaxed: nothing is
            // said by it yet; the base's lock orders the rest.
            None => {
                let _ = node.cpu.compare_exchange(
                    NOWHERE,
                    own.number(),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
            }
        }
    };
    let was_armed = base.remove(node);
    let cpu = CpuId::new(node.cpu.load(Ordering::Relaxed)).unwrap_or(own);
    if cpu == own || ptr::eq(base.running, node) {
        // SAFETY: in no tree now; stays, as the caller promises.
        unsafe { base.insert(node, deadline) };
        finish_arming(base, cpu, own);
        return was_armed;
    }
    node.place.store(MOVING, Ordering::Relaxed);
    node.cpu.store(own.number(), Ordering::Relaxed);
    drop(base);
    let mut base = lock(own);
    let is_ours = node.cpu.load(Ordering::Relaxed) == own.number()
        && node.place.load(Ordering::Relaxed) == MOVING;
    if is_ours {
        // SAFETY: as above.
        unsafe { base.insert(node, deadline) };
        finish_arming(base, own, own);
    }
    was_armed
}

fn finish_arming(mut base: BaseGuard, cpu: CpuId, own: CpuId) {
    if cpu == own {
        base.program(time::now_ns());
    } else {
        drop(base);
        // Its timer interrupt looks at the tree and sets the hardware.
        apic::send_vector(boot::acpi().cpus[cpu.index()].apic_id, vector::TIMER);
    }
}

/// Makes this CPU's timer interrupt come at `deadline`, by a node that does nothing else.
pub fn watch(node: &'static TimerNode, deadline: u64) {
    debug_assert_eq!(node.kind, Kind::Nothing);
    // SAFETY: the node is static.
    unsafe { arm(node, deadline) };
}

/// Whether a node waits for its deadline, or for its function to run.
pub fn pending(node: &TimerNode) -> bool {
    lock_of(node).is_some_and(|_base| node.place.load(Ordering::Relaxed) != IDLE)
}

/// The timer interrupt.
pub fn interrupt() {
    let cpu = smp::this_cpu();
    let mut base = lock(cpu);
    if base.taken {
        return;
    }
    // What was programmed has rung, or another CPU asks: set it anew in any case.
    base.programmed = NEVER - 1;
    let mut now = time::now_ns();
    let mut call = false;
    loop {
        let mut cursor = base.armed.front_mut();
        let Some(node) = cursor.get() else { break };
        if node.deadline.load(Ordering::Relaxed) > now {
            // Time went on; what is due by now need not ring again.
            let later = time::now_ns();
            if node.deadline.load(Ordering::Relaxed) > later {
                break;
            }
            now = later;
        }
        let Some(node) = cursor.remove() else { break };
        match node.kind {
            Kind::Nothing => node.place.store(IDLE, Ordering::Relaxed),
            Kind::Alarm => {
                node.place.store(IDLE, Ordering::Relaxed);
                let thread = node.target.load(Ordering::Relaxed) as *const sched::Thread;
                // SAFETY: who armed the alarm keeps the thread until it has cancelled it,
                // which takes the lock that we hold.
                sched::unpark(unsafe { &*thread });
            }
            Kind::Call => {
                node.place.store(EXPIRED, Ordering::Relaxed);
                base.expired.insert(node);
                call = true;
            }
        }
    }
    let tick = base.tick_at <= now;
    if tick {
        // Ticks that were missed are not made up for.
        base.tick_at += ((now - base.tick_at) / TICK_NS + 1) * TICK_NS;
    }
    base.program(now);
    drop(base);
    if call {
        softirq::raise(softirq::Kind::Timer);
    }
    if tick {
        sched::tick();
    }
    watchdog::check();
}

/// Gives this CPU's timers to another one, which is online and does not do the same: before
/// this one goes offline. No function of a timer runs here. Interrupts off.
pub fn hand_over(to: CpuId) {
    let own = smp::this_cpu();
    let mut from = lock(own);
    debug_assert!(from.running.is_null() && !from.taken);
    // One CPU at a time goes offline, so nobody holds these two the other way round. With both
    // held no node is ever out of a tree for others, who could free it then.
    let mut heir = BASES[to.index()].lock_nested(1);
    let mut given = false;
    loop {
        let Base { armed, expired, .. } = &mut *from;
        let node = armed.front_mut().remove();
        let Some(node) = node.or_else(|| expired.front_mut().remove()) else {
            break;
        };
        node.cpu.store(to.number(), Ordering::Relaxed);
        node.place.store(ARMED, Ordering::Relaxed);
        heir.armed.insert(node);
        given = true;
    }
    drop(heir);
    from.tick_at = NEVER;
    from.program(time::now_ns());
    drop(from);
    if given {
        apic::send_vector(boot::acpi().cpus[to.index()].apic_id, vector::TIMER);
    }
}

/// This CPU begins to run threads: the tick runs.
pub fn start_tick() {
    let mut base = lock(smp::this_cpu());
    let now = time::now_ns();
    if base.tick_at == NEVER {
        base.tick_at = now + TICK_NS;
        base.program(now);
    }
}

/// This CPU is idle: no tick.
pub fn stop_tick() {
    let mut base = lock(smp::this_cpu());
    if base.tick_at != NEVER {
        base.tick_at = NEVER;
        base.program(time::now_ns());
    }
}
