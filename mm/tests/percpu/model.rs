//! Random operations against a plain map of what is allocated.

use std::collections::BTreeMap;

use mm::percpu::{GRANULE, UNIT};
use proptest::prelude::*;

use crate::memory::{CHUNKS, Memory, PAGE, audited, layout, machine};

const LIMIT: usize = CHUNKS * UNIT;

#[derive(Debug, Clone)]
enum Op {
    Alloc {
        size: usize,
        align: usize,
        atomic: bool,
    },
    /// One of those that are allocated.
    Free(prop::sample::Index),
    FreeWrongly(prop::sample::Index, usize),
    Trim,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let size = prop_oneof![
        8 => 0..200_usize,
        4 => 200..5_000_usize,
        1 => UNIT - 100..=UNIT + 1,
    ];
    let alloc = (size, 0..14_u32, any::<bool>());
    let alloc = alloc.prop_map(|(size, align, atomic)| Op::Alloc {
        size,
        align: 1 << align.saturating_sub(1),
        atomic,
    });
    let op = prop_oneof![
        12 => alloc,
        11 => any::<prop::sample::Index>().prop_map(Op::Free),
        1 => (any::<prop::sample::Index>(), 1..64_usize).prop_map(|(at, by)| Op::FreeWrongly(at, by)),
        1 => Just(Op::Trim),
    ];
    prop::collection::vec(op, 1..200)
}

/// Start of an allocation, and the size asked for, and what it was filled with.
type Model = BTreeMap<usize, (usize, u8)>;

fn rounded(size: usize) -> usize {
    size.max(1).next_multiple_of(GRANULE)
}

/// Whether some run of free offsets below `limit` takes the request. Of what is not
/// populated all is free, but no allocation lies in two chunks.
fn fits(model: &Model, reserved: usize, chunks: &[bool], size: usize, align: usize) -> bool {
    let size = rounded(size);
    (0..CHUNKS).filter(|chunk| chunks[*chunk]).any(|chunk| {
        let (mut at, end) = (chunk * UNIT, (chunk + 1) * UNIT);
        if chunk == 0 {
            at = reserved;
        }
        for (&start, &(used, _)) in model.range(chunk * UNIT..end) {
            if at.next_multiple_of(align) + size <= start {
                return true;
            }
            at = start + rounded(used);
        }
        at.next_multiple_of(align) + size <= end
    })
}

fn step(memory: &Memory, model: &mut Model, reserved: usize, op: &Op, tag: u8) {
    match *op {
        Op::Alloc {
            size,
            align,
            atomic,
        } => {
            let before = memory.stats();
            let layout = layout(size, align);
            let offset = if atomic {
                memory.alloc_atomic(layout)
            } else {
                memory.alloc(layout)
            };
            let possible = size <= UNIT && align <= PAGE;
            let Some(offset) = offset else {
                // Which chunks are populated is not told; those with something in them are.
                let chunks: Vec<bool> = (0..CHUNKS)
                    .map(|chunk| {
                        let unit = chunk * UNIT..(chunk + 1) * UNIT;
                        !atomic || chunk == 0 || model.range(unit).next().is_some()
                    })
                    .collect();
                assert!(
                    !possible || !fits(model, reserved, &chunks, size, align),
                    "refused although there is room"
                );
                assert_eq!(memory.stats(), before);
                return;
            };
            assert!(possible && offset.is_multiple_of(align) && offset >= reserved);
            let end = offset + rounded(size);
            assert!(end <= LIMIT && offset / UNIT == (end - 1) / UNIT);
            let below = model.range(..end).next_back();
            assert!(
                below.is_none_or(|(&start, &(used, _))| start + rounded(used) <= offset),
                "{offset:#x} is in use"
            );
            if atomic {
                assert_eq!(memory.stats().chunks, before.chunks, "atomic, but grew");
            }
            memory.backing().check_zero(offset..end);
            memory.backing().write(offset..end, tag);
            model.insert(offset, (size, tag));
        }
        Op::Free(index) => {
            if model.is_empty() {
                return;
            }
            let (&offset, &(size, tag)) = model.iter().nth(index.index(model.len())).unwrap();
            memory.backing().check(offset..offset + rounded(size), tag);
            model.remove(&offset);
            // SAFETY: allocated so, and used no more.
            unsafe { memory.free(offset, layout(size, 1)) };
        }
        Op::FreeWrongly(index, by) => {
            if model.is_empty() {
                return;
            }
            let (&offset, &(size, _)) = model.iter().nth(index.index(model.len())).unwrap();
            let reports = || memory.backing().reports.lock().unwrap().len();
            let before = reports();
            // SAFETY: refused.
            unsafe {
                memory.free(offset, layout(rounded(size) + by, 1));
                memory.free(offset + 1, layout(size, 1));
                if rounded(size) > GRANULE {
                    memory.free(offset + GRANULE, layout(size, 1));
                    memory.free(offset, layout(rounded(size) - GRANULE, 1));
                }
            }
            let wrong = if rounded(size) > GRANULE { 4 } else { 2 };
            assert_eq!(reports() - before, wrong);
        }
        Op::Trim => {
            memory.trim();
            assert_eq!(memory.stats().empty, 0);
        }
    }
}

proptest! {
    #[test]
    fn behaves_like_the_model(ops in ops(), reserved in 0..=UNIT, cpus in 1..=4_usize) {
        let (machine, memory) = machine(cpus, 1, reserved);
        let reserved = reserved.next_multiple_of(GRANULE);
        machine.run(|| {
            let mut model = Model::new();
            for (index, op) in ops.iter().enumerate() {
                step(&memory, &mut model, reserved, op, index as u8);
                let stats = audited(&memory).unwrap();
                let used: usize = model.values().map(|(size, _)| rounded(*size)).sum();
                assert_eq!((stats.used, stats.allocations), (used, model.len()));
                assert!(stats.empty <= 1, "more chunks are kept than one");
            }
            for (offset, (size, tag)) in model {
                memory.backing().check(offset..offset + rounded(size), tag);
                // SAFETY: allocated so, and used no more.
                unsafe { memory.free(offset, layout(size, 1)) };
            }
            let stats = audited(&memory).unwrap();
            assert_eq!((stats.used, stats.allocations), (0, 0));
            assert!(stats.chunks <= 2);
            memory.trim();
            assert_eq!(audited(&memory).unwrap().chunks, 1);
            assert_eq!(memory.backing().pages(), 0);
        });
    }
}

/// The chunk is given back when it is empty, but one is kept.
#[test]
fn chunks_come_and_go() {
    let (machine, memory) = machine(2, 1, UNIT);
    machine.run(|| {
        let unit = layout(UNIT, PAGE);
        assert_eq!(
            memory.alloc_atomic(layout(1, 1)),
            None,
            "nothing is populated"
        );
        let [a, b, c] = [(); 3].map(|()| memory.alloc(unit).unwrap());
        assert_eq!(audited(&memory).unwrap().chunks, 4);
        let free = |offset| {
            // SAFETY: allocated so.
            unsafe { memory.free(offset, unit) };
            let stats = audited(&memory).unwrap();
            (stats.chunks, stats.empty)
        };
        assert_eq!(free(b), (4, 1));
        // It is the kept one that serves.
        assert_eq!(memory.alloc_atomic(unit), Some(b));
        assert_eq!(free(b), (4, 1));
        assert_eq!(free(a), (3, 1));
        assert_eq!(free(c), (2, 1));
        assert_eq!(memory.trim(), UNIT / PAGE);
        assert_eq!(memory.trim(), 0);
        assert_eq!(memory.backing().pages(), 0);
    });
}

#[test]
fn too_much_is_refused() {
    let (machine, memory) = machine(1, 1, 0);
    machine.run(|| {
        assert_eq!(memory.alloc(layout(UNIT + 1, 1)), None);
        assert_eq!(memory.alloc(layout(1, 2 * PAGE)), None);
        let all: Vec<_> = std::iter::from_fn(|| memory.alloc(layout(UNIT, 16))).collect();
        assert_eq!(all.len(), CHUNKS);
        assert_eq!(memory.alloc(layout(1, 1)), None, "all offsets are in use");
        for offset in all {
            // SAFETY: allocated so.
            unsafe { memory.free(offset, layout(UNIT, 16)) };
        }
        assert_eq!(audited(&memory).unwrap().chunks, 2);
    });
}

#[test]
fn nothing_before_the_start() {
    let machine = platform::hosted::Machine::builder().build();
    let memory = Memory::new(crate::memory::HostMemory::new(1));
    machine.run(|| {
        assert_eq!(memory.alloc_atomic(layout(1, 1)), None);
        assert_eq!(memory.alloc(layout(1, 1)), None);
        memory.start(100);
        assert_eq!(memory.alloc_atomic(layout(1, 1)), Some(112));
    });
}
