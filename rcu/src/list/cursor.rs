//! An updater's place in a list.

use core::{fmt, marker::PhantomData, ptr::NonNull};

use platform::{Mark, sync::Ordering};

use super::{Element, Link};
use crate::{
    Machine,
    boxed::{Node, RcuBox},
    engine::Rcu,
    retired::Retired,
};

/// A place on an element of a list, or at its end, that can go forward.
///
/// # Invariants
///
/// Who has the list's lock has the cursor, and nobody else. The link is that of the list or of
/// an element that is linked.
pub struct Cursor<'u, T: Send + Sync + 'static, M: Machine> {
    /// What leads to the element.
    link: &'u Link<T>,
    machine: PhantomData<fn(M)>,
}

impl<'u, T: Send + Sync + 'static, M: Machine> Cursor<'u, T, M> {
    /// A cursor on what the link leads to.
    ///
    /// # Safety
    ///
    /// For all of `'u` the caller has the list's lock, and gives it to this cursor only. The
    /// link is the list's first.
    pub(super) unsafe fn new(link: &'u Link<T>) -> Self {
        // INVARIANT: as the caller promises.
        Self {
            link,
            machine: PhantomData,
        }
    }

    fn node(&self) -> Option<NonNull<Node<Element<T>>>> {
        // Relaxed: only who has the lock stores to links, and the lock orders those.
        NonNull::new(self.link.load(Ordering::Relaxed))
    }

    fn element(&self) -> Option<&'u Element<T>> {
        // SAFETY: what is linked is not freed, and this alone can unlink it: `'u` is cut to
        // the borrow of the cursor by whoever gives it away, or it is not removed (`move_next`
        // goes on from it, and there is no way back).
        self.node().map(|node| unsafe { Node::value(node) })
    }

    /// The value here. `None`: the list's end.
    pub fn current(&self) -> Option<&T> {
        self.element().map(|element| &element.value)
    }

    /// Goes to the next element. `false`: it was at the end.
    pub fn move_next(&mut self) -> bool {
        let Some(element) = self.element() else {
            return false;
        };
        // INVARIANT: the element is linked, and stays so: only what comes after it can be
        // removed by this.
        self.link = &element.next;
        true
    }

    /// Goes to the first element, from this one on, whose value is `wanted`. `false`: there is
    /// none, and this is at the end.
    pub fn seek(&mut self, mut wanted: impl FnMut(&T) -> bool) -> bool {
        while let Some(value) = self.current() {
            if wanted(value) {
                return true;
            }
            self.move_next();
        }
        false
    }

    /// Puts an element before this one (at the end: behind the last), and goes there.
    pub fn insert(&mut self, element: RcuBox<Element<T>>) {
        // Relaxed: by the lock.
        let next = self.link.load(Ordering::Relaxed);
        self.publish(element, next);
    }

    /// Takes out the element here and goes to the next. `None`: the list's end. Any context in
    /// which the lock can be had.
    pub fn remove<'r>(&mut self, rcu: &'r Rcu<M>) -> Option<Retired<'r, Element<T>, M>> {
        let node = self.node()?;
        // SAFETY: linked, so not freed.
        let element: &Element<T> = unsafe { Node::value(node) };
        // Relaxed: by the lock.
        let next = element.next.load(Ordering::Relaxed);
        // Release pairs with the Acquire in `Iter::next`: readers may find the next element by
        // this link from now on, whose initialisation came before this, by the lock.
        self.link.store(next, Ordering::Release);
        // Readers may come by.
        M::mark(Mark::Step);
        // SAFETY: the list's own, and readers do not find it any more.
        Some(unsafe { Retired::new(node, rcu) })
    }

    /// Puts an element in place of the one here. Readers meet one of the two.
    ///
    /// # Errors
    ///
    /// The new element: this is the list's end.
    pub fn replace<'r>(
        &mut self,
        new: RcuBox<Element<T>>,
        rcu: &'r Rcu<M>,
    ) -> Result<Retired<'r, Element<T>, M>, RcuBox<Element<T>>> {
        let Some(node) = self.node() else {
            return Err(new);
        };
        // SAFETY: linked, so not freed.
        let element: &Element<T> = unsafe { Node::value(node) };
        // Relaxed: by the lock.
        let next = element.next.load(Ordering::Relaxed);
        self.publish(new, next);
        // SAFETY: the list's own, and readers do not find it any more.
        Ok(unsafe { Retired::new(node, rcu) })
    }

    /// Makes an element, which leads to `next`, the one here.
    fn publish(&mut self, element: RcuBox<Element<T>>, next: *mut Node<Element<T>>) {
        // Relaxed: the store below publishes it.
        element.next.store(next, Ordering::Relaxed);
        // Readers may come by.
        M::mark(Mark::Step);
        // Release pairs with the Acquire in `Iter::next`: readers who find the element find
        // its value and its link.
        self.link
            .store(element.into_raw().as_ptr(), Ordering::Release);
    }
}

impl<T: Send + Sync + 'static, M: Machine> fmt::Debug for Cursor<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cursor")
    }
}
