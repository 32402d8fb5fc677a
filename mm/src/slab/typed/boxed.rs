//! [`SlabBox`].

use core::{fmt, marker::PhantomData, mem::ManuallyDrop, ops, ptr::NonNull};

use platform::Preempt;

use super::super::{KmemCache, Machine, Slab};
use crate::frame::{FrameMap, Pfn};

/// A `T` in an object of a [`Cache`](super::Cache). Dropping it drops the `T` and frees the object; not in
/// NMI.
///
/// It goes to other threads only if its `T` may:
///
/// ```compile_fail,E0277
/// use mm::slab::SlabBox;
/// use platform::hosted::Hosted;
///
/// fn send(_: impl Send) {}
/// fn shared(value: SlabBox<std::rc::Rc<u8>, Hosted>) {
///     send(value);
/// }
/// ```
///
/// It is its value's only owner:
///
/// ```compile_fail,E0505
/// use mm::slab::SlabBox;
/// use platform::hosted::Hosted;
///
/// fn freed(value: SlabBox<u64, Hosted>) -> u64 {
///     let inside: &u64 = &value;
///     drop(value);
///     *inside
/// }
/// ```
pub struct SlabBox<T, M: Machine> {
    object: NonNull<T>,
    /// Where frames are.
    layout: M::Layout,
    owns: PhantomData<T>,
}

// SAFETY: it owns its value, and frees its object anywhere.
unsafe impl<T: Send, M: Machine> Send for SlabBox<T, M> {}
// SAFETY: it gives out what a shared reference to the value gives.
unsafe impl<T: Sync, M: Machine> Sync for SlabBox<T, M> {}

impl<T, M: Machine> SlabBox<T, M> {
    /// Takes over an object, and writes `value` to it.
    ///
    /// # Safety
    ///
    /// The object is the caller's, of a cache with room for a `T`, which boxes
    /// [were noted of](KmemCache::note_boxes).
    #[inline]
    pub(super) unsafe fn write(layout: M::Layout, object: NonNull<u8>, value: T) -> Self {
        let object = object.cast::<T>();
        // SAFETY: as the caller promises.
        unsafe { object.write(value) };
        Self {
            object,
            layout,
            owns: PhantomData,
        }
    }

    /// The value; the object is freed.
    pub fn into_inner(this: Self) -> T {
        let this = ManuallyDrop::new(this);
        // SAFETY: the box is not used any more; its value is moved out, and the object is its own.
        unsafe {
            let value = this.object.read();
            free::<M>(this.layout, this.object.cast());
            value
        }
    }

    /// Where frames are.
    pub(super) fn layout(this: &Self) -> M::Layout {
        this.layout
    }

    /// Gives up the box: a pointer to the value, for [`from_raw`](Self::from_raw).
    pub fn into_raw(this: Self) -> NonNull<T> {
        ManuallyDrop::new(this).object
    }

    /// The box of what [`into_raw`](Self::into_raw) gave. `layout` is that of the machine's memory.
    ///
    /// # Safety
    ///
    /// It came from there, on this machine, and from each once.
    pub unsafe fn from_raw(object: NonNull<T>, layout: M::Layout) -> Self {
        Self {
            object,
            layout,
            owns: PhantomData,
        }
    }
}

/// Frees an object of a cache of a type.
///
/// # Safety
///
/// It is the caller's, of a cache that [boxes were noted of](KmemCache::note_boxes), in memory of
/// `layout`.
#[inline]
pub(super) unsafe fn free<M: Machine>(layout: M::Layout, object: NonNull<u8>) {
    // What is destroyed waits for the end of this section: from the look at the cache's hooks to the last access.
    let _here = Preempt::<M>::disable();
    // SAFETY: a machine with slabs has descriptors; only that of the object is asked for, which is
    // below any end.
    let map = unsafe { FrameMap::new(layout, Pfn(u32::MAX)) };
    // SAFETY: as the caller promises; the object keeps its slab, and that its cache.
    unsafe {
        let slab = Slab::<M>::of_object(map, object);
        slab.cache().as_ref().free(object);
    }
}

impl<T, M: Machine> Drop for SlabBox<T, M> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the box's own, and not used any more.
        unsafe {
            self.object.drop_in_place();
            free::<M>(self.layout, self.object.cast());
        }
    }
}

impl<M: Machine> KmemCache<M> {
    /// There are, or will be, boxes of this cache, which may be dropped at any time.
    pub(super) fn note_boxes(&self) {
        // Relaxed: the destroyer has the lock of the registry after who created it.
        self.boxes.store(true, platform::sync::Ordering::Relaxed);
    }
}

impl<T, M: Machine> ops::Deref for SlabBox<T, M> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the object is this box's, and has a value.
        unsafe { self.object.as_ref() }
    }
}

impl<T, M: Machine> ops::DerefMut for SlabBox<T, M> {
    #[inline]
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
