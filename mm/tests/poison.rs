//! Poison: the pattern, what is found in it, and when pages are compared.

use mm::{
    Gfp, Pfn, Use,
    debug::Debug,
    frame::{FrameMap, PAGE_SIZE},
    hosted::{HostedLayout, Memory},
    poison::{self, Damage, PATTERN},
};
use platform::hosted::{Hosted, Machine};
use proptest::prelude::*;

/// Memory as aligned as pages are.
#[repr(align(4096))]
struct Page([u8; PAGE_SIZE]);

fn filled() -> Box<Page> {
    let mut page = Box::new(Page([0; PAGE_SIZE]));
    // SAFETY: our own.
    unsafe { poison::fill(page.0.as_mut_ptr(), PAGE_SIZE) };
    page
}

fn check(page: &Page) -> Result<(), Damage> {
    // SAFETY: readable and aligned.
    unsafe { poison::check(page.0.as_ptr(), PAGE_SIZE) }
}

#[test]
fn every_byte_is_filled_and_compared() {
    let mut page = filled();
    assert_eq!(check(&page), Ok(()));
    for at in 0..PAGE_SIZE {
        assert_eq!(page.0[at], PATTERN);
        page.0[at] = 0;
        let damage = check(&page).unwrap_err();
        assert_eq!((damage.offset, damage.last), (at as u32, at as u32));
        assert_eq!((damage.bytes, damage.flipped), (1, None));
        page.0[at] = PATTERN;
    }
    assert_eq!(check(&page), Ok(()));
}

#[test]
fn lengths_that_are_no_steps_are_compared_to_the_end() {
    let mut page = filled();
    for bytes in (8..=256).step_by(8) {
        // SAFETY: a part of the page.
        let check = |page: &Page| unsafe { poison::check(page.0.as_ptr(), bytes) };
        assert_eq!(check(&page), Ok(()));
        page.0[bytes - 1] = 1;
        assert_eq!(check(&page).unwrap_err().offset, bytes as u32 - 1);
        page.0[bytes - 1] = PATTERN;
        page.0[bytes] = 1;
        assert_eq!(check(&page), Ok(()));
        page.0[bytes] = PATTERN;
    }
}

#[test]
fn a_flipped_bit_is_named() {
    let mut page = filled();
    for bit in 0..8 {
        page.0[100] = PATTERN ^ 1 << bit;
        assert_eq!(check(&page).unwrap_err().flipped, Some(bit));
    }
    page.0[100] = PATTERN ^ 3;
    assert_eq!(check(&page).unwrap_err().flipped, None);
    // Two bytes with a bit each are two bits.
    page.0[100] = PATTERN ^ 1;
    page.0[3000] = PATTERN ^ 1;
    assert_eq!(check(&page).unwrap_err().flipped, None);
}

#[test]
fn damage_is_described() {
    let mut page = filled();
    page.0[0x123..0x126].copy_from_slice(&[1, 2, 3]);
    page.0[0xffe] = 0;
    assert_eq!(
        check(&page).unwrap_err().to_string(),
        "expected 0xaa, 4 bytes are not, the first at offset 0x123, the last at 0xffe\n  \
         0110: aa aa aa aa aa aa aa aa aa aa aa aa aa aa aa aa\n  \
         0120: aa aa aa 01 02 03 aa aa aa aa aa aa aa aa aa aa\n  \
         0130: aa aa aa aa aa aa aa aa aa aa aa aa aa aa aa aa\n  \
         0140: aa aa aa aa aa aa aa aa aa aa aa aa aa aa aa aa"
    );
    let mut page = filled();
    page.0[0xfff] = 0xa8;
    assert_eq!(
        check(&page).unwrap_err().to_string(),
        "expected 0xaa, 1 byte is not, the first at offset 0xfff; a single bit, 1, is flipped\n  \
         0fe0: aa aa aa aa aa aa aa aa aa aa aa aa aa aa aa aa\n  \
         0ff0: aa aa aa aa aa aa aa aa aa aa aa aa aa aa aa a8"
    );
    let mut page = filled();
    page.0[3] = 0;
    let text = check(&page).unwrap_err().to_string();
    assert!(text.contains("\n  0000: aa aa aa 00 aa"), "{text}");
}

proptest! {
    #[test]
    fn any_damage_is_counted(
        changes in prop::collection::btree_map(0..PAGE_SIZE, 1..=255u8, 0..40)
    ) {
        let mut page = filled();
        for (at, change) in &changes {
            page.0[*at] ^= change;
        }
        match check(&page) {
            Ok(()) => prop_assert!(changes.is_empty()),
            Err(damage) => {
                prop_assert_eq!(damage.bytes as usize, changes.len());
                prop_assert_eq!(damage.offset as usize, *changes.keys().next().unwrap());
                prop_assert_eq!(damage.last as usize, *changes.keys().last().unwrap());
                let single = changes.len() == 1
                    && changes.values().all(|change| change.is_power_of_two());
                prop_assert_eq!(damage.flipped.is_some(), single);
            }
        }
    }
}

/// Memory, a block of it, and the switches.
struct Bench {
    frames: FrameMap<HostedLayout>,
    debug: Debug<Hosted>,
    block: Pfn,
}

const ORDER: usize = 2;

impl Bench {
    /// Runs `f` on a machine with memory.
    fn run(f: impl FnOnce(&Bench)) {
        let memory = Memory::builder().node(1 << 20).build();
        let machine = Machine::builder().build();
        let bench = Bench {
            // SAFETY: the memory has descriptors up to its end, and outlives the bench.
            frames: unsafe { FrameMap::new(memory.layout(), memory.end()) },
            debug: Debug::off(),
            block: Pfn::of_phys(memory.pieces()[0].region.start()).unwrap(),
        };
        machine.run(|| f(&bench));
    }

    fn alloc(&self) -> Result<(), Damage> {
        self.alloc_block(self.block, ORDER)
    }

    fn alloc_block(&self, pfn: Pfn, order: usize) -> Result<(), Damage> {
        if !self.debug.any() {
            return Ok(());
        }
        // SAFETY: the test owns the block.
        unsafe {
            self.debug
                .on_alloc(&self.frames, pfn, order, Use::Pages, Gfp::KERNEL)
        }
    }

    fn free(&self) {
        if self.debug.any() {
            // SAFETY: the test owns the block.
            unsafe {
                self.debug
                    .on_free(&self.frames, self.block, ORDER, Use::Pages);
            }
        }
    }

    fn write(&self, offset: usize, value: u8) {
        // SAFETY: the block's memory.
        unsafe { self.frames.address_of(self.block).add(offset).write(value) };
    }
}

#[test]
fn what_is_written_to_free_pages_is_reported() {
    Bench::run(|bench| {
        bench.debug.set_poison(true);
        assert!(bench.debug.any() && bench.debug.poison());
        // What was never freed is not compared.
        bench.write(0, 1);
        bench.alloc().unwrap();
        bench.free();
        bench.alloc().unwrap();
        bench.write(0, 1);
        bench.free();
        for (frame, offset) in [(0, 0), (1, 0x234), (3, PAGE_SIZE - 1)] {
            bench.write(frame * PAGE_SIZE + offset, 7);
            let damage = bench.alloc().unwrap_err();
            assert_eq!(damage.frame, Some(bench.block.add(frame as u32)));
            assert_eq!(damage.offset as usize, offset);
            bench.free();
        }
        bench.alloc().unwrap();
    });
}

#[test]
fn a_block_is_compared_whatever_it_is_allocated_as() {
    Bench::run(|bench| {
        bench.debug.set_poison(true);
        bench.free();
        bench.write(2 * PAGE_SIZE, 0);
        // Only the damaged one of its parts.
        for part in 0..4 {
            let result = bench.alloc_block(bench.block.add(part), 0);
            if part == 2 {
                result.unwrap_err();
            } else {
                result.unwrap();
            }
        }
        // As a part of a larger one, of which the rest was not filled.
        bench.free();
        bench.write(5, 0);
        bench.alloc_block(bench.block, ORDER + 1).unwrap_err();
    });
}

#[test]
fn poison_is_switched_at_run_time() {
    Bench::run(|bench| {
        assert!(!bench.debug.any());
        let poison = |on| bench.debug.set_poison(on);
        // Freed before it was on: not compared.
        bench.alloc().unwrap();
        bench.free();
        bench.write(9, 9);
        poison(true);
        bench.alloc().unwrap();
        // Freed while on, allocated while off: not compared.
        bench.free();
        poison(false);
        assert!(!bench.debug.poison());
        bench.write(9, 9);
        bench.alloc().unwrap();
        // Nor after it was freed while off.
        bench.write(9, 9);
        bench.free();
        poison(true);
        bench.alloc().unwrap();
        // Freed while on, off and on again meanwhile: whoever took and wrote it while off
        // left no trace, so it is not compared.
        bench.free();
        poison(false);
        bench.alloc().unwrap();
        bench.write(9, 9);
        bench.free();
        poison(true);
        bench.alloc().unwrap();
        // Switched on twice: on.
        bench.free();
        poison(true);
        bench.write(9, 9);
        bench.alloc().unwrap_err();
    });
}

#[test]
fn the_owners_words_are_no_mark() {
    Bench::run(|bench| {
        bench.debug.set_poison(true);
        bench.alloc().unwrap();
        let frame = bench.frames.get(bench.block).unwrap();
        bench.free();
        bench.alloc().unwrap();
        assert_eq!(frame.extra.load(std::sync::atomic::Ordering::Relaxed), 0);
    });
}
