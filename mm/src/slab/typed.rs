//! Caches of a type: [`Cache`] and [`SlabBox`].

use core::{fmt, marker::PhantomData, ops, ptr::NonNull};

use platform::NodeId;

use super::{CreateError, Flags, KmemCache, Leaked, Machine, Slabs};
use crate::Gfp;

/// A cache of `T`s. Dropping it destroys it; objects in use are reported then, and may be
/// dropped later.
pub struct Cache<T, M: Machine> {
    cache: NonNull<KmemCache<M>>,
    types: PhantomData<fn() -> T>,
}

/// A `T` in an object of a [`Cache`]. It knows its cache by the frame, so it needs no lifetime; dropping it
/// frees the object. Not to be dropped in NMI.
pub struct SlabBox<T, M: Machine> {
    object: NonNull<T>,
    /// Where frames are, to find the cache.
    layout: M::Layout,
    owns: PhantomData<T>,
}

impl<T, M: Machine> Cache<T, M> {
    /// A cache of `T`s. May sleep.
    ///
    /// # Errors
    ///
    /// [`CreateError`].
    pub fn new(slabs: &'static Slabs<M>, name: &str, flags: Flags) -> Result<Self, CreateError> {
        let _ = (slabs, name, flags);
        panic!("not written yet")
    }

    /// A `T` in an object; or `value` back, if there is no memory.
    ///
    /// # Errors
    ///
    /// `value`.
    #[track_caller]
    pub fn try_new(&self, value: T, gfp: Gfp) -> Result<SlabBox<T, M>, T> {
        let _ = (value, gfp);
        panic!("not written yet")
    }

    /// [`try_new`](Self::try_new) in memory of `node`.
    ///
    /// # Errors
    ///
    /// `value`.
    #[track_caller]
    pub fn try_new_in_node(&self, value: T, gfp: Gfp, node: NodeId) -> Result<SlabBox<T, M>, T> {
        let _ = (value, gfp, node);
        panic!("not written yet")
    }

    /// Destroys the cache. May sleep.
    ///
    /// # Errors
    ///
    /// [`Leaked`]: objects are in use; they may be dropped later.
    pub fn destroy(self) -> Result<(), Leaked> {
        panic!("not written yet")
    }

    /// The cache below.
    pub fn raw(&self) -> &KmemCache<M> {
        // SAFETY: it lives until this is dropped.
        unsafe { self.cache.as_ref() }
    }
}

impl<T, M: Machine> ops::Deref for SlabBox<T, M> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the object is this box's, and has a value.
        unsafe { self.object.as_ref() }
    }
}

impl<T, M: Machine> ops::DerefMut for SlabBox<T, M> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the box is borrowed exclusively.
        unsafe { self.object.as_mut() }
    }
}

impl<T: fmt::Debug, M: Machine> fmt::Debug for SlabBox<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
