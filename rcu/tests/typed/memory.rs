//! The allocator of these tests: freed memory is overwritten, and not given to anybody else
//! for some time, so that a reader who came too late sees that.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{Mutex, PoisonError},
};

/// What freed memory is full of.
pub const POISON: u64 = 0x6b6b_6b6b_6b6b_6b6b;
/// Pieces that wait.
const KEPT: usize = 1 << 12;
/// Larger pieces do not.
const LARGEST: usize = 1 << 10;

struct Poisoning(Mutex<Waiting>);

struct Waiting {
    pieces: [Option<(usize, Layout)>; KEPT],
    oldest: usize,
}

#[global_allocator]
static ALLOCATOR: Poisoning = Poisoning(Mutex::new(Waiting {
    pieces: [None; KEPT],
    oldest: 0,
}));

// SAFETY: the host's allocator, only later.
unsafe impl GlobalAlloc for Poisoning {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, mut place: *mut u8, mut layout: Layout) {
        if layout.size() <= LARGEST {
            for byte in 0..layout.size() {
                // SAFETY: the piece is the allocator's again. Volatile: it is the point that
                // somebody looks.
                unsafe { place.add(byte).write_volatile(POISON as u8) };
            }
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Waiting { pieces, oldest } = &mut *waiting;
            let freed = pieces[*oldest].replace((place.expose_provenance(), layout));
            *oldest = (*oldest + 1) % KEPT;
            let Some((address, of)) = freed else { return };
            (place, layout) = (std::ptr::with_exposed_provenance_mut(address), of);
        }
        // SAFETY: it was freed, with this layout, and has waited.
        unsafe { System.dealloc(place, layout) };
    }
}
