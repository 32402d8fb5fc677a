//! The kernel's vmalloc range ([`mm::vmalloc`]): there from [`init`] on.
//!
//! What is freed where nobody may sleep (the stack of a thread that has ended, say) is freed
//! by the thread `vmalloc`. It is woken through deferred work, since such a free may come
//! from an NMI.

use core::{
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
};

use mm::{
    Mm,
    vmalloc::{self, Source, Vmalloc, lazy_limit},
};
use platform::deferred::Deferred;
use spin::Once;

use crate::{
    machine::{Kernel, memory::AddressLayout},
    sched::{self, Thread},
    smp,
};

/// The range's type.
pub type KernelVmalloc = Vmalloc<Kernel, &'static Mm<Kernel>>;
/// An area of it.
pub type Area = vmalloc::Area<'static, Kernel, &'static Mm<Kernel>>;

static VMALLOC: Once<KernelVmalloc> = Once::new();
/// The thread; null before there is one, then for ever.
static THREAD: AtomicPtr<Thread> = AtomicPtr::new(ptr::null_mut());
static WAKE: Deferred<()> = Deferred::new((), |_| wake());

/// The range. Only after [`init`].
pub fn vmalloc() -> &'static KernelVmalloc {
    try_vmalloc().expect("vmalloc is used before vmalloc::init")
}

/// The range, once it is there.
pub fn try_vmalloc() -> Option<&'static KernelVmalloc> {
    VMALLOC.get()
}

/// Makes the range. In the first thread, before other CPUs run.
pub fn init() {
    let mm = super::mm();
    let limit = lazy_limit(smp::cpus().count(), mm.total());
    let kick = || _ = WAKE.queue::<Kernel>();
    let range = Vmalloc::new(AddressLayout, mm, limit, kick);
    VMALLOC.call_once(|| range.expect("no memory for vmalloc's descriptors"));
    if mm.register_shrinker(vmalloc()).is_err() {
        log::warn!("vmalloc: no room for its shrinker");
    }
}

/// Starts the thread that frees what others may not.
pub fn start_thread() {
    let thread = sched::Builder::new()
        .spawn(format_args!("vmalloc"), serve)
        .unwrap_or_else(|error| panic!("vmalloc: {error}"));
    thread.detach();
}

fn wake() {
    // Acquire pairs with the Release in `serve`.
    let thread = THREAD.load(Ordering::Acquire);
    // SAFETY: the thread never ends. Before it exists what is freed waits for it.
    if let Some(thread) = unsafe { thread.as_ref() } {
        sched::unpark(thread);
    }
}

fn serve() {
    // Leaked: the pointer in THREAD is for ever.
    let own = core::mem::ManuallyDrop::new(sched::current_ref());
    THREAD.store(ptr::from_ref::<Thread>(&own).cast_mut(), Ordering::Release);
    loop {
        vmalloc().drain();
        sched::park();
    }
}
