//! Typed pointers that RCU protects.

use core::{fmt, marker::PhantomData, ptr::NonNull};

use platform::sync::{AtomicPtr, Ordering, const_unless_model};

use crate::{
    Machine,
    boxed::{Node, RcuBox},
    engine::Rcu,
    reader::Guard,
    retired::Retired,
};

/// A place for a value that readers find without a lock, and that updaters replace as a
/// whole: the old value stays until those readers have gone who found it.
///
/// | who | by | has |
/// |---|---|---|
/// | reader, in a section | [`read`](Self::read) | the value of that moment, until the section's end |
/// | updater | [`replace`](Self::replace), [`assign`](Self::assign) | the old value, [`Retired`] |
/// | who has the place for itself | [`get_mut`](Self::get_mut), [`into_inner`](Self::into_inner) | the value |
///
/// Updaters exchange the value by one atomic instruction, so each value is retired once,
/// however many updaters there are. Those who make the new value of the old one need a lock of
/// their own, or an update of another may be lost between their `read` and `replace`.
///
/// Dropped, it frees its value at once: readers borrow the place, so there are none.
///
/// ```
/// use rcu::{Machine, Pointer, Rcu, RcuBox};
///
/// struct Limits { low: u32, high: u32 }
///
/// fn is_within<M: Machine>(limits: &Pointer<Limits, M>, value: u32) -> bool {
///     let guard = rcu::read();
///     let Some(limits) = limits.read(&guard) else { return true };
///     // Both of one update.
///     limits.low <= value && value <= limits.high
/// }
///
/// fn raise<M: Machine>(limits: &Pointer<Limits, M>, rcu: &Rcu<M>) {
///     let Some(new) = RcuBox::try_new(Limits { low: 10, high: 20 }) else { return };
///     limits.assign(Some(new), rcu);
/// }
/// ```
///
/// A reference does not outlive its section:
///
/// ```compile_fail,E0515
/// # use rcu::{Machine, Pointer};
/// fn too_long<M: Machine>(pointer: &Pointer<u32, M>) -> Option<&u32> {
///     let guard = rcu::read();
///     pointer.read(&guard)
/// }
/// ```
///
/// ```compile_fail,E0505
/// # use rcu::{Machine, Pointer};
/// fn too_long<M: Machine>(pointer: &Pointer<u32, M>) -> u32 {
///     let guard = rcu::read();
///     let value = pointer.read(&guard);
///     drop(guard);
///     *value.unwrap_or(&0)
/// }
/// ```
///
/// nor the place:
///
/// ```compile_fail,E0505
/// # use rcu::{Machine, Pointer};
/// fn too_long<M: Machine>(pointer: Pointer<u32, M>) -> u32 {
///     let guard = rcu::read();
///     let value = pointer.read(&guard);
///     drop(pointer);
///     *value.unwrap_or(&0)
/// }
/// ```
///
/// A section belongs to its thread:
///
/// ```compile_fail,E0277
/// # use rcu::Machine;
/// fn send<T: Send>(_: T) {}
/// fn elsewhere<M: Machine>() {
///     send(rcu::read::<M>());
/// }
/// ```
///
/// A reader cannot change the value:
///
/// ```compile_fail,E0594
/// # use rcu::{Machine, Pointer};
/// fn change<M: Machine>(pointer: &Pointer<u32, M>) {
///     let guard = rcu::read();
///     *pointer.read(&guard).unwrap() = 7;
/// }
/// ```
///
/// and the value is one that threads may share, and any thread may drop at any time:
///
/// ```compile_fail,E0277
/// # use rcu::{Machine, Pointer};
/// fn not_sync<M: Machine>(pointer: &Pointer<core::cell::Cell<u32>, M>) {}
/// ```
///
/// ```compile_fail,E0277
/// # use rcu::{Machine, Pointer};
/// fn not_send<M: Machine>(pointer: &Pointer<std::sync::MutexGuard<'static, u32>, M>) {}
/// ```
///
/// ```compile_fail,E0521
/// # use rcu::{Machine, Pointer, Rcu, RcuBox};
/// fn not_static<'a, M: Machine>(value: &'a u32, rcu: &Rcu<M>) {
///     let pointer = Pointer::new();
///     pointer.assign(RcuBox::try_new(value), rcu);
/// }
/// ```
pub struct Pointer<T: Send + Sync + 'static, M: Machine> {
    /// Owned; null or from [`RcuBox::into_raw`].
    node: AtomicPtr<Node<T>>,
    owns: PhantomData<RcuBox<T>>,
    machine: PhantomData<fn(M)>,
}

impl<T: Send + Sync + 'static, M: Machine> Pointer<T, M> {
    const_unless_model! {
        /// One without a value.
        pub fn new() -> Self {
            Self {
                node: AtomicPtr::new(core::ptr::null_mut()),
                owns: PhantomData,
                machine: PhantomData,
            }
        }
    }

    /// The value. It stays what it is until the end of the section, whatever is assigned
    /// meanwhile. Any context, NMI too.
    #[inline(always)]
    pub fn read<'g>(&'g self, _guard: &'g Guard<M>) -> Option<&'g T> {
        // Acquire pairs with the Release in `replace`: whoever finds the value finds it
        // initialised. (The order of an address that is loaded and what is loaded from there
        // would be enough, but there is no name for it in Rust, and on x86-64 a plain load is
        // an Acquire.)
        let node = NonNull::new(self.node.load(Ordering::Acquire))?;
        // SAFETY: found in a section, so not freed before its end: whoever takes it out from
        // now on has a `Retired`, which waits for the section. Not freed by this place's drop
        // either, as it is borrowed. Retired or not, it is not changed.
        Some(unsafe { Node::value(node) })
    }

    /// Puts a value, or none, in place of what is there, which is given to the caller: readers
    /// that begin from now on find the new one. Wait-free. Any context but NMI.
    pub fn replace<'r>(
        &self,
        new: Option<RcuBox<T>>,
        rcu: &'r Rcu<M>,
    ) -> Option<Retired<'r, T, M>> {
        // AcqRel: readers find the new value initialised (`read`), and so does the updater
        // find the old one, whoever put it there.
        let old = self.node.swap(into_ptr(new), Ordering::AcqRel);
        // SAFETY: it was owned by this place, which has it no more; a swap gives it to one
        // updater only.
        NonNull::new(old).map(|old| unsafe { Retired::new(old, rcu) })
    }

    /// [`replace`](Self::replace), and frees the old value after a grace period. Any context
    /// but NMI.
    pub fn assign(&self, new: Option<RcuBox<T>>, rcu: &Rcu<M>) {
        drop(self.replace(new, rcu));
    }

    /// The value, to be changed in place: there are no readers.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        let node = NonNull::new(self.own())?;
        // SAFETY: this owns it, and nobody else has this; readers have borrowed it.
        Some(unsafe { Node::value_mut(node) })
    }

    /// The value's box: there are no readers.
    pub fn into_inner(self) -> Option<RcuBox<T>> {
        let node = NonNull::new(self.own());
        core::mem::forget(self);
        // SAFETY: this owned it.
        node.map(|node| unsafe { RcuBox::from_raw(node) })
    }

    /// The node, for who has this for itself.
    fn own(&self) -> *mut Node<T> {
        // Relaxed: nobody else has it; whatever gave it to the caller has ordered this.
        self.node.load(Ordering::Relaxed)
    }
}

fn into_ptr<T>(value: Option<RcuBox<T>>) -> *mut Node<T> {
    value.map_or(core::ptr::null_mut(), |value| value.into_raw().as_ptr())
}

impl<T: Send + Sync + 'static, M: Machine> From<Option<RcuBox<T>>> for Pointer<T, M> {
    fn from(value: Option<RcuBox<T>>) -> Self {
        Self {
            node: AtomicPtr::new(into_ptr(value)),
            owns: PhantomData,
            machine: PhantomData,
        }
    }
}

impl<T: Send + Sync + 'static, M: Machine> Drop for Pointer<T, M> {
    fn drop(&mut self) {
        // SAFETY: this owned it; readers have borrowed this, so there are none.
        drop(NonNull::new(self.own()).map(|node| unsafe { RcuBox::from_raw(node) }));
    }
}

impl<T: Send + Sync + 'static, M: Machine> Default for Pointer<T, M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug + Send + Sync + 'static, M: Machine> fmt::Debug for Pointer<T, M> {
    /// Begins a section to show the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guard = Guard::new();
        f.debug_tuple("Pointer").field(&self.read(&guard)).finish()
    }
}
