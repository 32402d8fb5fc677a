//! Objects that are in use when their cache is destroyed.

use platform::sync::Ordering;

use super::{KmemCache, Leaked, Machine, Mode, Slab, Slabs};
use crate::frame::{Pfn, State, Use};

/// Free objects are noted in a map of so many bits on the stack; larger slabs are gone through
/// several times.
const MAP_BITS: usize = 4096;

impl<M: Machine> Slabs<M> {
    /// Reports each object of a dying cache that is in use; `None`: there is none. Nothing is
    /// in sheaves and barns.
    pub(super) fn report_leak(&self, cache: &KmemCache<M>) -> Option<Leaked> {
        // Relaxed: a look; what is still there is looked at under its lock.
        let slabs = cache
            .all_nodes()
            .map(|node| node.slabs.load(Ordering::Relaxed))
            .sum::<u64>();
        if slabs == 0 {
            return None;
        }
        let mut objects = 0;
        for slab in self.slabs_of(cache) {
            objects += cache.report_objects(slab);
        }
        (objects > 0).then_some(Leaked {
            name: cache.name,
            id: cache.id,
            objects,
        })
    }

    /// Blocks that are slabs of a cache, by a look at all frames (full slabs are on no list).
    /// What it says may be out of date.
    fn slabs_of<'a>(&'a self, cache: &'a KmemCache<M>) -> impl Iterator<Item = Slab<M>> + 'a {
        let map = *self.mm().frames();
        let heads = self.mm().zones().flat_map(move |zone| {
            let end = zone.end();
            let mut next = zone.start();
            core::iter::from_fn(move || {
                while next < end {
                    let pfn = next;
                    let word = map.get(pfn)?.word();
                    let is_slab =
                        word.state() == State::Used(Use::Slab) && word.zone() == zone.index();
                    next = pfn.add(if is_slab { 1 << word.order() } else { 1 });
                    if is_slab {
                        return Some(pfn);
                    }
                }
                None
            })
        });
        heads.filter_map(move |pfn: Pfn| {
            // SAFETY: the head of a slab, or was just now; only its descriptor is looked at.
            let slab = unsafe { Slab::at(map, pfn) };
            cache.has(slab).then_some(slab)
        })
    }
}

impl<M: Machine> KmemCache<M> {
    /// Whether a slab, which may have gone, is of this cache.
    fn has(&self, slab: Slab<M>) -> bool {
        let own = core::ptr::from_ref(self).addr();
        slab.frame().owner.load(Ordering::Relaxed) == own
    }

    /// Reports the objects of a slab that are in use. How many.
    fn report_objects(&self, slab: Slab<M>) -> u64 {
        let mut count = 0;
        let mut start = 0;
        while let Some((map, end)) = self.free_in(slab, start) {
            for index in start..end {
                let bit = index - start;
                if map[bit / 64] >> (bit % 64) & 1 == 0 {
                    count += u64::from(self.report_left(slab, index));
                }
            }
            start = end;
        }
        count
    }

    /// Which of the objects of a slab are free, from index `start` on: a bit for each, and
    /// the index behind the last. `None`: there is none from there on, or the slab has gone.
    fn free_in(&self, slab: Slab<M>, start: usize) -> Option<([u64; MAP_BITS / 64], usize)> {
        let mut map = [0; MAP_BITS / 64];
        let node = self.node(slab.frame().word().zone().node())?;
        // Under the lock no slab goes. Objects may be freed meanwhile: they go in front of what is
        // walked.
        let _lists = node.lock(Mode::Spin)?;
        let word = slab.frame().word();
        if word.state() != State::Used(Use::Slab) || !self.has(slab) {
            return None;
        }
        let freelist = slab.freelist().load();
        let end = freelist.objects().min(start + MAP_BITS);
        if start >= end {
            return None;
        }
        let mut link = freelist.head();
        // Not for ever, if links are damaged.
        for _ in 0..freelist.objects() {
            if link.is_none() {
                break;
            }
            let index = link.index();
            if (start..end).contains(&index) {
                let bit = index - start;
                map[bit / 64] |= 1 << (bit % 64);
            }
            // SAFETY: a free object of the slab, which lives under the lock.
            match unsafe { self.read_link(slab, index) } {
                Ok(next) => link = next,
                Err(_) => break,
            }
        }
        Some((map, end))
    }
}
