//! The machine of the model checker: a thread of `loom` is a CPU.
//!
//! [`Setup::check`] runs a body once for every order of its accesses to words of
//! [`sync`](crate::sync) that the memory model allows (or those with at most so many
//! preemptions). The body runs on CPU 0 and starts others by [`cpu`] or
//! [`Platform::spawn`](crate::Platform::spawn); each runs one thread, to its end.
//!
//! What is modelled:
//!
//! - *Sleeping*: [`park`](crate::Platform::park) and `unpark` run the protocol of
//!   [`ParkWord`](crate::park::ParkWord). Who is never woken is a deadlock, which fails.
//! - *Time*: `now_ns` stands still, but for time-outs. `park_until` never blocks: in some
//!   executions a wake-up comes before its time-out, in some it does not, and then the clock
//!   is at the deadline.
//! - *Interrupts*: [`interrupt`] raises a CPU's line; the handler given to [`on_interrupt`]
//!   runs on that CPU's thread at its next mark with interrupts on, or where they come on.
//!   As raising and looking race, every mark gets its executions.
//! - *Calls* ([`Platform::call`](crate::Platform::call)), if [`Setup::calls`] says so: over
//!   the real [`call_list`](crate::call_list), served at marks. A CPU that sleeps, waits in
//!   [`Cpu::join`], has ended or was not started has its calls run by the caller, in its
//!   name, while it is kept from going on.
//! - *Deferred work*: at the next mark with interrupts on.
//!
//! What is not: preemption and threads that share or change CPUs, NMI, priorities, CPUs
//! going off line (all are online), delay by seeded schedules (all orders are tried), lock
//! checks. A wrong use of a lock, as far as it is noticed, fails.
//!
//! The checker (loom 0.7) has gaps, by which a test must be written: it may lose a plain
//! store that races with a read-modify-write (so a word that one side swaps all sides swap);
//! and it forgets that one thread loaded a word when another loads it before storing to it
//! (so what writes by load and store should come first: on CPU 0, which runs first, with the
//! readers on others; a late reader gets every old value that it may). Two threads that spin
//! at a time never end. A test counts the outcomes that it wants to have met.
//!
//! Memory: fresh per-CPU memory is zeroed, but zeroed bytes are no words of the checker;
//! they must be made in place ([`PerCpu`](crate::percpu::PerCpu) does).

use core::{
    alloc::Layout,
    cell::{Cell, RefCell},
    fmt,
    ptr::NonNull,
};
use std::{boxed::Box, rc::Rc, vec::Vec};

use crate::{
    CpuId, CpuMask, MAX_CPUS, MAX_NODES,
    call_list::CallList,
    deferred::List,
    sync::{AtomicBool, Ordering},
};

mod seam;

pub use seam::{Model, Thread};

/// A model to be: how many CPUs, and what is explored.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    cpus: usize,
    nodes: usize,
    preemptions: Option<usize>,
    calls: bool,
    blocking: bool,
}

impl Setup {
    /// A machine of `cpus` CPUs and one node, of which every order is explored.
    ///
    /// # Panics
    ///
    /// If there is no or more than [`MAX_CPUS`].
    pub fn new(cpus: usize) -> Self {
        assert!((1..=MAX_CPUS).contains(&cpus));
        Self {
            cpus,
            nodes: 1,
            preemptions: None,
            calls: false,
            blocking: false,
        }
    }

    /// With `nodes` nodes, to which the CPUs belong in turn.
    ///
    /// # Panics
    ///
    /// If there is no or more than [`MAX_NODES`].
    #[must_use]
    pub fn nodes(self, nodes: usize) -> Self {
        assert!((1..=MAX_NODES).contains(&nodes));
        Self { nodes, ..self }
    }

    /// Explores only orders in which at most `bound` times a thread is left that could go
    /// on: most bugs need two or three.
    #[must_use]
    pub fn preemptions(self, bound: usize) -> Self {
        Self {
            preemptions: Some(bound),
            ..self
        }
    }

    /// CPUs take calls. Costs an access at every mark.
    #[must_use]
    pub fn calls(self) -> Self {
        Self {
            calls: true,
            ..self
        }
    }

    /// CPUs that wait for a spinning lock are stopped until it is given back, instead of
    /// looking at it again and again: far fewer orders, for models in which locks are only
    /// used.
    #[must_use]
    pub fn blocking_locks(self) -> Self {
        Self {
            blocking: true,
            ..self
        }
    }

    /// Runs `body` on CPU 0, in every order.
    ///
    /// # Panics
    ///
    /// If `body` does, or blocks for ever, or accesses that must not collide do.
    pub fn check(self, body: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = self.preemptions;
        let _end = End;
        builder.check(move || {
            let last = MACHINE.replace(Some(Rc::new(Machine::new(self))));
            drop(last);
            seam::enter(CpuId::BOOT, Thread::new());
            body();
            seam::leave();
        });
    }
}

/// The end of a model.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        let last = MACHINE.take();
        if std::thread::panicking() {
            // What a handler holds cannot be dropped outside of an execution.
            core::mem::forget(last);
        }
    }
}

/// What there is in one execution. The checker runs its threads as coroutines of one thread
/// of the host, so plain cells do; what a CPU of the model should race for is a word of
/// [`sync`](crate::sync).
struct Machine {
    setup: Setup,
    cpus: Vec<CpuState>,
    /// CPUs that were started.
    started: Cell<CpuMask>,
    /// CPUs that serve their calls themselves. Who holds the lock keeps them so.
    attending: loom::sync::Mutex<CpuMask>,
    now_ns: Cell<u64>,
    /// Who was stopped at which lock ([`Setup::blocking_locks`]).
    blocked: RefCell<Vec<(usize, loom::thread::Thread)>>,
    memory: RefCell<Vec<Option<Block>>>,
}

/// One CPU.
struct CpuState {
    /// Its interrupt line.
    line: AtomicBool,
    handler: RefCell<Option<Rc<dyn Fn()>>>,
    calls: CallList,
    deferred: List,
}

impl CpuState {
    /// Raises the line.
    fn raise(&self) {
        // Release pairs with the Acquire where the line is looked at. A swap, though nothing
        // is done with the result: the checker may lose a store that races with a swap.
        self.line.swap(true, Ordering::Release);
    }
}

/// An allocation in per-CPU memory.
struct Block {
    base: NonNull<u8>,
    whole: Layout,
    stride: usize,
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated so, in `Machine::alloc`; freed once.
        unsafe { std::alloc::dealloc(self.base.as_ptr(), self.whole) };
    }
}

std::thread_local! {
    static MACHINE: RefCell<Option<Rc<Machine>>> = const { RefCell::new(None) };
}

/// Where a block's number stands in an address, above the offset in the block.
const BLOCK_SHIFT: u32 = 24;

impl Machine {
    fn new(setup: Setup) -> Self {
        let state = |_| CpuState {
            line: AtomicBool::new(false),
            handler: RefCell::new(None),
            calls: CallList::new(),
            deferred: List::new(),
        };
        Self {
            setup,
            cpus: (0..setup.cpus).map(state).collect(),
            started: Cell::new(CpuMask::EMPTY.with(CpuId::BOOT)),
            attending: loom::sync::Mutex::new(CpuMask::EMPTY),
            now_ns: Cell::new(0),
            blocked: RefCell::new(Vec::new()),
            memory: RefCell::new(Vec::new()),
        }
    }

    /// That of this execution.
    fn get() -> Rc<Self> {
        MACHINE.with_borrow(|machine| Rc::clone(machine.as_ref().expect("not within a model")))
    }

    /// Makes `cpu` started, or one that was not. `None`: there is none left.
    fn start(&self, cpu: Option<CpuId>) -> Option<CpuId> {
        let free = CpuMask::first_n(self.setup.cpus).difference(self.started.get());
        let cpu = match cpu {
            Some(cpu) => free.contains(cpu).then_some(cpu)?,
            None => free.first()?,
        };
        self.started.set(self.started.get().with(cpu));
        Some(cpu)
    }

    fn alloc(&self, layout: Layout) -> Option<usize> {
        let (whole, stride) = repeated(layout, self.setup.cpus)?;
        if whole.size() == 0 || stride >= 1 << BLOCK_SHIFT {
            return None;
        }
        // SAFETY: not of size 0.
        let base = NonNull::new(unsafe { std::alloc::alloc_zeroed(whole) })?;
        let mut memory = self.memory.borrow_mut();
        memory.push(Some(Block {
            base,
            whole,
            stride,
        }));
        Some(memory.len() << BLOCK_SHIFT)
    }

    fn free(&self, addr: usize) {
        let block = self.memory.borrow_mut()[(addr >> BLOCK_SHIFT) - 1].take();
        assert!(block.is_some(), "per-CPU memory is freed twice");
    }

    fn copy_on(&self, addr: usize, cpu: CpuId) -> NonNull<u8> {
        let memory = self.memory.borrow();
        let block = memory[(addr >> BLOCK_SHIFT) - 1]
            .as_ref()
            .expect("per-CPU memory is used after it was freed");
        let offset = addr & ((1 << BLOCK_SHIFT) - 1);
        assert!(offset < block.stride && cpu.index() < self.cpus.len());
        // SAFETY: within the block.
        unsafe { block.base.add(cpu.index() * block.stride + offset) }
    }
}

/// If the model wants so, stops this CPU, which has just found the lock at `lock` taken (no
/// access in between), until that is given back.
pub(crate) fn block_on(lock: usize) -> bool {
    let machine = Machine::get();
    if machine.setup.blocking {
        let own = loom::thread::current();
        machine.blocked.borrow_mut().push((lock, own));
        loom::thread::park();
    }
    machine.setup.blocking
}

/// The lock at `lock` has just been given back (no access in between).
pub(crate) fn unblock(lock: usize) {
    let machine = MACHINE.with_borrow(Option::clone);
    // Locks are also used in tests that are no model.
    let Some(machine) = machine else { return };
    machine.blocked.borrow_mut().retain(|(at, thread)| {
        if *at == lock {
            thread.unpark();
        }
        *at != lock
    });
}

/// The layout of `count` copies, and how far apart they lie.
fn repeated(layout: Layout, count: usize) -> Option<(Layout, usize)> {
    let stride = layout.pad_to_align().size();
    let whole = Layout::from_size_align(stride.checked_mul(count)?, layout.align()).ok()?;
    Some((whole, stride))
}

/// A CPU that was started.
#[must_use = "the model should wait for its end"]
pub struct Cpu {
    thread: Thread,
    end: loom::thread::JoinHandle<()>,
}

impl Cpu {
    /// Its thread.
    pub fn thread(&self) -> &Thread {
        &self.thread
    }

    /// Waits for the end of what it runs, and sees what it did.
    pub fn join(self) {
        let here = seam::here();
        seam::attend(here, false);
        self.end.join().expect("a CPU of the model panicked");
        seam::attend(here, true);
    }
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.thread.fmt(f)
    }
}

/// Starts CPU number `number`, which runs `body`.
///
/// # Panics
///
/// If there is no such CPU, or it was started already.
pub fn cpu(number: u32, body: impl FnOnce() + 'static) -> Cpu {
    let wanted = CpuId::new(number).expect("no such CPU");
    let started = Machine::get().start(Some(wanted));
    start(started.expect("no such CPU, or started already"), body)
}

/// Starts `cpu`, which is marked as started.
fn start(cpu: CpuId, body: impl FnOnce() + 'static) -> Cpu {
    let thread = Thread::new();
    let own = thread.clone();
    let body: Box<dyn FnOnce()> = Box::new(body);
    let end = loom::thread::spawn(move || {
        seam::enter(cpu, own);
        body();
        seam::leave();
    });
    Cpu { thread, end }
}

/// Gives the CPU that runs this a handler for its interrupt line. Costs an access at every
/// mark.
pub fn on_interrupt(handler: impl Fn() + 'static) {
    let machine = Machine::get();
    let state = &machine.cpus[seam::here().index()];
    *state.handler.borrow_mut() = Some(Rc::new(handler));
}

/// Raises the interrupt line of `cpu`. What came before is seen by its handler.
pub fn interrupt(cpu: CpuId) {
    Machine::get().cpus[cpu.index()].raise();
}
