//! Torture of the kernel's engine: what [`rcu::torture`] needs, and how it is started.

use alloc::{
    boxed::Box,
    string::ToString,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use kernel_base::rng::Rng;
use platform::CpuId;
use rcu::torture::{Ground, Options};
use spin::Once;

use super::KernelRcu;
use crate::{boot, exit, hotplug, machine::Kernel, sched, smp, time, timer::Timer};

/// The seed where none is given.
const DEFAULT_SEED: u64 = 1;
/// The longest time from one interrupt of a timer to the next.
const INTERRUPT_NS: u64 = 4_000_000;

/// How the torture of this kernel is, for so many milliseconds.
pub fn options(seed: u64, duration_ms: u64) -> Options {
    let cpus = smp::online().count();
    Options {
        stall_ns: super::rcu().stall_ns(),
        ..Options::new(seed, duration_ms.saturating_mul(1_000_000), cpus)
    }
}

/// Runs it. Whether all went well.
pub fn run(options: Options) -> bool {
    rcu::torture::run(Here, options)
}

/// What the command line asks for (`rcutorture=` ...), then exits with a status that says
/// whether all went well.
pub fn run_from_command_line() -> ! {
    let line = boot::command_line();
    let seconds = line.rcutorture.unwrap_or(1);
    let seed = line.rcutorture_seed.unwrap_or(DEFAULT_SEED);
    let mut options = options(seed, seconds.saturating_mul(1_000));
    options.overlong = line.rcutorture_overlong;
    if let Some(fault) = line.rcutorture_fault {
        let fault = fault.to_string();
        if !set_fault(&mut options, &fault) {
            crate::println!("rcu-torture: this kernel has no fault '{fault}'");
            exit::failure();
        }
    }
    if run(options) {
        exit::success()
    } else {
        exit::failure()
    }
}

#[cfg(debug_assertions)]
fn set_fault(options: &mut Options, name: &str) -> bool {
    rcu::Faults::by_name(name).is_some_and(|fault| {
        options.faults = fault;
        true
    })
}

/// A release build has none.
#[cfg(not(debug_assertions))]
fn set_fault(_: &mut Options, _: &str) -> bool {
    false
}

struct Here;

impl Ground<Kernel> for Here {
    type Interrupts = Interrupts;

    fn rcu(&self) -> &KernelRcu {
        super::rcu()
    }

    fn line(&self, text: fmt::Arguments<'_>) {
        crate::println!("{text}");
    }

    fn preempt(&self) {
        sched::let_others_run();
    }

    fn offline(&self, cpu: CpuId) -> bool {
        hotplug::off(cpu).is_ok()
    }

    fn online(&self, cpu: CpuId) -> bool {
        match hotplug::on(cpu) {
            Ok(()) => true,
            Err(error) => {
                crate::println!("rcu-torture: {error}");
                false
            }
        }
    }

    fn interrupts(&self, seed: u64, read: Box<dyn Fn() + Send + Sync>) -> Interrupts {
        Interrupts::start(seed, Arc::from(read))
    }
}

/// Timers that read, in the soft interrupt of the CPUs on which they were first armed.
struct Interrupts(Vec<Arc<Source>>);

/// One of them.
struct Source {
    timer: Once<Timer>,
    stopped: AtomicBool,
    /// The state of its random numbers; only its own function uses it.
    state: AtomicU64,
    read: Arc<dyn Fn() + Send + Sync>,
}

impl Interrupts {
    /// One on each CPU that is online; on fewer, if there is no memory.
    fn start(seed: u64, read: Arc<dyn Fn() + Send + Sync>) -> Self {
        let sources: Vec<Arc<Source>> = smp::online()
            .iter()
            .filter_map(|cpu| Source::new(seed ^ u64::from(cpu.number()), Arc::clone(&read)))
            .collect();
        for (cpu, source) in smp::online().iter().zip(&sources) {
            smp::call_on(cpu, &|| source.arm());
        }
        Self(sources)
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        for source in &self.0 {
            // Relaxed: `cancel_sync` waits for a function that has not seen it; one that
            // arms its timer again meanwhile is cancelled with it the second time.
            source.stopped.store(true, Ordering::Relaxed);
            if let Some(timer) = source.timer.get() {
                timer.cancel_sync();
                timer.cancel_sync();
            }
        }
    }
}

impl Source {
    fn new(seed: u64, read: Arc<dyn Fn() + Send + Sync>) -> Option<Arc<Self>> {
        let source = Arc::new(Self {
            timer: Once::new(),
            stopped: AtomicBool::new(false),
            state: AtomicU64::new(seed),
            read,
        });
        let weak: Weak<Self> = Arc::downgrade(&source);
        let timer = Timer::new(move || {
            if let Some(source) = weak.upgrade() {
                (source.read)();
                source.arm();
            }
        })?;
        source.timer.call_once(|| timer);
        Some(source)
    }

    /// On the CPU where it shall ring.
    fn arm(&self) {
        // Relaxed in all of these: see `Drop` and `state`.
        if self.stopped.load(Ordering::Relaxed) {
            return;
        }
        let seed = self.state.load(Ordering::Relaxed);
        let next = Rng::new(seed).next_u64();
        self.state.store(next, Ordering::Relaxed);
        if let Some(timer) = self.timer.get() {
            timer.arm(time::now_ns() + Rng::new(next).below(INTERRUPT_NS));
        }
    }
}
