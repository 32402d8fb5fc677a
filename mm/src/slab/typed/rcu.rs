//! Values that readers find under RCU, in objects of a cache: [`RcuCache`], [`RcuBox`], [`Rcu`], [`RetiredBox`].
//!
//! | who | has | the value may be | ends by |
//! |---|---|---|---|
//! | owner | [`RcuBox`] | looked at, changed | drop: at once; [`free_rcu`](RcuBox::free_rcu): after a grace period; [`Rcu::replace`]: published |
//! | place | [`Rcu`] | read, by who is in a section | [`Rcu::replace`], drop: retired |
//! | updater | [`RetiredBox`] | looked at | drop: after a grace period; [`synchronize`](RetiredBox::synchronize): back to an owner |
//! | engine | the object, with its head | | the value's drop, in a thread, then the object is free |
//!
//! Why a cache of its own: readers may look at all of a value for as long as it waits, so what links it meanwhile
//! cannot lie in it. Of a plain [`Cache`](super::Cache) an object can only be noted in a sheaf or a page, for which there may be no
//! memory; then its owner has to wait for a grace period ([`SlabBox::free_rcu_mightsleep`]). An object of an [`RcuCache`] has the two
//! words of a [`Head`] beside its value: so giving it up never fails, and never waits.
//!
//! Everything is given up with preemption off, as boxes are dropped: from the look at the cache's hooks to the last access
//! to the cache. So who destroys the cache waits for it ([`quiesce`](super::quiesce)) before he looks for what is in flight: either he finds the
//! object there, or the cache was found dying, and then the object is in a page or chain, with a hold, and rests later.

use core::{
    cell::UnsafeCell, fmt, marker::PhantomData, mem::ManuallyDrop, mem::MaybeUninit, ops,
    ptr::NonNull,
};

use platform::{
    NodeId, Preempt,
    sync::{AtomicPtr, Ordering},
};
use rcu::{FullCookie, Guard};

use super::{
    super::{CreateError, Flags, KmemCache, Leaked, Machine, Slab, Slabs},
    SlabBox,
    cache::{Owned, destructor_of, spec_of},
};
use crate::{
    Gfp,
    frame::{FrameMap, Pfn},
    kvfree_rcu::Head,
};

/// What lies in an object. Readers have references to `value` alone, and the engine writes to `head` alone.
struct Node<T, M: Machine> {
    value: T,
    head: UnsafeCell<MaybeUninit<Head>>,
    /// Where frames are: so that a pointer to the node is enough.
    layout: M::Layout,
}

impl<T, M: Machine> Node<T, M> {
    /// Its value.
    ///
    /// # Safety
    ///
    /// For all of `'a` the node is not freed, and nobody changes its value.
    #[inline(always)]
    unsafe fn value<'a>(node: NonNull<Self>) -> &'a T {
        // SAFETY: as the caller promises.
        unsafe { &(*node.as_ptr()).value }
    }

    /// The box of a node.
    ///
    /// # Safety
    ///
    /// The caller is its owner, and gives it up; nobody else has it.
    unsafe fn boxed(node: NonNull<Self>) -> RcuBox<T, M> {
        // SAFETY: as the caller promises; it came from a box, of memory of that layout.
        RcuBox(unsafe { SlabBox::from_raw(node, (*node.as_ptr()).layout) })
    }
}

/// The cache of an object of a typed cache.
///
/// # Safety
///
/// It is one, of memory of that layout, which is the caller's for as long as the result is used.
unsafe fn cache_of<'a, M: Machine>(layout: M::Layout, object: NonNull<u8>) -> &'a KmemCache<M> {
    // SAFETY: a machine with slabs has descriptors; only that of the object is asked for, which is
    // below any end. The object keeps its slab, and that its cache.
    unsafe {
        let map = FrameMap::new(layout, Pfn(u32::MAX));
        &*Slab::<M>::of_object(map, object).cache().as_ptr()
    }
}

/// Gives an object up. `false`: there is no memory to note it in, and no head.
///
/// # Safety
///
/// The object is the caller's, of a typed cache, in memory of `layout`; only readers that are in a section may hold it. `head` lies
/// in it, and no reader looks at that.
unsafe fn free_rcu<M: Machine>(
    layout: M::Layout,
    object: NonNull<u8>,
    head: Option<NonNull<Head>>,
) -> bool {
    // SAFETY: as the caller promises. The allocator is there for ever ([`Owned::new`]).
    unsafe {
        let slabs = NonNull::from(cache_of::<M>(layout, object).slabs()).as_ref();
        let lane = {
            // What is destroyed waits for the end of this section.
            let here = Preempt::<M>::disable();
            if !cache_of::<M>(layout, object).free_rcu(object, head) {
                return false;
            }
            slabs.kvfree_rcu.lane(here.cpu())
        };
        // Which the section kept from waiting.
        slabs.kvfree_rcu.help(lane);
        true
    }
}

impl<T: Send + 'static, M: Machine> SlabBox<T, M> {
    /// Drops the value and frees the object once all sections of now are over, in a thread. Waits for that only if there is no
    /// memory to note it in; an [`RcuCache`] has objects that need none. Task context, may sleep, not in a section.
    ///
    /// ```compile_fail,E0382
    /// use mm::slab::SlabBox;
    /// use platform::hosted::Hosted;
    ///
    /// fn again(value: SlabBox<u64, Hosted>) -> u64 {
    ///     value.free_rcu_mightsleep();
    ///     *value
    /// }
    /// ```
    pub fn free_rcu_mightsleep(self) {
        let layout = SlabBox::layout(&self);
        let value = SlabBox::into_raw(self);
        let object = value.cast::<u8>();
        // SAFETY: the box's own, which is given up; `T` may be dropped by any thread, at any time.
        unsafe {
            if free_rcu::<M>(layout, object, None) {
                return;
            }
            let slabs = cache_of::<M>(layout, object).slabs();
            if !slabs.free_rcu_with_effort(object) {
                // A grace period has passed.
                drop(SlabBox::<T, M>::from_raw(value, layout));
            }
        }
    }
}

/// A cache of `T`s that readers may hold when they are given up. As a [`Cache`](super::Cache), but for two words more an object.
///
/// ```
/// # #[cfg(feature = "hosted")] {
/// use mm::{Gfp, slab::{Flags, Slabs, typed::{Rcu, RcuCache}}};
/// use platform::hosted::Hosted;
///
/// struct Route { hops: u32 }
///
/// fn change(slabs: &'static Slabs<Hosted>) -> Option<u32> {
///     let cache = RcuCache::new(slabs, "route", Flags::empty()).ok()?;
///     let route = Rcu::new(cache.try_new(Route { hops: 3 }, Gfp::KERNEL).ok()?);
///     let hops = {
///         let guard = rcu::read();
///         route.read(&guard)?.hops
///     };
///     let shorter = cache.try_new(Route { hops: hops - 1 }, Gfp::KERNEL).ok()?;
///     // Freed when no reader can hold it any more.
///     drop(route.replace(Some(shorter)));
///     Some(hops)
/// }
/// # }
/// ```
pub struct RcuCache<T, M: Machine>(Owned<M>, PhantomData<fn() -> T>);

impl<T, M: Machine> RcuCache<T, M> {
    /// A cache of `T`s. May sleep.
    ///
    /// # Errors
    ///
    /// [`CreateError`].
    pub fn new(slabs: &'static Slabs<M>, name: &str, flags: Flags) -> Result<Self, CreateError> {
        let mut spec = spec_of::<Node<T, M>>(name, flags);
        spec.destructor = destructor_of::<Node<T, M>>();
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
    pub fn try_new(&self, value: T, gfp: Gfp) -> Result<RcuBox<T, M>, T> {
        self.boxed(self.raw().alloc(gfp.difference(Gfp::ZERO)), value)
    }

    /// [`try_new`](Self::try_new) in memory of `node`, if that has some (only then, with `THISNODE`).
    ///
    /// # Errors
    ///
    /// `value`.
    #[track_caller]
    pub fn try_new_in_node(&self, value: T, gfp: Gfp, node: NodeId) -> Result<RcuBox<T, M>, T> {
        let object = self.raw().alloc_node(gfp.difference(Gfp::ZERO), node);
        self.boxed(object, value)
    }

    fn boxed(&self, object: Option<NonNull<u8>>, value: T) -> Result<RcuBox<T, M>, T> {
        let Some(object) = object else {
            return Err(value);
        };
        let layout = self.raw().slabs().mm().layout();
        let node = Node {
            value,
            head: UnsafeCell::new(MaybeUninit::uninit()),
            layout,
        };
        // SAFETY: a fresh object of a cache for nodes.
        Ok(RcuBox(unsafe { SlabBox::write(layout, object, node) }))
    }

    /// Destroys the cache. May sleep. (Dropped, it is destroyed in the background.)
    ///
    /// # Errors
    ///
    /// [`Leaked`]: there are boxes; they may be given up later.
    pub fn destroy(self) -> Result<(), Leaked> {
        self.0.destroy()
    }

    /// The cache below.
    #[inline]
    pub fn raw(&self) -> &KmemCache<M> {
        self.0.raw()
    }
}

impl<T, M: Machine> fmt::Debug for RcuCache<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RcuCache").field(self.raw().name()).finish()
    }
}

/// A `T` in an object of an [`RcuCache`], which no reader can find. Dropping it drops the `T` and frees the object at once; not
/// in NMI.
///
/// What was given up is gone:
///
/// ```compile_fail,E0382
/// use mm::slab::typed::RcuBox;
/// use platform::hosted::Hosted;
///
/// fn again(value: RcuBox<u64, Hosted>) -> u64 {
///     value.free_rcu();
///     *value
/// }
/// ```
///
/// Any thread may be the one that drops it, at any time:
///
/// ```compile_fail,E0277
/// use mm::slab::typed::RcuBox;
/// use platform::hosted::Hosted;
///
/// fn not_send(value: RcuBox<std::rc::Rc<u64>, Hosted>) {
///     value.free_rcu();
/// }
/// ```
///
/// ```compile_fail,E0521
/// use mm::slab::typed::RcuBox;
/// use platform::hosted::Hosted;
///
/// fn not_static(value: RcuBox<&u64, Hosted>) {
///     value.free_rcu();
/// }
/// ```
pub struct RcuBox<T, M: Machine>(SlabBox<Node<T, M>, M>);

// SAFETY: it has the head for itself, and gives out what a shared reference to the value gives.
unsafe impl<T: Sync, M: Machine> Sync for RcuBox<T, M> {}

impl<T, M: Machine> RcuBox<T, M> {
    /// The value; the object is freed.
    pub fn into_inner(this: Self) -> T {
        SlabBox::into_inner(this.0).value
    }

    fn into_node(self) -> NonNull<Node<T, M>> {
        SlabBox::into_raw(self.0)
    }
}

impl<T: Send + 'static, M: Machine> RcuBox<T, M> {
    /// Drops the value and frees the object once all sections of now are over, in a thread: for what readers may have found. Never
    /// fails, and never waits, unless the caller may sleep and far too much waits already. Any context but NMI, in a section too.
    pub fn free_rcu(self) {
        // SAFETY: the node was this box's, which gives it up.
        unsafe { retire(self.into_node()) };
    }
}

/// [`RcuBox::free_rcu`].
pub fn kfree_rcu<T: Send + 'static, M: Machine>(value: RcuBox<T, M>) {
    value.free_rcu();
}

/// Gives a node to the engine.
///
/// # Safety
///
/// The caller is its owner, and gives it up; only readers that are in a section may hold its value.
unsafe fn retire<T: Send + 'static, M: Machine>(node: NonNull<Node<T, M>>) {
    // SAFETY: as the caller promises. The head lies in the node, and readers do not look at it; `T` may be dropped by any
    // thread, at any time.
    unsafe {
        let head = NonNull::new_unchecked((&raw mut (*node.as_ptr()).head).cast::<Head>());
        let layout = (*node.as_ptr()).layout;
        let given = free_rcu::<M>(layout, node.cast(), Some(head));
        debug_assert!(given, "there is a head");
    }
}

impl<T, M: Machine> ops::Deref for RcuBox<T, M> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T, M: Machine> ops::DerefMut for RcuBox<T, M> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.value
    }
}

impl<T: fmt::Debug, M: Machine> fmt::Debug for RcuBox<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A place for a value of an [`RcuCache`] that readers find without a lock, and that updaters replace as a whole. As
/// [`rcu::Pointer`], whose values are of the heap.
///
/// Dropped, it retires its value. Forgotten, the value leaks, and nothing worse.
///
/// A reference does not outlive its section:
///
/// ```compile_fail,E0515
/// use mm::slab::typed::Rcu;
/// use platform::hosted::Hosted;
///
/// fn too_long(place: &Rcu<u32, Hosted>) -> Option<&u32> {
///     let guard = rcu::read();
///     place.read(&guard)
/// }
/// ```
///
/// ```compile_fail,E0505
/// use mm::slab::typed::Rcu;
/// use platform::hosted::Hosted;
///
/// fn too_long(place: &Rcu<u32, Hosted>) -> u32 {
///     let guard = rcu::read();
///     let value = place.read(&guard);
///     drop(guard);
///     *value.unwrap_or(&0)
/// }
/// ```
///
/// A reader cannot change the value:
///
/// ```compile_fail,E0594
/// use mm::slab::typed::Rcu;
/// use platform::hosted::Hosted;
///
/// fn change(place: &Rcu<u32, Hosted>) {
///     let guard = rcu::read();
///     *place.read(&guard).unwrap() = 7;
/// }
/// ```
///
/// and the value is one that threads may share, and any thread may drop at any time:
///
/// ```compile_fail,E0277
/// use mm::slab::typed::Rcu;
/// use platform::hosted::Hosted;
///
/// fn not_sync(place: &Rcu<core::cell::Cell<u32>, Hosted>) {}
/// ```
///
/// ```compile_fail,E0277
/// use mm::slab::typed::Rcu;
/// use platform::hosted::Hosted;
///
/// fn not_send(place: &Rcu<std::sync::MutexGuard<'static, u32>, Hosted>) {}
/// ```
pub struct Rcu<T: Send + Sync + 'static, M: Machine> {
    /// Owned; null or from [`RcuBox::into_node`].
    node: AtomicPtr<Node<T, M>>,
    owns: PhantomData<RcuBox<T, M>>,
}

impl<T: Send + Sync + 'static, M: Machine> Rcu<T, M> {
    /// One with a value.
    pub fn new(value: RcuBox<T, M>) -> Self {
        Self::from(Some(value))
    }

    /// One without.
    pub fn empty() -> Self {
        Self::from(None)
    }

    /// The value. It stays what it is until the end of the section, whatever replaces it
    /// meanwhile. Any context, NMI too.
    #[inline(always)]
    pub fn read<'g>(&'g self, _guard: &'g Guard<M>) -> Option<&'g T> {
        // Acquire pairs with the Release in `replace`: who finds the value finds it initialised.
        let node = NonNull::new(self.node.load(Ordering::Acquire))?;
        // SAFETY: found in a section, so not freed before its end: who takes it out from now on has a `RetiredBox`, which
        // waits for the section. It is not changed.
        Some(unsafe { Node::value(node) })
    }

    /// Puts a value, or none, in place of what is there, which is the caller's to retire: readers
    /// that begin from now on find the new one. Wait-free. Any context but NMI.
    pub fn replace(&self, new: Option<RcuBox<T, M>>) -> Option<RetiredBox<T, M>> {
        // AcqRel: readers find the new value initialised (`read`), and the updater finds the old one so, whoever put it there.
        let old = self.node.swap(into_ptr(new), Ordering::AcqRel);
        // SAFETY: it was owned by this place, which has it no more; a swap gives it to one updater only.
        NonNull::new(old).map(|old| unsafe { RetiredBox::new(old) })
    }

    /// The value, to be changed in place: there are no readers.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        let mut node = NonNull::new(self.own())?;
        // SAFETY: this owns it, and nobody else has this; readers have borrowed it.
        Some(unsafe { &mut node.as_mut().value })
    }

    /// The value's box: there are no readers.
    pub fn into_inner(self) -> Option<RcuBox<T, M>> {
        let node = NonNull::new(ManuallyDrop::new(self).own());
        // SAFETY: this owned it; readers had borrowed this, so there are none.
        node.map(|node| unsafe { Node::boxed(node) })
    }

    /// The node, for who has this for itself.
    fn own(&self) -> *mut Node<T, M> {
        // Relaxed: nobody else has it; what gave it to the caller has ordered this.
        self.node.load(Ordering::Relaxed)
    }
}

fn into_ptr<T, M: Machine>(value: Option<RcuBox<T, M>>) -> *mut Node<T, M> {
    value.map_or(core::ptr::null_mut(), |value| value.into_node().as_ptr())
}

impl<T: Send + Sync + 'static, M: Machine> From<Option<RcuBox<T, M>>> for Rcu<T, M> {
    fn from(value: Option<RcuBox<T, M>>) -> Self {
        Self {
            node: AtomicPtr::new(into_ptr(value)),
            owns: PhantomData,
        }
    }
}

impl<T: Send + Sync + 'static, M: Machine> Drop for Rcu<T, M> {
    /// Retires the value, so that it is dropped where all retired ones are. Any context but NMI.
    fn drop(&mut self) {
        if let Some(node) = NonNull::new(self.own()) {
            // SAFETY: this owned it, and gives it up.
            unsafe { retire(node) };
        }
    }
}

impl<T: fmt::Debug + Send + Sync + 'static, M: Machine> fmt::Debug for Rcu<T, M> {
    /// Begins a section to show the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guard = Guard::new();
        f.debug_tuple("Rcu").field(&self.read(&guard)).finish()
    }
}

/// A value that no reader can find any more, and that those may still hold who found it in
/// time. It may be looked at, not changed, and is freed, or had back, only by way of a grace
/// period. Dropping it frees it so ([`RcuBox::free_rcu`]); forgotten, it leaks.
///
/// ```compile_fail,E0308
/// use mm::slab::typed::{RcuBox, RetiredBox};
/// use platform::hosted::Hosted;
///
/// fn free_at_once(retired: RetiredBox<u32, Hosted>) {
///     let boxed: RcuBox<u32, Hosted> = retired;
/// }
/// ```
///
/// ```compile_fail,E0594
/// use mm::slab::typed::RetiredBox;
/// use platform::hosted::Hosted;
///
/// fn change(mut retired: RetiredBox<u32, Hosted>) {
///     *retired = 7;
/// }
/// ```
///
/// but
///
/// ```
/// # #[cfg(feature = "hosted")] {
/// use mm::slab::typed::{RcuBox, RetiredBox};
/// use platform::hosted::Hosted;
///
/// fn change_later(retired: RetiredBox<u32, Hosted>) {
///     let mut boxed: RcuBox<u32, Hosted> = retired.synchronize();
///     *boxed = 7;
/// }
/// # }
/// ```
pub struct RetiredBox<T: Send + Sync + 'static, M: Machine> {
    /// Owned. Readers may hold its value until the grace period that the cookie names is over.
    node: NonNull<Node<T, M>>,
    /// `None`: there was no engine, so no readers.
    cookie: Option<FullCookie>,
}

// SAFETY: a box that is shared with readers: it goes to another thread, which may drop
// the value (`Send`), while readers look at it (`Sync`); both are bounds of the type.
unsafe impl<T: Send + Sync + 'static, M: Machine> Send for RetiredBox<T, M> {}
// SAFETY: shared, it gives shared references to the value, which is `Sync`.
unsafe impl<T: Send + Sync + 'static, M: Machine> Sync for RetiredBox<T, M> {}

impl<T: Send + Sync + 'static, M: Machine> RetiredBox<T, M> {
    /// What was just taken out.
    ///
    /// # Safety
    ///
    /// The caller is the node's owner, and gives it up. A section that begins after this cannot find it.
    unsafe fn new(node: NonNull<Node<T, M>>) -> Self {
        let mut this = Self { node, cookie: None };
        // The stores that took it out come before the moment that the cookie names.
        this.cookie = this.slabs().rcu().map(rcu::Rcu::snap_full);
        this
    }

    fn slabs(&self) -> &Slabs<M> {
        // SAFETY: this owns the node.
        unsafe { cache_of::<M>((*self.node.as_ptr()).layout, self.node.cast()) }.slabs()
    }

    /// Waits until no reader holds it. Task context; sleeps; not in a section.
    #[track_caller]
    pub fn synchronize(self) -> RcuBox<T, M> {
        if let Some((cookie, rcu)) = self.cookie.zip(self.slabs().rcu()) {
            rcu.cond_synchronize_full(cookie);
        }
        // SAFETY: the grace period is over.
        unsafe { self.take() }
    }

    /// Has it back if no reader holds it any more. Asks for no grace period, and does not wait. Any context.
    ///
    /// # Errors
    ///
    /// Itself: the grace period is not over.
    pub fn try_take(self) -> Result<RcuBox<T, M>, Self> {
        if let Some((cookie, rcu)) = self.cookie.zip(self.slabs().rcu())
            && !rcu.poll_full(cookie)
        {
            return Err(self);
        }
        // SAFETY: the grace period is over.
        Ok(unsafe { self.take() })
    }

    /// # Safety
    ///
    /// A grace period has passed since it was taken out.
    unsafe fn take(self) -> RcuBox<T, M> {
        let node = ManuallyDrop::new(self).node;
        // SAFETY: this owned it, nobody can find it, and who found it before has gone.
        unsafe { Node::boxed(node) }
    }
}

impl<T: Send + Sync + 'static, M: Machine> Drop for RetiredBox<T, M> {
    /// Gives it to the engine. Any context but NMI.
    fn drop(&mut self) {
        // SAFETY: this owned it, and gives it up.
        unsafe { retire(self.node) };
    }
}

impl<T: Send + Sync + 'static, M: Machine> ops::Deref for RetiredBox<T, M> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: nobody frees or changes it while this owns it.
        unsafe { Node::value(self.node) }
    }
}

impl<T: fmt::Debug + Send + Sync + 'static, M: Machine> fmt::Debug for RetiredBox<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RetiredBox").field(&**self).finish()
    }
}
