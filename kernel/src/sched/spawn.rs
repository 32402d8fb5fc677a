//! New threads.

use alloc::{boxed::Box, sync::Arc};
use core::{cell::UnsafeCell, fmt, mem::MaybeUninit};

use platform::{Context, CpuId, CpuMask, Priority, SpawnError};

use super::{
    exit,
    run_queue::{self, Place},
    stack_pool::ThreadStack,
    switch, table,
    thread::{Entry, Thread, ThreadRef},
};
use crate::{
    arch::{context, irq, preempt, stacks},
    heap, lockdep, smp,
};

/// What a new thread shall be.
#[derive(Debug, Clone, Copy)]
pub struct Builder {
    pub(super) allowed: CpuMask,
    pub(super) priority: Priority,
    pub(super) stays: bool,
}

/// A thread to be joined, and the value that it ends with. Dropped unjoined, the thread goes
/// on alone.
#[derive(Debug)]
#[must_use = "a thread that nobody joins goes on alone: say so by `detach`"]
pub struct JoinHandle<T> {
    thread: ThreadRef,
    result: Arc<Packet<T>>,
}

/// Where a thread leaves its value.
struct Packet<T>(UnsafeCell<MaybeUninit<Option<T>>>);

// SAFETY: written by the thread before its end is told, read by the joiner after that.
unsafe impl<T: Send> Send for Packet<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Packet<T> {}

impl<T> fmt::Debug for Packet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Packet")
    }
}

impl<T> Drop for Packet<T> {
    fn drop(&mut self) {
        // SAFETY: initialised by `spawn`, and taken out by nobody else any more.
        unsafe { self.0.get_mut().assume_init_drop() };
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            allowed: CpuMask::ALL,
            priority: Priority::Normal,
            stays: false,
        }
    }
}

impl Builder {
    /// A thread that runs anywhere, of normal priority.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bound to one CPU. While that is offline the thread runs elsewhere.
    pub fn on(self, cpu: CpuId) -> Self {
        self.among(CpuMask::only(cpu))
    }

    /// May run on these only.
    pub fn among(mut self, allowed: CpuMask) -> Self {
        self.allowed = allowed;
        self
    }

    /// Bound to one CPU, and does not run while that is offline. For a CPU's own threads, which
    /// nobody waits for then.
    pub fn stays_on(mut self, cpu: CpuId) -> Self {
        self.stays = true;
        self.on(cpu)
    }

    /// Its priority.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// What idle threads are.
    pub(super) fn idle(cpu: CpuId) -> Self {
        Self::new().stays_on(cpu).priority(Priority::Low)
    }

    /// Starts a thread that runs `f`. Task context, may sleep.
    ///
    /// # Errors
    ///
    /// [`SpawnError`]; nothing is left behind.
    pub fn spawn<T: Send + 'static>(
        self,
        name: fmt::Arguments<'_>,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, SpawnError> {
        let result = heap::try_arc(Packet(UnsafeCell::new(MaybeUninit::new(None))))
            .ok_or(SpawnError::OutOfMemory)?;
        let for_thread = Arc::clone(&result);
        let thread = self.spawn_boxed(
            name,
            boxed(move || {
                let value = f();
                // SAFETY: the joiner looks only after the thread's end was told.
                unsafe { (*for_thread.0.get()).write(Some(value)) };
            })?,
        )?;
        Ok(JoinHandle { thread, result })
    }

    fn spawn_boxed(self, name: fmt::Arguments<'_>, entry: Entry) -> Result<ThreadRef, SpawnError> {
        let allowed = self.allowed.intersection(smp::active());
        if allowed.is_empty() {
            let cpu = self.allowed.first().unwrap_or(CpuId::BOOT);
            return Err(SpawnError::Offline(cpu));
        }
        let stack = ThreadStack::take().ok_or(SpawnError::OutOfMemory)?;
        let top = stack.memory().top;
        let own = smp::this_cpu();
        let cpu = if allowed.contains(own) {
            own
        } else {
            allowed.first().unwrap_or(own)
        };
        let thread = Thread::new(table::next_id(), name, Some(stack), self, cpu, Some(entry))
            .ok_or(SpawnError::OutOfMemory)?;
        // SAFETY: the stack is the new thread's alone, mapped and aligned; nobody runs it
        // yet.
        unsafe { *thread.saved_rsp.get() = context::prepare(top, begin) };
        table::insert(&thread)?;
        let handle = ThreadRef(thread);
        preempt::disable();
        // The thread is on no queue, and its registers are as if saved.
        run_queue::make_ready(&handle, Place::Last);
        preempt::enable();
        Ok(handle)
    }
}

fn boxed(f: impl FnOnce() + Send + 'static) -> Result<Entry, SpawnError> {
    let entry: Entry = heap::try_box(f).ok_or(SpawnError::OutOfMemory)?;
    Ok(entry)
}

impl<T> JoinHandle<T> {
    /// The thread.
    pub fn thread(&self) -> &ThreadRef {
        &self.thread
    }

    /// Waits for the thread's end. Its value; its stack is back by then. Task context.
    pub fn join(self) -> T {
        exit::wait_for(&self.thread, None);
        self.take()
    }

    /// [`join`](Self::join), at most until `deadline_ns`.
    ///
    /// # Errors
    ///
    /// The handle again, if the thread has not ended by then.
    pub fn join_until(self, deadline_ns: u64) -> Result<T, Self> {
        if exit::wait_for(&self.thread, Some(deadline_ns)) {
            Ok(self.take())
        } else {
            Err(self)
        }
    }

    /// Lets the thread go on alone.
    pub fn detach(self) {}

    fn take(self) -> T {
        // SAFETY: the thread's end has been told (and seen, by the lock around it), so it
        // does not write any more, and this handle is the only reader.
        let value = unsafe { (*self.result.0.get()).assume_init_mut().take() };
        value.expect("a thread that ended left its value")
    }
}

/// Where a new thread begins: on its own stack, interrupts off, preemption off once.
extern "C" fn begin() -> ! {
    switch::finish();
    irq::enable();
    preempt::enable();
    // SAFETY: only the thread itself takes its entry, here, once.
    let entry = unsafe { (*switch::current().entry.get()).take() };
    entry.expect("a thread begins once")();
    lockdep::check_empty(Context::Task);
    switch::end()
}

/// Makes the code that runs now a thread: `name`, on the stack that it has.
pub(super) fn adopt(name: fmt::Arguments<'_>, cpu: CpuId, be: Builder) -> Arc<Thread> {
    let thread = Thread::new(table::next_id(), name, None, be, cpu, None)
        .expect("no memory for a CPU's first thread");
    table::insert(&thread).expect("no memory for a CPU's first thread");
    switch::adopt(&thread);
    thread
}

/// A thread that no queue holds: a CPU's idle thread, when another one has the CPU's stack.
pub(super) fn aside(
    name: fmt::Arguments<'_>,
    cpu: CpuId,
    f: Box<dyn FnOnce() + Send>,
) -> Arc<Thread> {
    let stack = stacks::allocate(stacks::Use::Idle, cpu);
    let top = stack.expect("no memory for an idle thread's stack").top;
    let thread = Thread::new(
        table::next_id(),
        name,
        None,
        Builder::idle(cpu),
        cpu,
        Some(f),
    )
    .expect("no memory for an idle thread");
    // SAFETY: as in `spawn_boxed`.
    unsafe { *thread.saved_rsp.get() = context::prepare(top, begin) };
    table::insert(&thread).expect("no memory for an idle thread");
    thread
}
