//! Who owns which frame, as a test knows it: a table of owners, and patterns in the memory.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mm::{Gfp, Mm, Pfn, State, frame::PAGE_SIZE};
use platform::hosted::Hosted;

use super::world::{Held, zone_of};

/// Words of a page that are written and checked.
const PLACES: [usize; 3] = [0, 37, PAGE_SIZE / 8 - 1];

/// The owners of all frames; 0: nobody.
pub struct Owners {
    frames: Vec<AtomicU64>,
    next: AtomicU64,
}

impl Owners {
    pub fn new(mm: &Mm<Hosted>) -> Self {
        Self {
            frames: (0..mm.frames().end().0)
                .map(|_| AtomicU64::new(0))
                .collect(),
            next: AtomicU64::new(1),
        }
    }

    fn words(mm: &Mm<Hosted>, pfn: Pfn) -> [*mut u64; PLACES.len()] {
        let page = mm.frames().address_of(pfn).cast::<u64>();
        // SAFETY: within the page.
        PLACES.map(|place| unsafe { page.add(place) })
    }

    /// A block was allocated: it is nobody else's, what was asked for, and zeroed if it shall
    /// be. The caller's from now on.
    #[track_caller]
    pub fn take(&self, mm: &Mm<Hosted>, held: &Held, gfp: Gfp) {
        let Held { pfn, order, usage } = *held;
        assert_eq!(pfn, pfn.align_down(order), "not aligned: {held:?}");
        let zone = zone_of(mm, pfn);
        assert!(
            !gfp.contains(Gfp::DMA32) || pfn.phys() < 4 << 30,
            "{held:?}"
        );
        let owner = self.next.fetch_add(1, Relaxed);
        for number in 0..1 << order {
            let at = pfn.add(number);
            let before = self.frames[at.index()].swap(owner, Relaxed);
            assert_eq!(
                before, 0,
                "{held:?} overlaps at {at} what was given out before"
            );
            let word = mm.frames().get(at).unwrap().word();
            let state = if number == 0 {
                State::Used(usage)
            } else {
                State::Tail
            };
            assert_eq!(
                (word.state(), word.order()),
                (state, order),
                "{held:?} at {at}"
            );
            assert_eq!(word.zone(), zone.index(), "{held:?} at {at}");
            for word in Self::words(mm, at) {
                // SAFETY: the block is the caller's.
                unsafe {
                    assert!(
                        !gfp.contains(Gfp::ZERO) || word.read() == 0,
                        "{held:?} at {at}"
                    );
                    word.write(owner ^ (word.addr() as u64));
                }
            }
        }
    }

    /// A block will be freed: it is the caller's, and nobody has written to it.
    #[track_caller]
    pub fn give(&self, mm: &Mm<Hosted>, held: &Held) {
        let owner = self.frames[held.pfn.index()].load(Relaxed);
        assert_ne!(owner, 0, "{held:?} is nobody's");
        for number in 0..1 << held.order {
            let at = held.pfn.add(number);
            for word in Self::words(mm, at) {
                // SAFETY: the block is the caller's.
                let found = unsafe { word.read() };
                assert_eq!(found, owner ^ (word.addr() as u64), "{held:?} at {at}");
            }
            let before = self.frames[at.index()].swap(0, Relaxed);
            assert_eq!(before, owner, "{held:?} at {at}");
        }
    }

    /// Nobody owns anything.
    #[track_caller]
    pub fn assert_empty(&self) {
        let owned = self.frames.iter().filter(|owner| owner.load(Relaxed) != 0);
        assert_eq!(owned.count(), 0, "frames are owned");
    }
}
