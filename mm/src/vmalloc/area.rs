//! Areas: how they are made, and their owner.

use core::{fmt, mem::ManuallyDrop, ops::Range, panic::Location, ptr::NonNull};

use super::{
    Error, Request, Source, Vmalloc,
    frames::Frames,
    node::{Info, Kind, NodeRef},
    space::Short,
};
use crate::{
    frame::{PAGE_SIZE, Pfn, Use},
    gfp::Gfp,
    machine::{Access, Layout, Machine},
};

/// An area of mapped pages. Dropping it frees it, in any context; what it was made of by
/// [`Vmalloc::map`] stays whose it was.
pub struct Area<'v, M: Machine, S: Source> {
    vmalloc: &'v Vmalloc<M, S>,
    /// Busy, and nobody else's.
    node: NodeRef,
}

// SAFETY: the area is its owner's, like a box; the node is read by others under the areas
// lock, and changed only by the one free.
unsafe impl<M: Machine, S: Source> Send for Area<'_, M, S> {}
// SAFETY: shared references only read, what does not change while the area is busy.
unsafe impl<M: Machine, S: Source> Sync for Area<'_, M, S> {}

/// How often an allocation is tried; before each try but the first there is a purge.
const TRIES: usize = 2;

impl<M: Machine, S: Source> Vmalloc<M, S> {
    /// An area of new frames. Their contents are whatever was in them, unless the flags ask
    /// for zeros. A thread that may sleep.
    ///
    /// # Errors
    ///
    /// [`Error`]; reported, unless the flags say not to. Nothing is left of it then.
    #[track_caller]
    pub fn alloc(&self, request: &Request) -> Result<Area<'_, M, S>, Error> {
        let caller = Location::caller();
        self.try_alloc(request, caller)
            .inspect_err(|error| self.failed(request.size, request.gfp, *error, caller))
    }

    /// An area that shows `frames`, in this order. A thread that may sleep.
    ///
    /// Who frees the area where it may sleep can pass the frames on at once: no CPU has
    /// translations to them any more. After a free where it may not sleep, the frames must
    /// stay where they are until a later [`purge`](Self::purge).
    ///
    /// # Errors
    ///
    /// [`Error`]; reported.
    ///
    /// # Safety
    ///
    /// The frames are the caller's to show, for as long as the area lives, and what is done
    /// through the area fits what else is done with them.
    #[track_caller]
    pub unsafe fn map(&self, frames: &[Pfn], access: Access) -> Result<Area<'_, M, S>, Error> {
        let caller = Location::caller();
        let request = Request {
            access,
            ..Request::new(frames.len().saturating_mul(PAGE_SIZE), Gfp::KERNEL)
        };
        self.attempt(&request, Kind::Vmap, caller, |_| Ok(frames.iter().copied()))
            .inspect_err(|error| self.failed(request.size, request.gfp, *error, caller))
    }

    fn try_alloc(
        &self,
        request: &Request,
        caller: &'static Location<'static>,
    ) -> Result<Area<'_, M, S>, Error> {
        // What cannot be is refused before it takes all memory there is.
        let pages = request.size.div_ceil(PAGE_SIZE);
        if pages as u64 > self.source.total() {
            return Err(Error::TooLarge);
        }
        self.attempt(request, Kind::Vmalloc, caller, |node| {
            let frames = Frames::take(
                &self.source,
                pages,
                node.memory().start,
                request.node,
                // One report is enough, and it is made by who asked.
                request.gfp | Gfp::NOWARN,
                request.usage,
            );
            let frames = frames.ok_or(Error::NoMemory)?;
            node.frames.set(frames);
            Ok(frames.iter(&self.source))
        })
    }

    /// Tries to make an area, purges if that fails, and tries again.
    fn attempt<I: Iterator<Item = Pfn>>(
        &self,
        request: &Request,
        kind: Kind,
        caller: &'static Location<'static>,
        mut fill: impl FnMut(NodeRef) -> Result<I, Error>,
    ) -> Result<Area<'_, M, S>, Error> {
        if M::CHECK_LOCKS {
            M::might_sleep(caller);
        }
        let range = self.layout.vmalloc();
        let info = Info {
            kind,
            usage: request.usage,
            access: request.access,
            guard_below: request.guard_below,
            guard_above: request.guard_above,
            size: request.size,
            caller,
        };
        if request.size == 0
            || !request.align.is_power_of_two()
            || request.gfp.contains(Gfp::NOLOCK)
        {
            return Err(Error::BadRequest);
        }
        let guards = (u64::from(request.guard_below) + u64::from(request.guard_above)) as usize;
        let pages = request.size.div_ceil(PAGE_SIZE).saturating_add(guards);
        if pages > range.len() / PAGE_SIZE || request.align > range.end {
            return Err(Error::TooLarge);
        }
        let size = pages * PAGE_SIZE;
        let align = request.align.max(PAGE_SIZE);
        self.drain();
        let mut tries = 1;
        loop {
            let result = self.claim(size, align, info, request.gfp);
            let result = result.and_then(|node| self.fill(node, &mut fill));
            match result {
                Ok(node) => {
                    return Ok(Area {
                        vmalloc: self,
                        node,
                    });
                }
                Err(error) => {
                    self.free_retired();
                    let last = tries == TRIES || !self.has_lazy();
                    // Frames of others may have been mapped for a while.
                    if !last || kind == Kind::Vmap {
                        self.purge();
                    }
                    if last {
                        return Err(error);
                    }
                    tries += 1;
                }
            }
        }
    }

    /// Claims a range; gets descriptors for it if need be.
    fn claim(&self, size: usize, align: usize, info: Info, gfp: Gfp) -> Result<NodeRef, Error> {
        loop {
            let claimed = self.space.lock().claim(size, align, info);
            match claimed {
                Ok(node) => return Ok(node),
                Err(Short::Space) => return Err(Error::NoSpace),
                // Somebody else may use them up before us; but they lead to an area of
                // theirs, so this ends.
                Err(Short::Descriptors) => self.add_descriptors(gfp)?,
            }
        }
    }

    /// Fills a claimed range with frames. After an error it is not ours any more.
    fn fill<I: Iterator<Item = Pfn>>(
        &self,
        node: NodeRef,
        fill: &mut impl FnMut(NodeRef) -> Result<I, Error>,
    ) -> Result<NodeRef, Error> {
        let mut frames = match fill(node) {
            Ok(frames) => frames,
            Err(error) => {
                // Nothing was mapped, so there is nothing to flush.
                self.space.lock().release(node);
                return Err(error);
            }
        };
        let access = node.info.get().map_or(Access::Read, |info| info.access);
        // SAFETY: the range is claimed, so it is this thread's, not mapped, and was flushed
        // since it was; the frames are the area's, or those that `map` was promised.
        let mapped = unsafe { M::map(self.layout, node.memory().start, &mut frames, access) };
        let mut space = self.space.lock();
        if mapped.is_err() {
            // A part may have been mapped for a while.
            space.lazy(node);
            return Err(Error::NoTables);
        }
        space.busy(node);
        Ok(node)
    }

    fn has_lazy(&self) -> bool {
        self.space.lock().counts.lazy > 0
    }

    /// Takes over an area that [`Area::into_raw`] gave away.
    ///
    /// # Safety
    ///
    /// `address` is what that returned (or one of the raw allocations), and the area is the
    /// caller's.
    ///
    /// # Panics
    ///
    /// If there is no area there.
    pub unsafe fn area_from_raw(&self, address: NonNull<u8>) -> Area<'_, M, S> {
        let node = self.space.lock().tree.at(address.addr().get());
        let node = node.filter(|node| {
            node.state.get() == super::RangeState::Busy
                && node.memory().start == address.addr().get()
        });
        Area {
            vmalloc: self,
            node: node.expect("the address is that of an area"),
        }
    }
}

impl<'v, M: Machine, S: Source> Area<'v, M, S> {
    /// Its first byte.
    pub fn address(&self) -> NonNull<u8> {
        let start = core::ptr::with_exposed_provenance_mut(self.memory().start);
        // SAFETY: the range does not begin at 0.
        unsafe { NonNull::new_unchecked(start) }
    }

    /// The addresses that are mapped: whole pages.
    pub fn memory(&self) -> Range<usize> {
        self.node.memory()
    }

    /// The addresses that are the area's, guards included.
    pub fn range(&self) -> Range<usize> {
        self.node.start.get()..self.node.end.get()
    }

    /// How many pages are mapped.
    pub fn pages(&self) -> usize {
        self.memory().len() / PAGE_SIZE
    }

    /// What its frames are used for.
    pub fn usage(&self) -> Use {
        self.node.info.get().map_or(Use::Vmalloc, |info| info.usage)
    }

    /// Its frames, in the order of their addresses; none if they are not its own.
    pub fn frames(&self) -> impl Iterator<Item = Pfn> + '_ {
        self.node.frames.get().iter(&self.vmalloc.source)
    }

    /// Gives the area away; [`Vmalloc::area_from_raw`] takes it back.
    pub fn into_raw(self) -> NonNull<u8> {
        ManuallyDrop::new(self).address()
    }

    /// The range that it lies in.
    pub fn vmalloc(&self) -> &'v Vmalloc<M, S> {
        self.vmalloc
    }
}

impl<M: Machine, S: Source> Drop for Area<'_, M, S> {
    #[track_caller]
    fn drop(&mut self) {
        let address = self.memory().start;
        if M::may_sleep() {
            self.vmalloc.free_now(address, None, Location::caller());
        } else {
            // SAFETY: the descriptor stays until the area was freed, which is what the entry
            // is for; the area is dropped once.
            unsafe {
                let entry = NonNull::from(&self.node.as_ptr().as_ref().later);
                self.vmalloc.free_later(entry, address, Location::caller());
            }
        }
    }
}

impl<M: Machine, S: Source> fmt::Debug for Area<'_, M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Area")
            .field("memory", &format_args!("{:#x?}", self.memory()))
            .finish_non_exhaustive()
    }
}
