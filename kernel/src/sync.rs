//! Locks as the kernel uses them, and the order in which they may be taken.
//!
//! The lock types are those of [`platform::lock`] and [`platform::wait`], on this machine
//! ([`Kernel`]). Every lock has a class; a lock may be taken while holding one of a smaller
//! level. Checked builds see to it ([`platform::lockdep`]).

use platform::{lock, lock_class};

use crate::machine::Kernel;

/// A spin lock with interrupts off: task and interrupt context, not NMI.
pub type IrqLock<T, C> = lock::IrqSpinLock<T, Kernel, C>;
/// Access to what an [`IrqLock`] protects.
pub type IrqLockGuard<'a, T, C> = lock::IrqSpinGuard<'a, T, Kernel, C>;
/// A spin lock with preemption off: task context only.
pub type SpinLock<T, C> = lock::SpinLock<T, Kernel, C>;

lock_class! {
    /// CPUs coming and going; held to read by who needs them to stay. Sleeps.
    pub struct Hotplug = ("hotplug", 1);
    /// The table of what is done when they do.
    pub struct HotplugSteps = ("hotplug steps", 68);
    /// The test results so far.
    pub struct TestOutput = ("test output", 30);
    /// Kernel page tables and the device range. Takes frames for tables.
    pub struct PageTables = ("page tables", 50);
    /// Boot memory accounts.
    pub struct Frames = ("boot frames", 51);
    /// A thread's end and who waits for it.
    pub struct ThreadEnd = ("thread end", 65);
    /// The boot heap.
    pub struct BootHeap = ("boot heap", 70);
    /// The table of threads.
    pub struct ThreadTable = ("thread table", 76);
    /// Free thread stacks.
    pub struct StackPool = ("stack pool", 77);
    /// The table of a walk of the heap, during which nobody else runs.
    pub struct HeapWalk = ("heap walk", 79);
    /// A CPU's timers. Alarms wake threads under it.
    pub struct Timers = ("timers", 85, nests);
    /// A CPU's ready threads.
    pub struct RunQueue = ("run queue", 90);
    /// The last stall of RCU.
    pub struct RcuStall = ("rcu stall", 91);
    /// What is being watched.
    pub struct Watched = ("watchdog", 92);
    /// Reports that a test expects.
    pub struct Expected = ("expected reports", 93);
    /// The log ring.
    pub struct Log = ("log", 94);
    /// The receive side of the serial port.
    pub struct SerialPort = ("serial port", 96);
    /// Bytes that were typed and not read. Wakes who waits for them after it is given back.
    pub struct SerialRing = ("serial ring", 97);
    /// The transmit side of the serial port: may be taken under any other.
    pub struct Console = ("console", 98);
}
