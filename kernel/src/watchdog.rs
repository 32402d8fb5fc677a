//! A bound on how long something may take. On expiry every CPU's stack is shown, as a panic.
//!
//! Two CPUs look at the time, so that one that hangs with interrupts off is seen by the
//! other. A machine with one CPU in that state is for `xtask` to notice, from outside.

use alloc::string::String;
use core::{
    fmt::Write,
    mem,
    sync::atomic::{AtomicU64, Ordering},
};

use kernel_early::serial::RawSerial;
use platform::CpuMask;

use crate::{
    smp,
    sync::{IrqLock, Watched},
    time,
    timer::{self, TimerNode},
};

/// When it expires, in [`time::now_ns`]; 0 when off.
static DEADLINE: AtomicU64 = AtomicU64::new(0);
static WHAT: IrqLock<String, Watched> = IrqLock::new(String::new());
/// One for the CPU that arms the watch, one for another.
static ALARMS: [TimerNode; 2] = [const { TimerNode::for_interrupt() }; 2];

/// Starts the watch over `what`, for `ns` nanoseconds from now.
pub fn arm(ns: u64, what: String) {
    // Not dropped under the lock, which a timer interrupt tries for.
    let before = mem::replace(&mut *WHAT.lock(), what);
    drop(before);
    // Release: a CPU that sees the deadline sees what it is about.
    DEADLINE.store(time::now_ns() + ns.max(1), Ordering::Release);
    let deadline = DEADLINE.load(Ordering::Relaxed);
    timer::watch(&ALARMS[0], deadline);
    if let Some(other) = smp::online().without(smp::this_cpu()).first() {
        // One that goes offline just now does not watch; if it goes later its alarm moves.
        smp::call_many(CpuMask::only(other), &|| timer::watch(&ALARMS[1], deadline));
    }
}

/// Ends the guest now: what is watched hangs, for the reason `why`, and cannot be left.
pub fn expire(why: &str) -> ! {
    DEADLINE.store(0, Ordering::Release);
    let what = mem::take(&mut *WHAT.lock());
    panic!("watchdog: {what} took too long, and {why}");
}

/// Ends the watch. A timer that rings later finds nothing to do.
pub fn disarm() {
    DEADLINE.store(0, Ordering::Release);
}

/// What every timer interrupt calls.
pub fn check() {
    let deadline = DEADLINE.load(Ordering::Acquire);
    if deadline == 0 {
        return;
    }
    if time::now_ns() < deadline {
        return;
    }
    // One CPU reports; the other's timer finds the watch off.
    if DEADLINE.swap(0, Ordering::AcqRel) != 0 {
        let what = WHAT
            .try_lock()
            .map(|mut what| mem::take(&mut *what))
            .unwrap_or_default();
        // Not by the console: whoever hangs may hold its lock.
        let _ = writeln!(RawSerial::new(), "\n# watchdog: {what}");
        panic!("watchdog: {what} took too long");
    }
}
