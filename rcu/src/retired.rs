//! What was taken out of reach, while readers may still hold it.

use core::{fmt, mem::ManuallyDrop, ops::Deref, ptr::NonNull};

use crate::{
    Machine,
    boxed::{Node, RcuBox, free},
    engine::Rcu,
    poll::FullCookie,
};

/// A value that no reader can find any more, and that those may still hold who found it in
/// time. It may be looked at, not changed; it is freed, or had back, only by way of a grace
/// period that began after it was taken out:
///
/// | way | waits | the value |
/// |---|---|---|
/// | dropped, [`free_after`](Self::free_after) | no | is dropped by a callback |
/// | [`synchronize`](Self::synchronize) | yes | comes back |
/// | [`synchronize_expedited`](Self::synchronize_expedited) | yes, shortly; disturbs other CPUs | comes back |
/// | [`try_take`](Self::try_take), now and then | no | comes back if the grace period is over |
///
/// It remembers the moment when it was taken out. A grace period that has passed by since
/// counts for all four: of a thousand values that were taken out one after the other, only the
/// first to be waited for takes time.
///
/// Forgotten (`mem::forget`), the value leaks, and nothing worse.
///
/// What was retired cannot be freed or changed by other means:
///
/// ```compile_fail,E0308
/// # use rcu::{Machine, RcuBox, Retired};
/// fn free_at_once<M: Machine>(retired: Retired<'_, u32, M>) {
///     let boxed: RcuBox<u32> = retired;
/// }
/// ```
///
/// ```compile_fail,E0594
/// # use rcu::{Machine, Retired};
/// fn change<M: Machine>(mut retired: Retired<'_, u32, M>) {
///     *retired = 7;
/// }
/// ```
///
/// but
///
/// ```
/// # use rcu::{Machine, RcuBox, Retired};
/// fn change_later<M: Machine>(retired: Retired<'_, u32, M>) {
///     let mut boxed: RcuBox<u32> = retired.synchronize();
///     *boxed = 7;
/// }
/// ```
pub struct Retired<'r, T: Send + Sync + 'static, M: Machine> {
    /// Owned. Readers may hold its value until the grace period that the cookie names is over.
    node: NonNull<Node<T>>,
    rcu: &'r Rcu<M>,
    cookie: FullCookie,
}

// SAFETY: it is a box that is shared with readers: it goes to another thread, which may drop
// the value (`Send`), while readers look at it (`Sync`); both are bounds of the type.
unsafe impl<T: Send + Sync + 'static, M: Machine> Send for Retired<'_, T, M> {}
// SAFETY: shared, it gives shared references to the value, which is `Sync`.
unsafe impl<T: Send + Sync + 'static, M: Machine> Sync for Retired<'_, T, M> {}

impl<'r, T: Send + Sync + 'static, M: Machine> Retired<'r, T, M> {
    /// What was just taken out. Any context but NMI.
    ///
    /// # Safety
    ///
    /// The node came from [`RcuBox::into_raw`], and its owner gives it up. A section that
    /// begins after this cannot find it.
    pub(crate) unsafe fn new(node: NonNull<Node<T>>, rcu: &'r Rcu<M>) -> Self {
        Self {
            node,
            rcu,
            // The stores that took it out come before the moment that the cookie names.
            cookie: rcu.snap_full(),
        }
    }

    /// Frees it after a grace period, without waiting: a callback drops the value, in the
    /// context in which callbacks run, at the latest before a later
    /// [`Rcu::barrier`](crate::Rcu::barrier) returns. As dropping does, said aloud. Any context
    /// but NMI.
    pub fn free_after(self) {}

    /// Waits until no reader holds it. Task context; sleeps; not in a section.
    #[track_caller]
    pub fn synchronize(self) -> RcuBox<T> {
        self.rcu.cond_synchronize_full(self.cookie);
        // SAFETY: the grace period is over.
        unsafe { self.take() }
    }

    /// [`synchronize`](Self::synchronize), in a hurry: interrupts the CPUs that are in a
    /// section. Task context; sleeps; not in a section.
    #[track_caller]
    pub fn synchronize_expedited(self) -> RcuBox<T> {
        if !self.rcu.poll_full(self.cookie) {
            self.rcu.cond_synchronize_expedited(self.cookie.expedited);
        }
        // SAFETY: a grace period of either kind is over.
        unsafe { self.take() }
    }

    /// Asks for a grace period, so that [`try_take`](Self::try_take) succeeds some day even if
    /// nobody else wants one. Any context but NMI.
    pub fn start_poll(&self) {
        self.rcu.start_poll_full();
    }

    /// Whether [`try_take`](Self::try_take) would succeed. Once it would, it always would.
    pub fn poll(&self) -> bool {
        self.rcu.poll_full(self.cookie)
    }

    /// Has it back if no reader holds it any more. Does not wait. Any context.
    ///
    /// # Errors
    ///
    /// Itself: the grace period is not over.
    pub fn try_take(self) -> Result<RcuBox<T>, Self> {
        if self.poll() {
            // SAFETY: the grace period is over.
            Ok(unsafe { self.take() })
        } else {
            Err(self)
        }
    }

    /// The box.
    ///
    /// # Safety
    ///
    /// A grace period has passed since it was taken out.
    unsafe fn take(self) -> RcuBox<T> {
        let this = ManuallyDrop::new(self);
        // SAFETY: this owned it, nobody can find it, and who found it before has gone.
        unsafe { RcuBox::from_raw(this.node) }
    }
}

impl<T: Send + Sync + 'static, M: Machine> Drop for Retired<'_, T, M> {
    /// Queues it, to be freed after a grace period. Any context but NMI.
    fn drop(&mut self) {
        // SAFETY: this owned the node, and nobody has queued its head: that is done here only,
        // once. The value is `Send`, so any thread may drop it, and `'static`, so it may do so
        // at any time.
        unsafe { self.rcu.call(Node::head(self.node), free::<T>) };
    }
}

impl<T: Send + Sync + 'static, M: Machine> Deref for Retired<'_, T, M> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: nobody frees or changes it while this owns it.
        unsafe { Node::value(self.node) }
    }
}

impl<T: fmt::Debug + Send + Sync + 'static, M: Machine> fmt::Debug for Retired<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Retired").field(&**self).finish()
    }
}
