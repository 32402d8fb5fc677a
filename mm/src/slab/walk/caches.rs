//! What hangs on the caches: sheaves, barns, lists, counts.

use core::{ops::ControlFlow, ptr::NonNull};

use platform::{MAX_CPUS, sync::Ordering::Relaxed};

use super::{At, Fault, Problem, Room, Tally};
use crate::{
    frame::Pfn,
    machine::Layout,
    slab::{
        KmemCache, Machine, Place, Slab, Slabs,
        barn::{MAX_EMPTY, MAX_FULL},
        list::{BEFORE, BEHIND, SlabList},
        node::Node,
        sheaf::Sheaf,
    },
};

impl<M: Machine> Slabs<M> {
    /// Whether somebody holds a lock of the allocator.
    ///
    /// # Errors
    ///
    /// The first lock that is held.
    ///
    /// # Safety
    ///
    /// As [`walk`](Slabs::walk), here and below.
    pub(super) unsafe fn look_for_holders(&self) -> Result<(), Fault> {
        for lane in self.kvfree_rcu.lanes() {
            if lane.state.holder().is_some() {
                return Err(Fault::general(Problem::LaneHeld(lane.cpu)));
            }
        }
        for (cpu, lists) in self.mm().lists.iter() {
            if lists.lock.is_taken() {
                return Err(Fault::general(Problem::PagesHeld(cpu)));
            }
        }
        for cpu in M::possible_cpus().iter() {
            if self.quarantine.cpus[cpu.index()].fifo.holder().is_some() {
                return Err(Fault::general(Problem::QuarantineHeld(cpu)));
            }
        }
        // SAFETY: nobody else runs, here and below.
        for cache in unsafe { self.caches_unlocked() } {
            for (cpu, of_cpu) in cache.cpus.iter() {
                if of_cpu.sheaves.is_taken() {
                    return Err(cache.fault(Problem::SheavesHeld(cpu)));
                }
            }
            for node in cache.all_nodes() {
                if node.barn.sheaves.holder().is_some() {
                    return Err(cache.fault(Problem::BarnHeld(node.id)));
                }
                if node.lists.holder().is_some() {
                    return Err(cache.fault(Problem::ListHeld(node.id)));
                }
            }
        }
        Ok(())
    }

    /// Checks what hangs on each cache, and takes the sums of the last walk away.
    pub(super) unsafe fn walk_caches(&self, tally: &mut Tally) -> Result<(), Fault> {
        // SAFETY: nobody else runs.
        for cache in unsafe { self.caches_unlocked() } {
            tally.caches += 1;
            // SAFETY: the same.
            unsafe {
                cache.walk_sheaves(tally)?;
                cache.walk_barns()?;
                cache.count_sheaves()?;
                cache.walk_deferred(tally)?;
                cache.walk_waiting(tally)?;
                cache.walk_quarantine(tally)?;
            }
            for node in cache.all_nodes() {
                node.walked.clear();
                // SAFETY: nobody changes the lists.
                let lists = unsafe { node.lists.peek() };
                cache.walk_list(node, &lists.partial, Place::Partial)?;
                cache.walk_list(node, &lists.full, Place::DebugFull)?;
            }
        }
        Ok(())
    }

    /// Compares the nodes' counts with the slabs that were found.
    pub(super) unsafe fn compare_counts(&self) -> Result<(), Fault> {
        // SAFETY: nobody else runs.
        for cache in unsafe { self.caches_unlocked() } {
            for node in cache.all_nodes() {
                let found = &node.walked;
                // SAFETY: nobody changes the lists.
                let lists = unsafe { node.lists.peek() };
                for (list, found, listed) in [
                    ("partial", &found.partial, lists.partial.len()),
                    ("full", &found.full, lists.full.len()),
                ] {
                    let (found, listed) = (found.load(Relaxed), listed as u64);
                    if found != listed {
                        let problem = Problem::ListLen(node.id, list, found, listed);
                        return Err(cache.fault(problem));
                    }
                }
                for (what, found, counted) in [
                    ("slabs", &found.slabs, &node.slabs),
                    ("objects", &found.objects, &node.objects),
                    ("slabs that wait for RCU", &found.waiting, &node.waiting),
                ] {
                    let (found, counted) = (found.load(Relaxed), counted.load(Relaxed));
                    if found != counted {
                        let problem = Problem::Count(node.id, what, found, counted);
                        return Err(cache.fault(problem));
                    }
                }
            }
        }
        Ok(())
    }

    /// Fills the table with what lies between two frames in sheaves, barns, deferred lists and quarantines;
    /// the end of the window for which there was room.
    pub(super) unsafe fn fill(&self, room: &mut Room, from: Pfn, end: Pfn) -> Pfn {
        let base = self.mm().layout().direct_map();
        let mut to = end;
        loop {
            room.clear();
            let inside = |object: usize| {
                let offset = object.wrapping_sub(base);
                (from.phys()..to.phys())
                    .contains(&(offset as u64))
                    .then_some(offset)
            };
            let mut add = |object: usize, at: At| {
                if let Some(offset) = inside(object) {
                    room.add(offset, at);
                }
            };
            // SAFETY: nobody else runs.
            for cache in unsafe { self.caches_unlocked() } {
                // SAFETY: the same, and lengths of sheaves were checked.
                let _ = unsafe {
                    cache.for_each_sheaf(|at, sheaf| {
                        let Ok(sheaf) = sheaf else {
                            return ControlFlow::<()>::Continue(());
                        };
                        add(sheaf.addr().get(), At::IsSheaf);
                        let objects = Sheaf::filled(sheaf).iter();
                        objects.for_each(|object| add(object.addr().get(), at));
                        ControlFlow::Continue(())
                    })
                };
            }
            // SAFETY: nobody else runs.
            unsafe {
                self.for_each_deferred(|cpu, object| add(object.addr().get(), At::Deferred(cpu)));
                self.for_each_loose(|cpu, object, _| {
                    if self.cache_of(object).is_some() {
                        add(object.addr().get(), At::Waiting(cpu));
                    }
                });
                self.for_each_quarantined(|cpu, entry| {
                    add(entry.object.addr().get(), At::Quarantined(cpu));
                });
            };
            let smaller = self.smaller(from, to);
            if !room.is_full() || smaller >= to {
                return to;
            }
            to = smaller;
        }
    }

    /// An end of a window about half as large, where no block is cut; at least one block.
    fn smaller(&self, from: Pfn, to: Pfn) -> Pfn {
        let map = self.mm().frames();
        let half = Pfn(from.0 + (to.0 - from.0) / 2);
        let end_of = |pfn: Pfn| match map.head_of(pfn) {
            Some((head, word)) => head.add(1 << word.order()),
            None => pfn.add(1),
        };
        match map.head_of(half) {
            Some((head, _)) if head > from => head,
            None if half > from => half,
            _ => end_of(from),
        }
    }
}

impl<M: Machine> KmemCache<M> {
    pub(super) fn fault(&self, problem: Problem) -> Fault {
        Fault {
            cache: Some(*self.name()),
            problem,
        }
    }

    fn owns(&self, slab: Slab<M>) -> bool {
        slab.owner() == Some(NonNull::from_ref(self))
    }

    /// Whether an address is that of an object of this cache.
    pub(super) fn walk_object(&self, at: At, object: NonNull<u8>) -> Result<(), Fault> {
        let map = *self.slabs().mm().frames();
        let address = object.addr().get();
        let slab = Slab::<M>::of_address(map, address);
        let own = slab.filter(|slab| self.owns(*slab));
        match own.and_then(|slab| self.index_of(slab, object)) {
            Some(_) => Ok(()),
            None => Err(self.fault(Problem::Stranger(at, address))),
        }
    }

    unsafe fn walk_sheaves(&self, tally: &mut Tally) -> Result<(), Fault> {
        // Relaxed: nobody changes it.
        let of_cache = self.sheaf_capacity.load(Relaxed);
        let look = |at, sheaf: Result<NonNull<Sheaf>, usize>| {
            let sheaf = sheaf.map_err(|sheaf| self.fault(Problem::SheafMemory(at, sheaf)))?;
            // SAFETY: memory, and nobody changes it.
            let Sheaf { len, capacity, .. } = *unsafe { sheaf.as_ref() };
            let fits = match at {
                // A prefilled one may come back with anything in it.
                At::BarnFull(_) => (1..=capacity).contains(&len),
                At::BarnEmpty(_) => len == 0,
                // The last place has the cookie.
                At::Waiting(_) => (1..capacity).contains(&len),
                _ => len <= capacity,
            };
            if !fits || capacity != of_cache || capacity == 0 {
                return Err(self.fault(Problem::Sheaf(at, len, capacity, of_cache)));
            }
            // SAFETY: as above, and not longer than its memory.
            for object in unsafe { Sheaf::filled(sheaf) } {
                self.walk_object(at, *object)?;
            }
            match at {
                At::BarnFull(_) | At::BarnEmpty(_) => tally.in_barns += u64::from(len),
                At::RcuFree(_) | At::Waiting(_) => tally.waiting += u64::from(len),
                _ => tally.in_sheaves += u64::from(len),
            }
            Ok(())
        };
        let mut look = look;
        // SAFETY: nobody changes anything.
        let found = unsafe {
            self.for_each_sheaf(|at, sheaf| match look(at, sheaf) {
                Ok(()) => ControlFlow::Continue(()),
                Err(fault) => ControlFlow::Break(fault),
            })
        };
        found.break_value().map_or(Ok(()), Err)
    }

    unsafe fn walk_barns(&self) -> Result<(), Fault> {
        for node in self.all_nodes() {
            // SAFETY: nobody changes it.
            let barn = unsafe { node.barn.sheaves.peek() };
            let mut found = [0, 0];
            // SAFETY: nobody changes anything.
            let _ = unsafe {
                self.for_each_sheaf(|at, _| {
                    found[0] += usize::from(at == At::BarnFull(node.id));
                    found[1] += usize::from(at == At::BarnEmpty(node.id));
                    ControlFlow::<()>::Continue(())
                })
            };
            for (which, found, counted, most) in [
                ("full", found[0], barn.full.len, MAX_FULL),
                ("empty", found[1], barn.empty.len, MAX_EMPTY),
            ] {
                if found != counted {
                    let problem = Problem::BarnCount(node.id, which, found, counted);
                    return Err(self.fault(problem));
                }
                if found > most {
                    let problem = Problem::BarnLimit(node.id, which, found, most);
                    return Err(self.fault(problem));
                }
            }
        }
        Ok(())
    }

    /// Whether a sheaf got lost, or is there twice.
    unsafe fn count_sheaves(&self) -> Result<(), Fault> {
        let mut found = 0;
        // SAFETY: nobody changes anything.
        let _ = unsafe {
            self.for_each_sheaf(|_, _| {
                found += 1;
                ControlFlow::<()>::Continue(())
            })
        };
        let kept = self.cpus.iter().map(|(_, cpu)| cpu.kept.load(Relaxed));
        let counted = kept.fold(0, u64::wrapping_add);
        if found != counted {
            return Err(self.fault(Problem::Sheaves(found, counted)));
        }
        Ok(())
    }

    unsafe fn walk_deferred(&self, tally: &mut Tally) -> Result<(), Fault> {
        let map = *self.slabs().mm().frames();
        let mut found = 0;
        let mut result = Ok(());
        // SAFETY: nobody else runs.
        unsafe {
            self.slabs().for_each_deferred(|cpu, object| {
                let slab = Slab::<M>::of_address(map, object.addr().get());
                match slab {
                    Some(slab) if self.owns(slab) => {
                        found += 1;
                        let checked = self.walk_object(At::Deferred(cpu), object);
                        result = result.and(checked);
                    }
                    _ => {}
                }
            });
        }
        result?;
        tally.deferred += found;
        // Relaxed: nobody changes it.
        let counted = self.deferred.load(Relaxed);
        if found != counted {
            return Err(self.fault(Problem::Deferred(found, counted)));
        }
        Ok(())
    }

    unsafe fn walk_quarantine(&self, tally: &mut Tally) -> Result<(), Fault> {
        let map = *self.slabs().mm().frames();
        let mut found = [0; MAX_CPUS];
        let mut result = Ok(());
        // SAFETY: nobody else runs.
        unsafe {
            self.slabs().for_each_quarantined(|cpu, entry| {
                let slab = Slab::<M>::of_address(map, entry.object.addr().get());
                if slab.is_some_and(|slab| self.owns(slab)) {
                    found[cpu.index()] += 1;
                    let checked = self.walk_object(At::Quarantined(cpu), entry.object);
                    result = result.and(checked);
                }
            });
        }
        result?;
        for cpu in M::possible_cpus().iter() {
            let (found, counted) = (found[cpu.index()], self.quarantined_on(cpu));
            if found != counted {
                return Err(self.fault(Problem::Quarantined(cpu, found, counted)));
            }
            tally.quarantined += found;
        }
        Ok(())
    }

    /// Checks a list's links, and that what is on it belongs there.
    fn walk_list(&self, node: &Node<M>, list: &SlabList, place: Place) -> Result<(), Fault> {
        let map = *self.slabs().mm().frames();
        let [first, last] = list
            .ends()
            .map(|end| end.map_or(0, |frame| frame.addr().get()));
        let mut before = 0;
        let mut next = first;
        for number in 0..list.len() {
            let broken = self.fault(Problem::ListLinks(node.id, number));
            let pfn = pfn_of_descriptor(&map, next).ok_or(broken)?;
            let frame = map.get(pfn).ok_or(broken)?;
            let slab = Slab::<M>::of_address(map, map.address_of(pfn).addr());
            let belongs = slab.is_some_and(|slab| {
                slab.pfn() == pfn
                    && self.owns(slab)
                    && slab.place() == place
                    && frame.word().zone().node() == node.id
            });
            if !belongs {
                return Err(self.fault(Problem::Listed(node.id, pfn)));
            }
            if frame.links[BEFORE].load(Relaxed) != before {
                return Err(broken);
            }
            before = next;
            next = frame.links[BEHIND].load(Relaxed);
        }
        if next != 0 || last != before {
            return Err(self.fault(Problem::ListLinks(node.id, list.len())));
        }
        Ok(())
    }
}

/// The frame whose descriptor is at this address.
fn pfn_of_descriptor<L: Layout>(map: &crate::frame::FrameMap<L>, address: usize) -> Option<Pfn> {
    let offset = address.checked_sub(map.layout().frame_map())?;
    let size = size_of::<crate::Frame>();
    let number = offset / size;
    (offset.is_multiple_of(size) && number < map.end().index()).then_some(Pfn(number as u32))
}
