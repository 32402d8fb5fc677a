//! [`ConstructedCache`]: objects that keep their value while they are free.

use core::{fmt, marker::PhantomData, ops, ptr::NonNull};

use platform::NodeId;

use super::{
    super::{CreateError, Flags, KmemCache, Leaked, Machine, Slabs},
    boxed,
    cache::{Owned, spec_of},
};
use crate::Gfp;

/// What can be made without being told anything.
pub trait Construct: Send {
    /// A fresh value. Called when a slab is made, where the allocation that makes it runs.
    fn construct() -> Self;
}

/// A cache of `T`s that are made once, when their slab is, and keep their value from one user to the next: for what is
/// dear to make. Dropping the cache has it destroyed in the background, as that of a [`Cache`](super::Cache).
///
/// Their memory goes without a drop, so a `T` that needs one does not compile:
///
/// ```compile_fail,E0080
/// use mm::slab::{Flags, Slabs, typed::{Construct, ConstructedCache}};
/// use platform::hosted::Hosted;
///
/// struct Buffer(Vec<u8>);
///
/// impl Construct for Buffer {
///     fn construct() -> Self {
///         Self(Vec::new())
///     }
/// }
///
/// fn dropped(slabs: &'static Slabs<Hosted>) {
///     let _ = ConstructedCache::<Buffer, Hosted>::new(slabs, "dropped", Flags::empty());
/// }
/// // What nobody uses is not compiled so far.
/// let _: fn(&'static Slabs<Hosted>) = dropped;
/// ```
pub struct ConstructedCache<T, M: Machine>(Owned<M>, PhantomData<fn() -> T>);

impl<T: Construct, M: Machine> ConstructedCache<T, M> {
    /// A cache of `T`s. May sleep.
    ///
    /// # Errors
    ///
    /// [`CreateError`].
    pub fn new(slabs: &'static Slabs<M>, name: &str, flags: Flags) -> Result<Self, CreateError> {
        const {
            assert!(
                !core::mem::needs_drop::<T>(),
                "objects of a constructed cache are never dropped"
            );
        }
        let spec = spec_of::<T>(name, flags).constructor(construct::<T>);
        Ok(Self(Owned::new(slabs, &spec)?, PhantomData))
    }

    /// A `T`: fresh, or as its last user left it. `None`: no memory. Context as `gfp` says, but NMI.
    #[inline]
    #[track_caller]
    pub fn take(&self, gfp: Gfp) -> Option<ConstructedBox<T, M>> {
        let object = self.raw().alloc(gfp.difference(Gfp::ZERO))?;
        Some(self.boxed(object))
    }

    /// [`take`](Self::take) in memory of `node`, if that has some (only then, with `THISNODE`).
    #[track_caller]
    pub fn take_in_node(&self, gfp: Gfp, node: NodeId) -> Option<ConstructedBox<T, M>> {
        let object = self.raw().alloc_node(gfp.difference(Gfp::ZERO), node)?;
        Some(self.boxed(object))
    }

    fn boxed(&self, object: NonNull<u8>) -> ConstructedBox<T, M> {
        ConstructedBox {
            object: object.cast(),
            layout: self.raw().slabs().mm().layout(),
            owns: PhantomData,
        }
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

/// The constructor of an object.
fn construct<T: Construct>(object: NonNull<u8>) {
    // SAFETY: a fresh object of a cache for `T`s, which is nobody else's.
    unsafe { object.cast::<T>().write(T::construct()) };
}

impl<T, M: Machine> fmt::Debug for ConstructedCache<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.raw().name();
        f.debug_tuple("ConstructedCache").field(name).finish()
    }
}

/// A `T` of a [`ConstructedCache`]. Dropping it frees the object, with its value; not in NMI.
pub struct ConstructedBox<T, M: Machine> {
    object: NonNull<T>,
    /// Where frames are.
    layout: M::Layout,
    owns: PhantomData<T>,
}

// SAFETY: it owns its value, and frees its object anywhere.
unsafe impl<T: Send, M: Machine> Send for ConstructedBox<T, M> {}
// SAFETY: it gives out what a shared reference to the value gives.
unsafe impl<T: Sync, M: Machine> Sync for ConstructedBox<T, M> {}

impl<T, M: Machine> Drop for ConstructedBox<T, M> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the box's own, and not used any more; it is a valid `T`, as after construction.
        unsafe { boxed::free::<M>(self.layout, self.object.cast()) };
    }
}

impl<T, M: Machine> ops::Deref for ConstructedBox<T, M> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the object is this box's, and has a value from its construction on.
        unsafe { self.object.as_ref() }
    }
}

impl<T, M: Machine> ops::DerefMut for ConstructedBox<T, M> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the box is borrowed exclusively.
        unsafe { self.object.as_mut() }
    }
}

impl<T: fmt::Debug, M: Machine> fmt::Debug for ConstructedBox<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
