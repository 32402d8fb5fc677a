//! The frames of an area, in order, chained through their descriptors: no memory is needed
//! to remember them, and each knows its area.
//!
//! Of a frame's descriptor an area uses `tag` (the next frame's number) and `owner` (the
//! address that the area's memory begins at). The other fields are for who uses the area; of
//! these `extra` is 0 when the area comes: a stack's owner, say.

use platform::{NodeId, sync::Ordering};

use super::Source;
use crate::{
    frame::{Pfn, Use},
    gfp::Gfp,
};

/// No frame.
const END: u32 = u32::MAX;

/// A chain of frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frames {
    first: u32,
    last: u32,
    pub(super) count: u32,
}

impl Frames {
    pub(super) const NONE: Self = Self {
        first: END,
        last: END,
        count: 0,
    };

    /// `pages` frames for the area at `address`. `None`, and nothing taken, if there are not
    /// so many.
    pub(super) fn take<S: Source>(
        source: &S,
        pages: usize,
        address: usize,
        node: Option<NodeId>,
        gfp: Gfp,
        usage: Use,
    ) -> Option<Self> {
        let mut frames = Self::NONE;
        for _ in 0..pages {
            let Some(pfn) = source.alloc(node, gfp, 0, usage) else {
                frames.give_back(source, usage);
                return None;
            };
            frames.push(source, pfn, address);
        }
        Some(frames)
    }

    fn push<S: Source>(&mut self, source: &S, pfn: Pfn, address: usize) {
        // Relaxed, here and below: the frames are the area's, which moves from thread to
        // thread under the areas lock.
        if let Some(frame) = source.frame(pfn) {
            frame.tag.store(END, Ordering::Relaxed);
            frame.owner.store(address, Ordering::Relaxed);
            frame.extra.store(0, Ordering::Relaxed);
        }
        if self.count == 0 {
            self.first = pfn.0;
        } else if let Some(last) = source.frame(Pfn(self.last)) {
            last.tag.store(pfn.0, Ordering::Relaxed);
        }
        self.last = pfn.0;
        self.count += 1;
    }

    /// The frames in the order of their addresses.
    pub(super) fn iter<S: Source>(self, source: &S) -> Iter<'_, S> {
        Iter {
            source,
            next: self.first,
            left: self.count,
        }
    }

    /// Frees all frames.
    pub(super) fn give_back<S: Source>(self, source: &S, usage: Use) {
        for pfn in self.iter(source) {
            if let Some(frame) = source.frame(pfn) {
                frame.owner.store(0, Ordering::Relaxed);
            }
            // SAFETY: the chain owns its frames, and the iterator has gone past this one.
            unsafe { source.free(pfn, 0, usage) };
        }
    }
}

/// Walks a chain. A frame may be freed as soon as it was returned.
pub(super) struct Iter<'a, S: Source> {
    source: &'a S,
    next: u32,
    left: u32,
}

impl<S: Source> Iterator for Iter<'_, S> {
    type Item = Pfn;

    fn next(&mut self) -> Option<Pfn> {
        self.left = self.left.checked_sub(1)?;
        let pfn = Pfn(self.next);
        let frame = self.source.frame(pfn)?;
        self.next = frame.tag.load(Ordering::Relaxed);
        Some(pfn)
    }
}
