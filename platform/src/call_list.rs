//! Function calls between CPUs: the list that a CPU takes its calls from.
//!
//! A call puts one node a target on that target's list: a lock-free stack, pushed to by
//! compare-and-exchange and taken as a whole, so no node is ever looked at by two. Who finds
//! the list empty raises an interrupt there; who does not knows that one is under way. The
//! target runs the function and counts the call's `remaining` down, which is its last access
//! to anything of the caller's: nodes and call may lie on the caller's stack.
//!
//! | state of a node | who moves it on | how |
//! |---|---|---|
//! | private | caller | [`CallList::push`] (Release) |
//! | listed | target | [`CallList::serve`] takes the whole list (Acquire) |
//! | running | target | calls the function, then `remaining` minus one (Release) |
//! | done | caller | sees `remaining` at 0 ([`Call::is_done`], Acquire), and may go |
//!
//! The interrupt cannot be lost: a push onto an empty list raises one, and `serve` takes
//! everything pushed before it looked. A push that finds the list not empty came before the
//! take that the interrupt of an earlier push leads to.
//!
//! A CPU that goes offline closes its list: from empty to closed, in one step, and only from
//! empty. So each node was either pushed before, and is served, or its push finds the list
//! closed, and its caller counts that target out ([`Call::skip`]). Nobody waits for a CPU that
//! has gone, and it leaves no call behind.
//!
//! | state of a list | `push` | `serve` | left by |
//! |---|---|---|---|
//! | open, empty | to not empty, and an interrupt | nothing | a push; its owner, to closed ([`CallList::close`]) |
//! | open, not empty | adds | runs all, to empty | its owner |
//! | closed | refused | nothing | its owner, to empty ([`CallList::open`]) |

use core::ptr::{null_mut, without_provenance_mut};

use crate::sync::{AtomicPtr, AtomicUsize, Ordering, const_unless_model};

/// One function, to be run on some CPUs.
pub struct Call<'a> {
    function: &'a (dyn Fn() + Sync),
    /// Targets that have not run it to its end.
    remaining: AtomicUsize,
}

impl<'a> Call<'a> {
    /// A call of `function` on `targets` CPUs.
    pub fn new(function: &'a (dyn Fn() + Sync), targets: usize) -> Self {
        Self {
            function,
            remaining: AtomicUsize::new(targets),
        }
    }

    /// Counts a target out whose list was closed ([`Pushed::Closed`]). By the caller, once for
    /// each such target.
    pub fn skip(&self) {
        // Relaxed: nothing was done by that target, and the caller knows what it did itself.
        self.remaining.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether every target has run it, or was counted out. What the functions did is seen by
    /// whoever gets `true`.
    pub fn is_done(&self) -> bool {
        // Acquire pairs with the Release in `serve`.
        self.remaining.load(Ordering::Acquire) == 0
    }
}

/// A call's place on one target's list.
pub struct Node {
    call: *const Call<'static>,
    next: AtomicPtr<Node>,
}

impl Node {
    /// A node that is on no list.
    pub fn new(call: &Call<'_>) -> Self {
        Self {
            call: core::ptr::from_ref(call).cast(),
            next: AtomicPtr::new(null_mut()),
        }
    }
}

/// What became of a node that was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the owner of a list that was empty must be interrupted"]
pub enum Pushed {
    /// It is the first on its list, whose owner must be interrupted.
    First,
    /// It is behind others, which have an interrupt under way.
    Behind,
    /// It is on no list: the owner has gone offline.
    Closed,
}

/// The calls that other CPUs have asked of one. Any CPU pushes; its owner serves.
pub struct CallList {
    /// The newest node, null, or [`closed`].
    head: AtomicPtr<Node>,
}

/// The head of a list that is closed: no node's address.
fn closed() -> *mut Node {
    without_provenance_mut(align_of::<Node>())
}

impl CallList {
    const_unless_model! {
        /// An empty list.
        pub fn new() -> Self {
            Self {
                head: AtomicPtr::new(null_mut()),
            }
        }
    }

    /// Adds a node, unless the list is closed. If it was empty its owner must be interrupted.
    /// Any context.
    ///
    /// # Safety
    ///
    /// The node must be on no list, and it and its call must stay where they are until
    /// [`Call::is_done`].
    pub unsafe fn push(&self, node: &Node) -> Pushed {
        let new = core::ptr::from_ref(node).cast_mut();
        // Relaxed: the exchange below checks what was read.
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == closed() {
                return Pushed::Closed;
            }
            // Relaxed: published by the exchange.
            node.next.store(head, Ordering::Relaxed);
            // Release pairs with the Acquire in `serve`: the taker sees the node filled in.
            let pushed =
                self.head
                    .compare_exchange_weak(head, new, Ordering::Release, Ordering::Relaxed);
            match pushed {
                Ok(_) if head.is_null() => return Pushed::First,
                Ok(_) => return Pushed::Behind,
                Err(now) => head = now,
            }
        }
    }

    /// Runs all calls on the list, oldest first. Only the list's owner, not from within
    /// itself; a function may push to other lists.
    pub fn serve(&self) {
        // Relaxed: only the owner closes and opens it.
        if self.head.load(Ordering::Relaxed) == closed() {
            return;
        }
        // Acquire pairs with the Release in `push`.
        let mut newest = self.head.swap(null_mut(), Ordering::Acquire);
        let mut oldest: *mut Node = null_mut();
        while !newest.is_null() {
            // SAFETY: nodes of the taken chain stay valid until their call is counted down
            // (contract of `push`), which happens below, once for each.
            let node = unsafe { &*newest };
            // Relaxed: the chain is this CPU's alone.
            let next = node.next.load(Ordering::Relaxed);
            node.next.store(oldest, Ordering::Relaxed);
            oldest = newest;
            newest = next;
        }
        while !oldest.is_null() {
            // SAFETY: as above; the call lives as long as its node.
            let (call, next) = unsafe {
                let node = &*oldest;
                (&*node.call, node.next.load(Ordering::Relaxed))
            };
            (call.function)();
            // Release: the caller that sees 0 sees what the function did. The last access to
            // anything of the caller's.
            call.remaining.fetch_sub(1, Ordering::Release);
            oldest = next;
        }
    }

    /// Refuses nodes from here on, if the list is empty; whether it was. Only the list's owner,
    /// with interrupts off, when it goes offline.
    #[must_use = "a list that is not empty stays open, and is to be served"]
    pub fn close(&self) -> bool {
        // Relaxed: callers learn nothing from it but that they are not served.
        self.head
            .compare_exchange(null_mut(), closed(), Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes nodes again. Only the owner of a closed list, before others are told that it is
    /// online.
    pub fn open(&self) {
        // Relaxed: what tells others that the owner is online orders it before that.
        self.head.store(null_mut(), Ordering::Relaxed);
    }

    /// Whether it is closed. Exact for its owner.
    pub fn is_closed(&self) -> bool {
        self.head.load(Ordering::Relaxed) == closed()
    }
}

impl Default for CallList {
    fn default() -> Self {
        Self::new()
    }
}
