//! Engines without memory: none is made, and nothing is left over.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    ptr::null_mut,
};

use platform::{
    Platform,
    hosted::{Hosted, Machine},
};
use rcu::{Config, Rcu};

thread_local! {
    /// How many blocks there are yet for this thread; `None`: enough.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    /// Allocations of this thread that have not been given back.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

/// The host's memory, of which a test can have too little.
struct Scarce;

// SAFETY: the host's allocator, which sometimes has no memory.
unsafe impl GlobalAlloc for Scarce {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match LEFT.get() {
            Some(0) => return null_mut(),
            Some(left) => LEFT.set(Some(left - 1)),
            None => {}
        }
        HELD.set(HELD.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - 1);
        LEFT.set(LEFT.get().map(|left| left + 1));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) };
    }
}

#[global_allocator]
static SCARCE: Scarce = Scarce;

fn config() -> Config {
    Config {
        leaf_fanout: 2,
        fanout: 2,
        ..Config::default()
    }
}

/// With blocks for none, one, and so on, until it is enough.
#[test]
fn an_engine_without_memory_is_none() {
    let machine = Machine::builder().cpus(8).build();
    machine.run(|| {
        // What the machine itself takes it has before.
        let first = Hosted::percpu_alloc(Layout::new::<u64>()).unwrap();
        // SAFETY: nothing is read under it.
        drop(unsafe { Rcu::<Hosted>::try_new(config()) });
        let mut failed = 0;
        loop {
            let held = HELD.get();
            LEFT.set(Some(failed));
            // SAFETY: as above.
            let rcu = unsafe { Rcu::<Hosted>::try_new(config()) };
            LEFT.set(None);
            if rcu.is_some() {
                break;
            }
            assert_eq!(HELD.get(), held, "with {failed} blocks");
            failed += 1;
        }
        assert!(failed >= 4, "{failed} blocks are not enough");
        // SAFETY: allocated so, and not used.
        unsafe { Hosted::percpu_free(first, Layout::new::<u64>()) };
    });
    // The machine's end sees that no per-CPU memory is left over.
}

/// The same with per-CPU memory.
#[test]
fn an_engine_without_per_cpu_memory_is_none() {
    let engines = |bytes| {
        let machine = Machine::builder().cpus(2).percpu_bytes(bytes).build();
        machine.run(|| {
            let held = HELD.get();
            // SAFETY: as above.
            let made = unsafe { Rcu::<Hosted>::try_new(config()) }.is_some();
            (made, HELD.get() - held)
        })
    };
    assert_eq!(engines(64), (false, 0));
    assert!(engines(1 << 16).0);
}
