//! Growing and shrinking per-CPU memory under the model checker: who frees only tries for the
//! growth mutex, and yet no chunk too many is kept; nobody gets what is another's or gone.

use std::{
    alloc::{Layout, alloc, dealloc},
    ops::Range,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize as Plain, Ordering::SeqCst},
    },
};

use mm::{
    percpu::{Backing, NoMemory, PerCpuMemory, UNIT},
    report::Report,
};
use platform::model::{self, Model, Setup};

const CHUNKS: usize = 5;
const CHUNK: Layout = match Layout::from_size_align(UNIT, 4096) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};
const META: Layout = match Layout::from_size_align(4096, 4096) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};

/// Which chunks there are. Not words of the checker's: they are looked at, not relied on.
#[derive(Default)]
struct Chunks([AtomicBool; CHUNKS]);

// SAFETY: pages are the host's; nobody uses the memory behind offsets.
unsafe impl Backing for Chunks {
    fn populate(&self, offsets: Range<usize>) -> Result<(), NoMemory> {
        let was = self.0[offsets.start / UNIT].swap(true, SeqCst);
        assert!(!was, "populated twice");
        Ok(())
    }

    unsafe fn depopulate(&self, offsets: Range<usize>) {
        let was = self.0[offsets.start / UNIT].swap(false, SeqCst);
        assert!(was, "not populated");
    }

    unsafe fn clear(&self, offsets: Range<usize>) {
        assert!(self.0[offsets.start / UNIT].load(SeqCst), "not populated");
    }

    fn alloc_meta(&self) -> Option<NonNull<u8>> {
        // SAFETY: not of size 0.
        NonNull::new(unsafe { alloc(META) })
    }

    unsafe fn free_meta(&self, page: NonNull<u8>) {
        // SAFETY: allocated so.
        unsafe { dealloc(page.as_ptr(), META) };
    }

    fn reclaim(&self) -> bool {
        false
    }

    fn report(&self, report: &Report<'_>) {
        panic!("{report}");
    }
}

type Memory = PerCpuMemory<Model, Chunks, CHUNKS>;

/// With so many chunks of which everything is allocated, beside the first, of which nothing
/// can be.
fn memory(chunks: usize) -> (Arc<Memory>, Vec<usize>) {
    let memory = Memory::new(Chunks::default());
    memory.start(UNIT);
    let all = (0..chunks).map(|_| memory.alloc(CHUNK).unwrap()).collect();
    (Arc::new(memory), all)
}

fn free(memory: &Memory, offset: usize) {
    // SAFETY: allocated so, and not used.
    unsafe { memory.free(offset, CHUNK) };
}

/// All is freed, and there is one chunk at most that is kept.
fn check_end(memory: &Memory, allocated: usize) {
    let stats = memory.audit().unwrap();
    assert_eq!(stats.allocations, allocated);
    assert!(stats.empty <= 1, "a chunk too many was forgotten");
    let there = memory.backing().0.iter().filter(|chunk| chunk.load(SeqCst));
    assert_eq!(there.count(), stats.chunks - 1);
}

fn setup() -> Setup {
    Setup::new(2).blocking_locks().preemptions(3)
}

/// One grows while the other frees two chunks.
#[test]
fn no_surplus_is_forgotten_by_who_grows() {
    let grew: &'static [Plain; 2] = Box::leak(Box::default());
    setup().check(move || {
        let (memory, all) = memory(2);
        let other = Arc::clone(&memory);
        let cpu = model::cpu(1, move || {
            all.iter().for_each(|offset| free(&other, *offset))
        });
        let offset = memory.alloc(CHUNK).unwrap();
        cpu.join();
        check_end(&memory, 1);
        let grown = usize::from(offset / UNIT == 3);
        grew[grown].fetch_add(1, SeqCst);
        free(&memory, offset);
        memory.trim();
        assert_eq!(memory.stats().chunks, 1);
    });
    let [reused, grown] = [0, 1].map(|index| grew[index].load(SeqCst));
    assert!(reused > 0 && grown > 0, "{reused} reused, {grown} grown");
}

/// Both free, and each finds the other at work.
#[test]
fn no_surplus_is_forgotten_by_who_frees() {
    setup().check(|| {
        let (memory, all) = memory(4);
        let (mine, others) = all.split_at(2);
        let (other, others) = (Arc::clone(&memory), others.to_vec());
        let cpu = model::cpu(1, move || {
            others.iter().for_each(|offset| free(&other, *offset))
        });
        mine.iter().for_each(|offset| free(&memory, *offset));
        cpu.join();
        check_end(&memory, 0);
        memory.trim();
        assert_eq!(memory.stats().chunks, 1);
    });
}

/// Both need a chunk: each gets one, and none is made twice.
#[test]
fn two_grow() {
    setup().check(|| {
        let (memory, _) = memory(0);
        let other = Arc::clone(&memory);
        let result = Arc::new(Plain::new(0));
        let there = Arc::clone(&result);
        let cpu = model::cpu(1, move || {
            there.store(other.alloc(CHUNK).unwrap(), SeqCst);
        });
        let mine = memory.alloc(CHUNK).unwrap();
        cpu.join();
        let others = result.load(SeqCst);
        assert_ne!(mine, others);
        check_end(&memory, 2);
        free(&memory, mine);
        free(&memory, others);
        memory.trim();
    });
}
