//! A CPU's main sheaf under a model checker: its thread allocates and frees, and an
//! interrupt that comes anywhere does so, too, or goes without the sheaf. No object is lost or doubled.

use std::{
    alloc::{Layout, alloc, dealloc},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicUsize as Plain, Ordering::SeqCst},
    },
};

use mm::slab::sheaf::Sheaf;
use platform::{
    CpuId, Mark, Platform,
    lock::LocalLock,
    lock_class,
    model::{self, Model, Setup},
    percpu::PerCpu,
};

lock_class! {
    struct Sheaves = ("slab sheaves", 81);
}

/// Objects of the sheaf.
const CAPACITY: u32 = 2;
const SHEAF: Layout = match Layout::from_size_align(Sheaf::bytes(CAPACITY), 8) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};

/// What the lock protects, as in a cache.
struct Main(NonNull<Sheaf>);

// SAFETY: its owner has the lock.
unsafe impl Send for Main {}

struct Cache {
    cpus: PerCpu<LocalLock<Main, Model, Sheaves>, Model>,
    /// Objects that are nobody's: the slab behind the sheaf.
    slab: loom::sync::Mutex<Vec<usize>>,
}

fn object(number: usize) -> NonNull<u8> {
    NonNull::without_provenance((number * 8).try_into().expect("not 0"))
}

impl Cache {
    fn new(objects: usize) -> Arc<Self> {
        let main = |_| {
            // SAFETY: not of size 0, and as large as said.
            let sheaf = unsafe { Sheaf::init(NonNull::new(alloc(SHEAF)).unwrap(), CAPACITY) };
            LocalLock::new(Main(sheaf))
        };
        let cache = Self {
            cpus: PerCpu::try_new(main).expect("memory"),
            slab: loom::sync::Mutex::new(Vec::new()),
        };
        for number in 1..=objects {
            assert!(cache.free(object(number)), "there is room");
        }
        Arc::new(cache)
    }

    /// As [`KmemCache::alloc`](mm::slab::KmemCache::alloc), and whether it met the lock taken.
    fn alloc(&self) -> (Option<NonNull<u8>>, bool) {
        let Some(main) = self.cpus.try_lock_here() else {
            return (self.slab.lock().unwrap().pop().map(object), true);
        };
        // SAFETY: the lock is held.
        let popped = unsafe {
            let len = Sheaf::len(main.0);
            Model::mark(Mark::Step);
            assert_eq!(Sheaf::len(main.0), len, "somebody else is inside");
            Sheaf::pop(main.0)
        };
        (popped, false)
    }

    /// As [`KmemCache::free`](mm::slab::KmemCache::free). Whether it went into the sheaf.
    fn free(&self, object: NonNull<u8>) -> bool {
        if let Some(main) = self.cpus.try_lock_here() {
            // SAFETY: the lock is held.
            if unsafe { Sheaf::push(main.0, object) } {
                return true;
            }
        }
        self.slab.lock().unwrap().push(object.addr().get() / 8);
        false
    }

    /// The objects in sheaf and slab, each once.
    fn check(&self, count: usize) {
        let mut found: Vec<_> = self.slab.lock().unwrap().clone();
        let main = self
            .cpus
            .try_lock_here()
            .expect("no interrupt leaves it taken");
        // SAFETY: the lock is held.
        found.extend(
            unsafe { Sheaf::filled(main.0) }
                .iter()
                .map(|object| object.addr().get() / 8),
        );
        found.sort_unstable();
        assert_eq!(found, Vec::from_iter(1..=count));
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        for (_, lock) in self.cpus.iter_mut() {
            let sheaf = lock.get_mut().0;
            // SAFETY: allocated so.
            unsafe { dealloc(sheaf.as_ptr().cast(), SHEAF) };
        }
    }
}

#[test]
fn an_interrupt_goes_without_the_sheaf() {
    static TAKEN: Plain = Plain::new(0);
    static FREE: Plain = Plain::new(0);
    static BETWEEN: Plain = Plain::new(0);
    Setup::new(2).check(|| {
        let cache = Cache::new(2);
        let handled = Arc::clone(&cache);
        model::on_interrupt(move || {
            let (object, met) = handled.alloc();
            if met {
                TAKEN.fetch_add(1, SeqCst);
            } else {
                FREE.fetch_add(1, SeqCst);
            }
            if let Some(object) = object {
                handled.free(object);
            }
        });
        let other = model::cpu(1, || model::interrupt(CpuId::BOOT));
        if let (Some(object), _) = cache.alloc() {
            Model::mark(Mark::Step);
            if !cache.free(object) {
                BETWEEN.fetch_add(1, SeqCst);
            }
        }
        other.join();
        Model::mark(Mark::Step);
        cache.check(2);
    });
    assert!(TAKEN.load(SeqCst) > 0, "the lock was never met taken");
    assert!(FREE.load(SeqCst) > 0, "the lock was never met free");
    assert_eq!(
        BETWEEN.load(SeqCst),
        0,
        "the handler gives back what it took"
    );
}
