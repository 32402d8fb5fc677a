//! Asking for grace periods, through the tree.

use platform::{Platform, sync::Ordering};

use super::{Node, Tree};
use crate::{arrows::Arrow, seq::Cookie};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// It reached the root, and no grace period runs: the engine must be woken.
    Wake,
    /// It is taken care of.
    Noted,
    /// What was asked for is over.
    Done,
}

impl<P: Platform> Tree<P> {
    /// Asks for the grace period of a cookie, on behalf of a CPU.
    ///
    /// A request leaves its mark on each node on its way up, and stops where somebody was
    /// before it: at a mark for as much, or at a node where a grace period runs, whose end
    /// comes by and finds the mark. So of many requests one reaches the root.
    pub fn request(&self, cpu: usize, cookie: Cookie) -> Request {
        let mut node = self.geometry.leaf_of(cpu).0;
        loop {
            let Node { place, .. } = &self.nodes[node];
            let mut state = self.nodes[node].lock();
            if cookie.is_done(state.seq) {
                return Request::Done;
            }
            if cookie.has_started(state.seq) {
                self.arrows.take(Arrow::RequestStarted);
                return Request::Noted;
            }
            if state.needed.later(cookie) == state.needed {
                self.arrows.take(Arrow::RequestKnown);
                return Request::Noted;
            }
            state.needed = cookie;
            if state.seq.is_running() {
                self.arrows.take(Arrow::RequestRunning);
                return Request::Noted;
            }
            match place.parent {
                Some((parent, _)) => node = parent,
                None => {
                    self.note_requested(cookie);
                    self.arrows.take(Arrow::RequestRoot);
                    return Request::Wake;
                }
            }
        }
    }

    /// Under the root's lock.
    pub(super) fn note_requested(&self, cookie: Cookie) {
        let known = self.requested();
        // Release pairs with the Acquire in `requested`.
        self.requested
            .store(known.later(cookie).to_bits(), Ordering::Release);
    }

    fn requested(&self) -> Cookie {
        Cookie::from_bits(self.requested.load(Ordering::Acquire))
    }

    /// Whether a grace period has been asked for that has not begun.
    pub fn is_requested(&self) -> bool {
        let requested = self.requested();
        !requested.has_started(self.seq())
    }
}
