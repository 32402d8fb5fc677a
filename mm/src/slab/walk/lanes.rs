//! What waits for grace periods, against the lanes' own accounts of it.

use core::{ops::ControlFlow, ptr::NonNull};

use platform::sync::Ordering::Relaxed;

use super::{At, Fault, Problem, Tally};
use crate::{
    PAGE_SIZE, Use,
    frame::State,
    kvfree_rcu::{Kind, Lane, Part},
    slab::{KmemCache, Machine, Slab, Slabs, kmalloc, sheaf::Sheaf},
};

/// Parts of a lane that are looked at, at most, should their list be a circle.
const MOST_PARTS: usize = 10_000;

impl<M: Machine> Slabs<M> {
    /// Checks the accounts of every lane, after those of all caches.
    ///
    /// # Safety
    ///
    /// As [`walk`](Slabs::walk), here and below.
    pub(super) unsafe fn walk_lanes(&self) -> Result<(), Fault> {
        for lane in self.kvfree_rcu.lanes() {
            // SAFETY: nobody else runs.
            unsafe {
                self.walk_loose(lane)?;
                self.walk_parts(lane)?;
            }
        }
        let (mut found, map) = (0, *self.mm().frames());
        // SAFETY: the same.
        unsafe {
            self.for_each_deferred(|_, memory| {
                found += u64::from(Slab::<M>::of_address(map, memory.addr().get()).is_none());
            });
        }
        // Relaxed: nobody changes it.
        let counted = self.kvfree_rcu.deferred.load(Relaxed);
        if found != counted {
            return Err(Fault::general(Problem::Deferred(found, counted)));
        }
        Ok(())
    }

    /// Pages and chains of a lane, and the bytes that wait there.
    unsafe fn walk_loose(&self, lane: &Lane<M>) -> Result<(), Fault> {
        // SAFETY: nobody changes it.
        let state = unsafe { lane.state.peek() };
        let (mut bytes, mut pages) = (0, 0);
        let mut result = Ok(());
        let mut check = |good: bool, problem| {
            if !good && result.is_ok() {
                result = Err(Fault::general(problem));
            }
        };
        // SAFETY: the same.
        unsafe {
            self.for_each_batch(lane, |batch| {
                let page = batch.as_ref().map_or_else(|wild| Some(*wild), |b| b.page());
                if let Some(page) = page {
                    pages += 1;
                    let problem = Problem::PointerPage(lane.cpu, page);
                    check(self.is_pointer_page(page), problem);
                }
                let Ok(batch) = batch else { return };
                for memory in batch.items() {
                    let kind = batch.kind().unwrap_or_else(|| self.kind_of(memory));
                    let size = self.size_of_waiting(memory, kind);
                    let problem = Problem::Unfreeable(At::Waiting(lane.cpu), memory.addr().get());
                    check(size.is_some(), problem);
                    bytes += size.unwrap_or(0);
                }
            });
            for cache in self.caches_unlocked() {
                let size = u64::from(cache.layout().size);
                bytes += cache.closed_objects(lane) * size;
            }
        }
        let counted = u64::from(state.loose.pages);
        check(
            pages == counted,
            Problem::Pointers(lane.cpu, pages, counted),
        );
        let counted = state.bytes;
        check(
            bytes == counted,
            Problem::LaneBytes(lane.cpu, bytes, counted),
        );
        result
    }

    /// Whether there is, at this address, a page that may have pointers to what waits.
    fn is_pointer_page(&self, page: usize) -> bool {
        let map = self.mm().frames();
        let frame = map.pfn_of_address(page).and_then(|pfn| map.get(pfn));
        let is_used =
            |word: crate::frame::Word| word.state() == State::Used(Use::Meta) && word.order() == 0;
        page.is_multiple_of(PAGE_SIZE as usize) && frame.is_some_and(|frame| is_used(frame.word()))
    }

    /// Bytes for which memory counts that waits outside of sheaves. `None`: it is none that could be freed.
    unsafe fn size_of_waiting(&self, memory: NonNull<u8>, kind: Kind) -> Option<u64> {
        if kind == Kind::Vmalloc && !self.kvfree_rcu.is_vmalloc(memory) {
            return None;
        }
        if kind == Kind::Kmalloc {
            match self.at(memory) {
                kmalloc::At::Slab(slab) => {
                    let owner = slab.owner()?;
                    // SAFETY: nobody else runs.
                    let mut caches = unsafe { self.caches_unlocked() };
                    caches.find(|cache| NonNull::from(*cache) == owner)?;
                }
                kmalloc::At::Large(..) => {}
                _ => return None,
            }
        }
        Some(self.bytes_of(memory, kind))
    }

    /// The list of a lane's parts: all that it is to have, and each once.
    unsafe fn walk_parts(&self, lane: &Lane<M>) -> Result<(), Fault> {
        // SAFETY: nobody changes anything; here and below.
        let caches = || unsafe { self.caches_unlocked() };
        let linked = caches().filter(|cache| cache.part(lane.cpu).is_linked());
        let linked = linked.count() as u64;
        // SAFETY: as above.
        let mut next = unsafe { lane.state.peek() }.first_part();
        let mut found = 0;
        for _ in 0..MOST_PARTS {
            let Some(part) = next else { break };
            let is_known = |cache: &KmemCache<M>| NonNull::from(cache.part(lane.cpu)) == part;
            if !caches().any(is_known) {
                break;
            }
            found += 1;
            // SAFETY: one of a cache.
            next = unsafe { part.as_ref().peek_next() };
        }
        if found != linked || next.is_some() {
            return Err(Fault::general(Problem::Parts(lane.cpu, found, linked)));
        }
        Ok(())
    }
}

impl<M: Machine> KmemCache<M> {
    /// Objects in its closed sheaves on a lane.
    unsafe fn closed_objects(&self, lane: &Lane<M>) -> u64 {
        let mut found = 0;
        // SAFETY: nobody changes anything, and lengths were checked.
        let _ = unsafe {
            self.for_each_sheaf(|at, sheaf| {
                if let (true, Ok(sheaf)) = (at == At::Waiting(lane.cpu), sheaf) {
                    found += u64::from(Sheaf::len(sheaf));
                }
                ControlFlow::<()>::Continue(())
            })
        };
        found
    }

    /// What waits for a grace period, against the cache's own accounts of it.
    pub(super) unsafe fn walk_waiting(&self, tally: &mut Tally) -> Result<(), Fault> {
        let mut loose = [0; platform::MAX_CPUS];
        let mut result = Ok(());
        // SAFETY: nobody else runs.
        unsafe {
            self.slabs().for_each_loose(|cpu, object, _| {
                if self.slabs().cache_of(object) == Some(NonNull::from(self)) {
                    loose[cpu.index()] += 1;
                    tally.waiting += 1;
                    result = result.and(self.walk_object(At::Waiting(cpu), object));
                }
            });
        }
        result?;
        for (cpu, part) in self.parts() {
            let lane = self.slabs().kvfree_rcu.lane(cpu);
            // SAFETY: the same.
            unsafe { self.walk_part(lane, part, loose[cpu.index()])? };
        }
        Ok(())
    }

    unsafe fn walk_part(&self, lane: &Lane<M>, part: &Part<M>, loose: u64) -> Result<(), Fault> {
        let cpu = lane.cpu;
        // SAFETY: nobody else runs, here and below.
        let (closed, counted) = unsafe { (self.closed_objects(lane), part.peek_loose()) };
        let (found, all) = (closed + loose, part.objects());
        if found != all {
            return Err(self.fault(Problem::Waiting(cpu, found, all)));
        }
        if loose != counted {
            return Err(self.fault(Problem::Loose(cpu, loose, counted)));
        }
        // SAFETY: as above.
        let (is_open, has_closed) = unsafe {
            let sheaves = self.cpus.on(cpu).sheaves.peek();
            (sheaves.rcu_free.is_some(), part.peek_sheaves().is_some())
        };
        if is_open != (part.open_since() != 0) {
            return Err(self.fault(Problem::Open(cpu, is_open)));
        }
        if part.is_linked() != (is_open || has_closed) {
            return Err(self.fault(Problem::Linked(cpu, part.is_linked())));
        }
        Ok(())
    }
}
