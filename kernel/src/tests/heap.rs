//! The boot heap.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::kunit::{Ctx, Outcome, kassert, kassert_eq, kassert_ok, kunit_suite};
use crate::smp;

kunit_suite! {
    name: "heap",
    cases: [patterns, alignment, zeroed, reallocation, out_of_memory, every_cpu],
}

/// Many blocks of many sizes, freed in random order: none overlaps another.
fn patterns(ctx: &mut Ctx) -> Outcome {
    let mut blocks: Vec<(u8, Vec<u8>)> = Vec::new();
    for step in 0..2_000u32 {
        if ctx.rng().below(5) < 3 || blocks.is_empty() {
            let fill = step as u8;
            let size = 1 + ctx.rng().below(300) as usize;
            let mut block = Vec::new();
            kassert_ok!(block.try_reserve_exact(size));
            block.resize(size, fill);
            blocks.push((fill, block));
        } else {
            let index = ctx.rng().below(blocks.len() as u64) as usize;
            let (fill, block) = blocks.swap_remove(index);
            kassert!(
                block.iter().all(|&byte| byte == fill),
                "a block was overwritten"
            );
        }
        if blocks.len() > 500 {
            blocks.truncate(250);
        }
    }
    for (fill, block) in &blocks {
        kassert!(
            block.iter().all(|byte| byte == fill),
            "a block was overwritten"
        );
    }
    Ok(())
}

#[repr(align(64))]
struct Line([u8; 64]);

#[repr(align(4096))]
struct Page([u8; 4096]);

fn alignment(_: &mut Ctx) -> Outcome {
    for _ in 0..10 {
        // Odd sizes in between, so that alignment is not had by chance.
        let odd = Box::new([1u8; 3]);
        let line = Box::new(Line([2; 64]));
        let page = Box::new(Page([3; 4096]));
        kassert_eq!(line.0.as_ptr() as usize % 64, 0);
        kassert_eq!(page.0.as_ptr() as usize % 4096, 0);
        kassert_eq!((odd[2], line.0[63], page.0[4095]), (1, 2, 3));
    }
    Ok(())
}

fn zeroed(_: &mut Ctx) -> Outcome {
    // Dirty the memory that will probably be handed out again.
    drop(core::hint::black_box(alloc::vec![0xffu8; 4096]));
    let block = alloc::vec![0u8; 4096];
    kassert!(block.iter().all(|&byte| byte == 0));
    Ok(())
}

fn reallocation(_: &mut Ctx) -> Outcome {
    let mut numbers = Vec::new();
    for number in 0..5_000u32 {
        numbers.push(number);
    }
    kassert!(
        numbers
            .iter()
            .enumerate()
            .all(|(index, &number)| index == number as usize)
    );
    numbers.truncate(10);
    numbers.shrink_to_fit();
    kassert_eq!(numbers, (0..10).collect::<Vec<u32>>());
    Ok(())
}

/// More than there can be is an error to the caller, not a panic, and costs
/// nothing afterwards.
fn out_of_memory(_: &mut Ctx) -> Outcome {
    let mut block: Vec<u8> = Vec::new();
    kassert!(block.try_reserve_exact(1 << 40).is_err());
    kassert!(block.try_reserve_exact(usize::MAX / 2).is_err());
    // As much as there is, in halves; then it must all come back.
    let mut blocks: Vec<Vec<u8>> = Vec::with_capacity(64);
    let mut size = 1usize << 32;
    while size >= 4096 && blocks.len() < blocks.capacity() {
        let mut block = Vec::new();
        match block.try_reserve_exact(size) {
            Ok(()) => blocks.push(block),
            Err(_) => size /= 2,
        }
    }
    let largest = kassert_ok!(blocks.first().map(Vec::capacity));
    drop(blocks);
    let mut again: Vec<u8> = Vec::new();
    kassert!(
        again.try_reserve_exact(largest).is_ok(),
        "{largest} bytes were free before"
    );
    Ok(())
}

/// All CPUs at once: the allocator's lock holds.
fn every_cpu(_: &mut Ctx) -> Outcome {
    use core::sync::atomic::{AtomicU32, Ordering};
    // Relaxed: the end of the call orders it before the read below.
    let broken = AtomicU32::new(0);
    smp::call_all(&|| {
        let mine = smp::this_cpu().number() as u8;
        for size in 1..100usize {
            let mut block = Vec::new();
            if block.try_reserve_exact(size).is_err() {
                broken.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            block.resize(size, mine);
            if core::hint::black_box(&block)
                .iter()
                .any(|&byte| byte != mine)
            {
                broken.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    kassert_eq!(broken.load(Ordering::Relaxed), 0);
    Ok(())
}
