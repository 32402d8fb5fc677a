//! Looking at all sheaves of a cache on a machine that stands still, without trusting what is
//! found there: for the [walk](super::walk) and for [`whatis`](super::whatis), in a panic too.

use core::{ops::ControlFlow, ptr::NonNull};

use platform::{CpuId, sync::Ordering};

use super::{KmemCache, Machine, Slab, Slabs, sheaf::Sheaf, walk::At};
use crate::{
    frame::{FrameMap, PAGE_SIZE, State},
    kvfree_rcu::{Batch, Head, Lane},
    machine::Layout,
};

/// Sheaves of a stack that are looked at, at most: more than a barn ever has.
const MOST_IN_STACK: usize = 64;

/// Whether this many bytes from `address` on are memory that can be read.
pub(super) fn is_memory<L: Layout>(map: &FrameMap<L>, address: usize, bytes: usize) -> bool {
    let last = address.saturating_add(bytes.max(1) - 1);
    let first_page = address & !(PAGE_SIZE - 1);
    (first_page..=last).step_by(PAGE_SIZE).all(|page| {
        let frame = map.pfn_of_address(page).and_then(|pfn| map.get(pfn));
        frame.is_some_and(|frame| !matches!(frame.word().state(), State::Hole | State::Reserved))
    })
}

/// Caches that are looked at, at most, should their list be a circle.
const MOST_CACHES: usize = 10_000;

/// Deferred objects of a CPU that are looked at, at most, should their links be a circle.
const MOST_DEFERRED: usize = 1 << 20;

/// A sheaf that can be looked at; `Err`: its address, where no sheaf can be.
pub(crate) type Seen = Result<NonNull<Sheaf>, usize>;

/// Looks whether the memory of a sheaf is memory. (That of the permanent empty one is none that
/// the page allocator knows.)
pub(super) fn see<L: Layout>(map: &FrameMap<L>, sheaf: NonNull<Sheaf>) -> Seen {
    let address = sheaf.addr().get();
    if !address.is_multiple_of(align_of::<Sheaf>()) || !is_memory(map, address, size_of::<Sheaf>())
    {
        return Err(address);
    }
    // SAFETY: memory that can be read, and any bits are a header of a sheaf (its link is not
    // followed before it was looked at).
    let capacity = unsafe { (&raw const (*sheaf.as_ptr()).capacity).read() };
    if is_memory(map, address, Sheaf::bytes(capacity)) {
        Ok(sheaf)
    } else {
        Err(address)
    }
}

/// What the objects of a closed sheaf wait for that was seen on a lane; `None`: it is not as such sheaves
/// are. For who looks while nobody changes it.
pub(crate) fn cookie_of(sheaf: NonNull<Sheaf>) -> Option<u64> {
    // SAFETY: it was seen, so it is memory up to its capacity, and the last place holds any bits.
    unsafe {
        let has_place = Sheaf::len(sheaf) < Sheaf::capacity(sheaf);
        has_place.then(|| Sheaf::cookie(sheaf))
    }
}

impl<M: Machine> KmemCache<M> {
    /// Calls `each` with every sheaf of the cache, until it breaks.
    ///
    /// # Safety
    ///
    /// Nobody changes anything of the cache meanwhile.
    pub(crate) unsafe fn for_each_sheaf<B>(
        &self,
        mut each: impl FnMut(At, Seen) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let map = self.slabs().mm().frames();
        for (cpu, of_cpu) in self.cpus.iter() {
            // SAFETY: nobody changes it, as the caller promises.
            let sheaves = unsafe { of_cpu.sheaves.peek() };
            let all = [
                (At::Main(cpu), Some(sheaves.main)),
                (At::Spare(cpu), sheaves.spare),
                (At::RcuFree(cpu), sheaves.rcu_free),
            ];
            for (at, sheaf) in all {
                // The permanent empty one has nothing, and does not lie in memory that the
                // page allocator knows.
                if let Some(sheaf) = sheaf.filter(|sheaf| *sheaf != Sheaf::nothing()) {
                    each(at, see(map, sheaf))?;
                }
            }
        }
        for (cpu, part) in self.parts() {
            // SAFETY: as above.
            let mut next = unsafe { part.peek_sheaves() };
            for _ in 0..MOST_DEFERRED {
                let Some(sheaf) = next else { break };
                let seen = see(map, sheaf);
                // SAFETY: memory that can be read.
                next = seen
                    .ok()
                    .and_then(|sheaf| unsafe { (*sheaf.as_ptr()).next });
                each(At::Waiting(cpu), seen)?;
            }
        }
        for node in self.all_nodes() {
            // SAFETY: as above.
            let barn = unsafe { node.barn.sheaves.peek() };
            for (at, stack) in [
                (At::BarnFull(node.id), &barn.full),
                (At::BarnEmpty(node.id), &barn.empty),
            ] {
                let mut next = stack.top;
                for _ in 0..MOST_IN_STACK {
                    let Some(sheaf) = next else { break };
                    let seen = see(map, sheaf);
                    // SAFETY: memory that can be read.
                    next = seen
                        .ok()
                        .and_then(|sheaf| unsafe { (*sheaf.as_ptr()).next });
                    each(at, seen)?;
                }
            }
        }
        ControlFlow::Continue(())
    }
}

impl<M: Machine> Slabs<M> {
    /// All caches, as far as their list is sound.
    ///
    /// # Safety
    ///
    /// No cache is created or goes meanwhile.
    pub(crate) unsafe fn look_at_caches(&self) -> impl Iterator<Item = NonNull<KmemCache<M>>> {
        let map = *self.mm().frames();
        let own =
            core::ptr::from_ref(self).addr()..core::ptr::from_ref(self).addr() + size_of::<Self>();
        let sound = move |cache: *mut KmemCache<M>| {
            let address = cache.addr();
            // The first ones lie in the allocator itself.
            let is_there =
                own.contains(&address) || is_memory(&map, address, size_of::<KmemCache<M>>());
            NonNull::new(cache).filter(|cache| is_there && cache.is_aligned())
        };
        let first = sound(self.registry.newest());
        core::iter::successors(first, move |cache| {
            // SAFETY: memory that can be read.
            let older = unsafe { &(*cache.as_ptr()).older };
            // Acquire pairs with the Release with which caches are linked.
            sound(older.load(Ordering::Acquire))
        })
        .take(MOST_CACHES)
    }

    /// Calls `each` with every page of pointers and every chain of a lane; `Err`: the address of a page where
    /// none can be.
    ///
    /// # Safety
    ///
    /// Nobody frees meanwhile.
    pub(crate) unsafe fn for_each_batch(
        &self,
        lane: &Lane<M>,
        each: impl FnMut(Result<Batch<'_>, usize>),
    ) {
        let map = self.mm().frames();
        // SAFETY: nobody changes it, here and below.
        unsafe {
            let state = lane.state.peek();
            let is_memory = |address, bytes| is_memory(map, address, bytes);
            state.loose.for_each_batch(&is_memory, each);
        }
    }

    /// Calls `each` with everything that waits for a grace period in a page of pointers or a chain, the CPU, and the cookie
    /// (`None`: it is not closed yet).
    ///
    /// # Safety
    ///
    /// Nobody frees meanwhile.
    pub(super) unsafe fn for_each_loose(
        &self,
        mut each: impl FnMut(CpuId, NonNull<u8>, Option<u64>),
    ) {
        for lane in self.kvfree_rcu.lanes() {
            // SAFETY: as the caller promises.
            unsafe {
                self.for_each_batch(lane, |batch| {
                    if let Ok(batch) = batch {
                        let items = batch.items();
                        items.for_each(|memory| each(lane.cpu, memory, batch.cookie));
                    }
                });
            }
        }
    }

    /// Calls `each` with every object that is deferred, and the CPU, as far as their links are
    /// sound.
    ///
    /// # Safety
    ///
    /// Nobody frees meanwhile, and no cache is created or goes.
    pub(super) unsafe fn for_each_deferred(&self, mut each: impl FnMut(CpuId, NonNull<u8>)) {
        let map = *self.mm().frames();
        for cpu in M::possible_cpus().iter() {
            let mut next = self.deferred.cpus[cpu.index()].objects.peek();
            for _ in 0..MOST_DEFERRED {
                let Some(object) = next else { break };
                each(cpu, object);
                let slab = Slab::<M>::of_address(map, object.addr().get());
                // SAFETY: no cache goes.
                let mut caches = unsafe { self.look_at_caches() };
                let cache = slab.and_then(|slab| caches.find(|cache| Some(*cache) == slab.owner()));
                let linked = cache.filter(|cache| {
                    // SAFETY: one of the caches.
                    let link = unsafe { cache.as_ref() }.layout().link as usize;
                    is_memory(&map, object.addr().get() + link, size_of::<usize>())
                });
                // SAFETY: memory that can be read, and nobody writes it.
                next = linked.and_then(|cache| unsafe {
                    let link = cache.as_ref().deferred_link(object);
                    NonNull::new(link.load(Ordering::Relaxed))
                });
            }
            let mut next = self.deferred.cpus[cpu.index()].rcu.peek();
            for _ in 0..MOST_DEFERRED {
                let head = next.map(|head| head.cast::<Head>());
                let is_there = |head: &NonNull<Head>| {
                    head.is_aligned() && is_memory(&map, head.addr().get(), size_of::<Head>())
                };
                let Some(head) = head.filter(is_there) else {
                    break;
                };
                // SAFETY: memory that can be read, and nobody writes it.
                let (behind, memory) = unsafe { Head::read(head) };
                if let Some(memory) = NonNull::new(memory) {
                    each(cpu, memory);
                }
                next = behind.map(NonNull::cast);
            }
        }
    }
}
