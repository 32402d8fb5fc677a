//! Lists that are read without a lock.
//!
//! A [`List`] owns its elements. Readers walk along it in a section, and take no lock and
//! write nothing; updaters have the list's lock, and change one link at a time:
//!
//! | update | link that is stored to | a reader on its way |
//! |---|---|---|
//! | insert | that of the element before | meets the new one, or came too early |
//! | remove | the same, with what the removed one leads to | standing on the removed one it goes on from there, since that keeps its link |
//! | replace | the same, with the new one, which leads on as the old one does | meets one of the two |
//!
//! So a reader meets every element that is in the list all the while, once, in order; of those
//! that come or go meanwhile it may meet some. What it meets is not freed before its section
//! ends: removed elements are [`Retired`](crate::Retired). That goes for what a removed element
//! leads to as well. If that is removed later, it is still there: whoever stands on the first
//! one began before either was removed.
//!
//! Links go one way, so a removal needs the element before: updaters walk with a [`Cursor`].
//!
//! Allocation is apart from insertion: an [`Element`] in an [`RcuBox`] is made before the lock
//! is taken, and what was removed can be had back after a grace period, and inserted anew.
//! Nothing is dropped under the lock.

mod cursor;

use core::{fmt, iter::FusedIterator, marker::PhantomData, ops::Deref, ptr::NonNull};

use platform::{
    lock::{Class, SpinGuard, SpinLock},
    sync::{AtomicPtr, Ordering, const_unless_model},
};

use crate::{
    Machine,
    boxed::{Node, RcuBox},
    reader::Guard,
};

pub use cursor::Cursor;

/// What leads to an element, or is null at the end.
type Link<T> = AtomicPtr<Node<Element<T>>>;

/// A value with a link, as lists own it.
pub struct Element<T> {
    /// Written by its owner before it is in a list, then by who has that list's lock. Of an
    /// element that was removed it stays as it was.
    next: Link<T>,
    value: T,
}

impl<T> Element<T> {
    /// A boxed element, in no list. `None`: no memory; `value` is dropped. Allocates.
    pub fn try_new(value: T) -> Option<RcuBox<Self>> {
        let next = AtomicPtr::new(core::ptr::null_mut());
        RcuBox::try_new(Self { next, value })
    }

    /// The value, to be changed: the element is in no list.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.value
    }

    /// The value. The element is in no list.
    pub fn into_value(self) -> T {
        self.value
    }
}

impl<T> Deref for Element<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Element<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Element").field(&self.value).finish()
    }
}

/// The list. See the module. `C` is the class of its lock; callbacks are queued while it is
/// held, so its level is below those of RCU's locks.
///
/// ```
/// use platform::lock_class;
/// use rcu::{Machine, Rcu, list::{Element, List}};
///
/// lock_class! { struct Listeners = ("listeners", 10); }
///
/// fn publish<M: Machine>(listeners: &List<fn(u32), M, Listeners>, event: u32) {
///     let guard = rcu::read();
///     for listener in listeners.iter(&guard) {
///         listener(event);
///     }
/// }
///
/// fn add<M: Machine>(listeners: &List<fn(u32), M, Listeners>, new: fn(u32)) -> bool {
///     let Some(element) = Element::try_new(new) else { return false };
///     listeners.lock().push_front(element);
///     true
/// }
///
/// fn remove<M: Machine>(listeners: &List<fn(u32), M, Listeners>, old: fn(u32), rcu: &Rcu<M>) {
///     let mut updater = listeners.lock();
///     let mut cursor = updater.cursor();
///     if cursor.seek(|listener| core::ptr::fn_addr_eq(*listener, old)) {
///         // Freed after a grace period.
///         cursor.remove(rcu);
///     }
/// }
/// ```
///
/// What a reader finds does not outlive its section:
///
/// ```compile_fail,E0515
/// # platform::lock_class! { struct Class = ("some", 10); }
/// # use rcu::{Machine, list::List};
/// fn first<M: Machine>(list: &List<u32, M, Class>) -> Option<&u32> {
///     let guard = rcu::read();
///     list.iter(&guard).next()
/// }
/// ```
///
/// and an updater cannot free what it removed without a grace period:
///
/// ```compile_fail,E0308
/// # platform::lock_class! { struct Class = ("some", 10); }
/// # use rcu::{Machine, Rcu, RcuBox, list::{Element, List}};
/// fn pop<M: Machine>(list: &List<u32, M, Class>, rcu: &Rcu<M>) -> Option<RcuBox<Element<u32>>> {
///     list.lock().cursor().remove(rcu)
/// }
/// ```
pub struct List<T: Send + Sync + 'static, M: Machine, C: Class> {
    first: Link<T>,
    /// Who has it may store to the links.
    lock: SpinLock<(), M, C>,
    owns: PhantomData<RcuBox<Element<T>>>,
}

impl<T: Send + Sync + 'static, M: Machine, C: Class> List<T, M, C> {
    const_unless_model! {
        /// An empty one.
        pub fn new() -> Self {
            Self {
                first: AtomicPtr::new(core::ptr::null_mut()),
                lock: SpinLock::new(()),
                owns: PhantomData,
            }
        }
    }

    /// The values, from the front, as of now or later: see the module. Any context, NMI too.
    #[inline]
    pub fn iter<'g>(&'g self, _guard: &'g Guard<M>) -> Iter<'g, T> {
        Iter(&self.first)
    }

    /// Takes the lock, to update. Task context; spins.
    #[track_caller]
    pub fn lock(&self) -> Updater<'_, T, M, C> {
        Updater {
            list: self,
            _guard: self.lock.lock(),
        }
    }
}

impl<T: Send + Sync + 'static, M: Machine, C: Class> Default for List<T, M, C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Send + Sync + 'static, M: Machine, C: Class> Drop for List<T, M, C> {
    /// Frees all elements at once: readers borrow the list, so there are none.
    fn drop(&mut self) {
        // Relaxed, here and below: nobody else has the list; whatever gave it to the caller
        // has ordered this.
        let mut next = self.first.load(Ordering::Relaxed);
        while let Some(node) = NonNull::new(next) {
            // SAFETY: what is linked is the list's own.
            let element = unsafe { RcuBox::from_raw(node) };
            next = element.next.load(Ordering::Relaxed);
        }
    }
}

impl<T: fmt::Debug + Send + Sync + 'static, M: Machine, C: Class> fmt::Debug for List<T, M, C> {
    /// Begins a section to show the values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guard = Guard::new();
        f.debug_list().entries(self.iter(&guard)).finish()
    }
}

/// A reader's way along a list.
///
/// # Invariants
///
/// The link is that of a list or of an element, and what it leads to, now or at any time in
/// `'g`, is not freed in `'g`.
pub struct Iter<'g, T>(&'g Link<T>);

impl<'g, T> Iterator for Iter<'g, T> {
    type Item = &'g T;

    #[inline]
    fn next(&mut self) -> Option<&'g T> {
        // Acquire pairs with the Release of who stored the link: whoever finds an element
        // finds it initialised.
        let node = NonNull::new(self.0.load(Ordering::Acquire))?;
        // SAFETY: not freed in `'g` (invariant). Nobody changes what is in a list, or retired,
        // but for its link.
        let element = unsafe { Node::value(node) };
        // INVARIANT: an element that is found in a section leads to one that is not freed
        // before its end (see the module).
        self.0 = &element.next;
        Some(&element.value)
    }
}

impl<T> FusedIterator for Iter<'_, T> {}

impl<T> Clone for Iter<'_, T> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Iter")
    }
}

/// Who may update a list: has its lock. Preemption is off until it is dropped.
pub struct Updater<'l, T: Send + Sync + 'static, M: Machine, C: Class> {
    list: &'l List<T, M, C>,
    _guard: SpinGuard<'l, (), M, C>,
}

impl<T: Send + Sync + 'static, M: Machine, C: Class> Updater<'_, T, M, C> {
    /// Puts an element in front of all.
    pub fn push_front(&mut self, element: RcuBox<Element<T>>) {
        self.cursor().insert(element);
    }

    /// A cursor on the first element.
    pub fn cursor(&mut self) -> Cursor<'_, T, M> {
        // SAFETY: this has the lock and is borrowed for as long as the cursor lives.
        unsafe { Cursor::new(&self.list.first) }
    }
}

impl<T: Send + Sync + 'static, M: Machine, C: Class> fmt::Debug for Updater<'_, T, M, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Updater")
    }
}
