//! Boxes whose contents RCU can free.

use alloc::boxed::Box;
use core::{
    fmt,
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

use crate::{callbacks::Head, memory::try_box};

/// What lies in the box. While readers may be there, only `value` is looked at by reference:
/// the head belongs to the engine.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Node<T> {
    head: Head,
    value: T,
}

/// A box with room for a [`Head`], so that it can be freed after a grace period without
/// waiting and without memory for that. What [`Pointer`](crate::Pointer) and the containers
/// own.
///
/// Its owner is the only one who reaches it. When a container has it, readers do, and it only
/// comes back as a [`Retired`](crate::Retired).
///
/// To share something with owners that are not readers, put an [`Arc`](alloc::sync::Arc) in
/// it: a reader may then clone that and leave its section.
///
/// # Invariants
///
/// The node was allocated as a `Box<Node<T>>` is, is initialised, and this is its owner. Its
/// head is not queued.
pub struct RcuBox<T> {
    node: NonNull<Node<T>>,
    owns: PhantomData<Node<T>>,
}

// SAFETY: it owns a `T`, and nobody else reaches it.
unsafe impl<T: Send> Send for RcuBox<T> {}
// SAFETY: a shared box gives shared references to the `T`.
unsafe impl<T: Sync> Sync for RcuBox<T> {}

impl<T> RcuBox<T> {
    /// A box with `value` in it. `None`: no memory; `value` is dropped. Allocates.
    pub fn try_new(value: T) -> Option<Self> {
        let head = Head::new();
        let node = try_box(Node { head, value })?;
        // INVARIANT: of a box, initialised, the caller's alone.
        let node = NonNull::from(Box::leak(node));
        Some(Self {
            node,
            owns: PhantomData,
        })
    }

    /// The value. Frees the box.
    pub fn into_inner(self) -> T {
        self.into_box().value
    }

    /// The node, whose owner is the caller from now on.
    pub(crate) fn into_raw(self) -> NonNull<Node<T>> {
        ManuallyDrop::new(self).node
    }

    /// The box of a node.
    ///
    /// # Safety
    ///
    /// The node came from [`into_raw`](Self::into_raw), its head is not queued, and the caller
    /// is its owner, whom nobody else reaches it beside.
    pub(crate) unsafe fn from_raw(node: NonNull<Node<T>>) -> Self {
        // INVARIANT: as the caller promises.
        Self {
            node,
            owns: PhantomData,
        }
    }

    fn into_box(self) -> Box<Node<T>> {
        // SAFETY: allocated as a box, and its owner gives it up.
        unsafe { Box::from_raw(self.into_raw().as_ptr()) }
    }
}

impl<T> Node<T> {
    /// Its value.
    ///
    /// # Safety
    ///
    /// For all of `'a` the node is not freed, and nobody has its value exclusively.
    #[inline(always)]
    pub(crate) unsafe fn value<'a>(node: NonNull<Self>) -> &'a T {
        // SAFETY: as the caller promises. No reference to the whole node is made, since its
        // head may be the engine's.
        unsafe { &(*node.as_ptr()).value }
    }

    /// Its value, to be changed.
    ///
    /// # Safety
    ///
    /// For all of `'a` the node is not freed, and nobody else reaches its value.
    #[inline(always)]
    pub(crate) unsafe fn value_mut<'a>(node: NonNull<Self>) -> &'a mut T {
        // SAFETY: as the caller promises.
        unsafe { &mut (*node.as_ptr()).value }
    }

    /// Its head, to be queued with [`free`]. The pointer is good for the whole node.
    pub(crate) fn head(node: NonNull<Self>) -> NonNull<Head> {
        // It is the first field.
        node.cast()
    }
}

/// The callback that frees a node.
///
/// # Safety
///
/// The head is that of a `Node<T>`, which came from [`RcuBox::into_raw`], and nobody else
/// reaches that. This thread may drop the `T`.
pub(crate) unsafe fn free<T>(head: NonNull<Head>) {
    // SAFETY: as the caller promises.
    drop(unsafe { RcuBox::<T>::from_raw(head.cast()) });
}

impl<T> Drop for RcuBox<T> {
    fn drop(&mut self) {
        // SAFETY: allocated as a box; its owner is being dropped.
        drop(unsafe { Box::from_raw(self.node.as_ptr()) });
    }
}

impl<T> Deref for RcuBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the owner is borrowed.
        unsafe { Node::value(self.node) }
    }
}

impl<T> DerefMut for RcuBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the owner is borrowed exclusively, and nobody else reaches the node.
        unsafe { Node::value_mut(self.node) }
    }
}

impl<T: fmt::Debug> fmt::Debug for RcuBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RcuBox").field(&**self).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callbacks::List;

    #[test]
    fn a_value_is_read_while_its_head_is_queued() {
        let dropped = alloc::sync::Arc::new(());
        let nodes = [1, 2].map(|number| {
            let value = (number, alloc::sync::Arc::clone(&dropped));
            RcuBox::try_new(value).expect("memory").into_raw()
        });
        // SAFETY: not freed before the callbacks run, and not changed.
        let values = nodes.map(|node| &unsafe { Node::value(node) }.0);
        let mut list = List::new();
        for node in nodes {
            // SAFETY: the node is this test's, and its head not queued.
            unsafe { list.push(Node::head(node), free::<(u32, alloc::sync::Arc<()>)>) };
        }
        assert_eq!(values, [&1, &2]);
        let mut taken = List::new();
        taken.adopt(&mut list);
        assert!(taken.accelerate(crate::Cookie::COMPLETED));
        assert!(taken.advance(crate::Seq::INITIAL));
        let mut queue = taken.take_done();
        let (head, run) = queue.pop().expect("two are queued");
        // SAFETY: popped, and nobody looks at it any more.
        unsafe { run(head) };
        assert_eq!(values[1], &2);
        let (head, run) = queue.pop().expect("one is queued");
        // SAFETY: as above.
        unsafe { run(head) };
        assert_eq!(alloc::sync::Arc::strong_count(&dropped), 1);
    }
}
