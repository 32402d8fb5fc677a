//! [`Cache`].

use core::{alloc::Layout, fmt, marker::PhantomData, mem::ManuallyDrop, ptr::NonNull};

use platform::NodeId;

use super::{
    super::{CreateError, Destructor, Flags, KmemCache, Leaked, Machine, Slabs, Spec, name::Name},
    SlabBox,
};
use crate::Gfp;

/// A cache of `T`s. Dropping it has it [destroyed in the background](Slabs::destroy_lingering), and takes no longer than a
/// mutex; boxes that are there then are reported, and may be dropped later. [`destroy`](Self::destroy) waits.
///
/// ```
/// # #[cfg(feature = "hosted")] {
/// use mm::{Gfp, slab::{Cache, Flags, SlabBox, Slabs}};
/// use platform::hosted::Hosted;
///
/// struct Session {
///     id: u32,
///     // In one structure with the cache that it is of: a box has no lifetime.
///     peer: Option<SlabBox<Session, Hosted>>,
/// }
///
/// fn pair(slabs: &'static Slabs<Hosted>) -> Option<u32> {
///     let cache = Cache::new(slabs, "session", Flags::empty()).ok()?;
///     let first = cache.try_new(Session { id: 1, peer: None }, Gfp::KERNEL).ok()?;
///     let both = cache.try_new(Session { id: 2, peer: Some(first) }, Gfp::KERNEL).ok()?;
///     let sum = both.id + both.peer.as_ref()?.id;
///     drop(both);
///     cache.destroy().ok()?;
///     Some(sum)
/// }
/// # }
/// ```
///
/// A cache that was destroyed gives nothing any more:
///
/// ```compile_fail,E0382
/// use mm::{Gfp, slab::{Cache, Flags, Slabs}};
/// use platform::hosted::Hosted;
///
/// fn late(slabs: &'static Slabs<Hosted>) {
///     let cache = Cache::<u64, Hosted>::new(slabs, "late", Flags::empty()).unwrap();
///     cache.destroy().unwrap();
///     let _ = cache.try_new(1, Gfp::KERNEL);
/// }
/// ```
///
/// The allocator has to be there for ever, since boxes may be:
///
/// ```compile_fail,E0521
/// use mm::slab::{Cache, Flags, Slabs};
/// use platform::hosted::Hosted;
///
/// fn short(slabs: &Slabs<Hosted>) {
///     let _ = Cache::<u64, Hosted>::new(slabs, "short", Flags::empty());
/// }
/// ```
pub struct Cache<T, M: Machine>(pub(super) Owned<M>, PhantomData<fn() -> T>);

/// A cache that lingers when this is dropped, or is destroyed by [`destroy`](Self::destroy).
pub(super) struct Owned<M: Machine> {
    cache: NonNull<KmemCache<M>>,
    /// The one that it was created with.
    name: Name,
}

// SAFETY: a reference to what all CPUs use.
unsafe impl<M: Machine> Send for Owned<M> {}
// SAFETY: as above.
unsafe impl<M: Machine> Sync for Owned<M> {}

impl<M: Machine> Owned<M> {
    pub fn new(slabs: &'static Slabs<M>, spec: &Spec<'_>) -> Result<Self, CreateError> {
        let cache = slabs.create(spec)?;
        cache.note_boxes();
        Ok(Self {
            cache: NonNull::from(cache),
            name: Name::new(spec.name).unwrap_or(cache.name),
        })
    }

    pub fn raw(&self) -> &KmemCache<M> {
        // SAFETY: this has a reference to it.
        unsafe { self.cache.as_ref() }
    }

    pub fn destroy(self) -> Result<(), Leaked> {
        let this = ManuallyDrop::new(self);
        let cache = this.raw();
        // SAFETY: this had the reference, and is not used any more. Boxes may be dropped at any time:
        // `destroy` waits for drops that are under way where `note_boxes` was called.
        unsafe { cache.slabs().destroy_named(cache, this.name.as_str()) }
    }
}

impl<M: Machine> Drop for Owned<M> {
    fn drop(&mut self) {
        let cache = self.raw();
        // SAFETY: as in `destroy`; it is the background that waits for drops.
        unsafe {
            cache
                .slabs()
                .destroy_lingering_named(cache, self.name.as_str())
        };
    }
}

/// What a cache of `T`s is asked to be.
pub(super) fn spec_of<T>(name: &str, flags: Flags) -> Spec<'_> {
    let layout = Layout::new::<T>();
    // Objects have addresses of their own, also of what has no bytes.
    Spec::new(name, layout.size().max(1))
        .align(layout.align())
        .flags(flags)
}

/// What drops a `T` in an object that `kfree_rcu` frees; `None`: nothing need be done.
pub(super) fn destructor_of<T>() -> Option<Destructor> {
    /// # Safety
    ///
    /// The object has a `T`, which any thread may drop, and nobody uses it any more.
    unsafe fn destroy<T>(object: NonNull<u8>) {
        // SAFETY: as the caller promises.
        unsafe { object.cast::<T>().drop_in_place() };
    }
    core::mem::needs_drop::<T>().then_some(destroy::<T>)
}

impl<T, M: Machine> Cache<T, M> {
    /// A cache of `T`s. May sleep.
    ///
    /// # Errors
    ///
    /// [`CreateError`].
    pub fn new(slabs: &'static Slabs<M>, name: &str, flags: Flags) -> Result<Self, CreateError> {
        let mut spec = spec_of::<T>(name, flags);
        // Only who gives an object to `kfree_rcu` has it called, so there it is seen to that the `T` may be dropped by any thread.
        spec.destructor = destructor_of::<T>();
        Ok(Self(Owned::new(slabs, &spec)?, PhantomData))
    }

    /// A `T` in an object; or `value` back, if there is no memory. Context as `gfp` says, but
    /// NMI.
    ///
    /// # Errors
    ///
    /// `value`.
    #[inline]
    #[track_caller]
    pub fn try_new(&self, value: T, gfp: Gfp) -> Result<SlabBox<T, M>, T> {
        match self.raw().alloc(gfp.difference(Gfp::ZERO)) {
            // SAFETY: a fresh object of a cache for `T`s.
            Some(object) => Ok(unsafe { SlabBox::write(self.layout(), object, value) }),
            None => Err(value),
        }
    }

    /// [`try_new`](Self::try_new) in memory of `node`, if that has some (only then, with `THISNODE`).
    ///
    /// # Errors
    ///
    /// `value`.
    #[track_caller]
    pub fn try_new_in_node(&self, value: T, gfp: Gfp, node: NodeId) -> Result<SlabBox<T, M>, T> {
        match self.raw().alloc_node(gfp.difference(Gfp::ZERO), node) {
            // SAFETY: as above.
            Some(object) => Ok(unsafe { SlabBox::write(self.layout(), object, value) }),
            None => Err(value),
        }
    }

    fn layout(&self) -> M::Layout {
        self.raw().slabs().mm().layout()
    }

    /// Destroys the cache. May sleep.
    ///
    /// # Errors
    ///
    /// [`Leaked`]: there are boxes; they may be dropped later.
    pub fn destroy(self) -> Result<(), Leaked> {
        self.0.destroy()
    }

    /// The cache below.
    #[inline]
    pub fn raw(&self) -> &KmemCache<M> {
        self.0.raw()
    }
}

impl<T, M: Machine> fmt::Debug for Cache<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cache").field(&self.0.name).finish()
    }
}
