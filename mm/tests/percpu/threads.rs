//! Threads on several CPUs, with interrupts that use it, too.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use mm::percpu::UNIT;
use platform::hosted::Machine;

use crate::memory::{HostMemory, Memory, PAGE, audited, layout, rounds};

/// A plain generator, so that threads do not share one.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Each thread holds some memory, marked as its own, and checks it before it goes. Chunks
/// come and go all the time, some allocations find no page, and handlers allocate, too.
#[test]
fn threads_do_not_meet() {
    let rounds = rounds(100_000, 2_000);
    for (cpus, seed) in [(1, 1), (2, 2), (4, 3)] {
        let machine = Machine::builder().cpus(cpus).seed(seed).build();
        let memory = Arc::new(Memory::new(HostMemory::new(cpus)));
        machine.run(|| memory.start(UNIT - 4096));
        let (refused, in_handler) = (AtomicUsize::new(0), Arc::new(AtomicU64::new(0)));
        // Less than a chunk for each CPU.
        let chunk = UNIT / PAGE * cpus + 1;
        let most = if cpus == 1 { chunk } else { (cpus - 1) * chunk };
        memory.backing().pages_left.store(most, Ordering::Relaxed);
        let (there, count) = (Arc::clone(&memory), Arc::clone(&in_handler));
        let noise = machine.on_interrupt(50, move || {
            if let Some(offset) = there.alloc_atomic(layout(64, 16)) {
                there.backing().check_zero(offset..offset + 64);
                there.backing().write(offset..offset + 64, 0xee);
                // SAFETY: allocated so.
                unsafe { there.free(offset, layout(64, 16)) };
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        machine.run_on_all(|cpu| {
            let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (cpu.index() as u64 + 1) << 20);
            let mut held: VecDeque<(usize, usize)> = VecDeque::new();
            let tag = 16 * cpu.index() as u8 + 1;
            for round in 0..rounds {
                // Tides, so that chunks become empty.
                let full = 2 + 46 * (round / 50 % 2);
                while held.len() >= full {
                    let (offset, size) = held.pop_front().unwrap();
                    memory.backing().check(offset..offset + size, tag);
                    // SAFETY: allocated so.
                    unsafe { memory.free(offset, layout(size, 16)) };
                }
                let size = 16 + random.below(if round % 8 == 0 { 8_000 } else { 600 });
                match memory.alloc(layout(size, 16 << random.below(3))) {
                    Some(offset) => {
                        memory.backing().check_zero(offset..offset + size);
                        memory.backing().write(offset..offset + size, tag);
                        held.push_back((offset, size));
                    }
                    None => {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
                if round % 64 == 0 {
                    memory.trim();
                    memory.audit().unwrap();
                }
            }
            for (offset, size) in held {
                memory.backing().check(offset..offset + size, tag);
                // SAFETY: allocated so.
                unsafe { memory.free(offset, layout(size, 16)) };
            }
        });
        drop(noise);
        machine.run(|| {
            let stats = audited(&memory).unwrap();
            assert_eq!((stats.used, stats.allocations), (0, 0));
            assert!(stats.empty <= 1, "a surplus was forgotten: {stats:?}");
            memory.trim();
            assert_eq!(memory.backing().pages(), 0);
            assert_eq!(memory.backing().pages_left.load(Ordering::Relaxed), most);
        });
        assert!(in_handler.load(Ordering::Relaxed) > 0);
        let refused = refused.load(Ordering::Relaxed);
        assert!(refused > 0 || cpus == 1, "there was always memory");
        assert_eq!(*memory.backing().reports.lock().unwrap(), [""; 0]);
    }
}
