//! The queue of a CPU's quarantine: entries in pages, the oldest first.
//!
//! Nothing of it lies in the objects, all of whose bytes are poison: so a write after free is
//! found wherever it goes, and damages nothing here.

use core::{mem::MaybeUninit, panic::Location, ptr::NonNull};

use crate::frame::PAGE_SIZE;

/// An object in quarantine, and who freed it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Entry {
    pub object: NonNull<u8>,
    pub caller: &'static Location<'static>,
    pub at_ns: u64,
    pub thread: u32,
    /// What it counts for.
    pub bytes: u32,
}

/// Entries of a segment: what is left of a page.
pub(crate) const ENTRIES: usize = PAGE_SIZE / size_of::<Entry>() - 1;

/// A page of entries, which are filled and taken in order.
#[repr(C)]
pub(crate) struct Segment {
    /// The next younger one.
    next: Option<NonNull<Segment>>,
    entries: [MaybeUninit<Entry>; ENTRIES],
}

const _: () = assert!(size_of::<Segment>() <= PAGE_SIZE);

/// A queue of entries. What it holds of pages is its owner's to give and to get back.
///
/// # Invariants
///
/// From `first` the links lead to `last`, and there is a segment if and only if there is an
/// entry in it or [`add`](Self::add) was the last call. Written are the entries from `begin` of the first
/// segment on, all of those between, and those below `end` of the last one; as many as `len`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Fifo {
    first: Option<NonNull<Segment>>,
    last: Option<NonNull<Segment>>,
    begin: usize,
    end: usize,
    len: usize,
    bytes: usize,
}

// SAFETY: the pages are its own; objects are named, not used.
unsafe impl Send for Fifo {}

impl Fifo {
    pub const fn new() -> Self {
        Self {
            first: None,
            last: None,
            begin: 0,
            end: ENTRIES,
            len: 0,
            bytes: 0,
        }
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The sum of what they count for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is room for one more.
    pub fn has_room(&self) -> bool {
        self.end < ENTRIES
    }

    /// Makes room.
    ///
    /// # Safety
    ///
    /// There is none, and `page` is a page of memory that the caller gives away, until it comes back
    /// from [`pop`](Self::pop) or [`sweep`](Self::sweep).
    pub unsafe fn add(&mut self, page: NonNull<u8>) {
        debug_assert!(!self.has_room(), "a segment is added when the last is full");
        let segment = page.cast::<Segment>();
        // SAFETY: the caller's page; `last` is this one's.
        unsafe {
            (&raw mut (*segment.as_ptr()).next).write(None);
            match self.last {
                Some(last) => (*last.as_ptr()).next = Some(segment),
                None => {
                    self.first = Some(segment);
                    self.begin = 0;
                }
            }
        }
        self.last = Some(segment);
        self.end = 0;
    }

    /// Adds an entry. There [is room](Self::has_room).
    pub fn push(&mut self, entry: Entry) {
        debug_assert!(self.has_room(), "an entry has a place");
        let Some(last) = self.last.filter(|_| self.has_room()) else {
            return;
        };
        // SAFETY: this one's segment; below its end.
        unsafe { place(last, self.end).write(entry) };
        self.end += 1;
        self.len += 1;
        self.bytes += entry.bytes as usize;
    }

    /// Takes the oldest entry; `emptied` gets the page that it was the last of.
    pub fn pop(&mut self, emptied: impl FnOnce(NonNull<u8>)) -> Option<Entry> {
        if self.len == 0 {
            return None;
        }
        let first = self.first?;
        // SAFETY: this one's segment, and an entry that was written.
        let entry = unsafe { place(first, self.begin).read() };
        self.begin += 1;
        self.len -= 1;
        self.bytes -= entry.bytes as usize;
        if self.begin == ENTRIES || self.len == 0 {
            // SAFETY: this one's segment, which nothing leads to any more.
            self.first = unsafe { (*first.as_ptr()).next };
            self.begin = 0;
            if self.first.is_none() {
                self.last = None;
                self.end = ENTRIES;
            }
            emptied(first.cast());
        }
        Some(entry)
    }

    /// Takes out all entries that `leaves` says `true` of, oldest first; the others keep their order. `emptied` gets the
    /// pages that are not needed any more. Meanwhile this must not be used.
    pub fn sweep(
        &mut self,
        mut leaves: impl FnMut(&Entry) -> bool,
        mut emptied: impl FnMut(NonNull<u8>),
    ) {
        let Some(mut into) = self.first.filter(|_| self.len > 0) else {
            return;
        };
        let (mut from, mut at) = (into, self.begin);
        // Where the next one that stays goes: never beyond what was read.
        let mut end = self.begin;
        for _ in 0..self.len {
            // SAFETY: segments of this one, and entries that were written: as many as `len`.
            unsafe {
                if at == ENTRIES {
                    let Some(next) = (*from.as_ptr()).next else {
                        break;
                    };
                    (from, at) = (next, 0);
                }
                let entry = place(from, at).read();
                at += 1;
                if leaves(&entry) {
                    self.bytes -= entry.bytes as usize;
                    self.len -= 1;
                    continue;
                }
                if end == ENTRIES {
                    let Some(next) = (*into.as_ptr()).next else {
                        break;
                    };
                    (into, end) = (next, 0);
                }
                place(into, end).write(entry);
                end += 1;
            }
        }
        let mut rest = if self.len == 0 {
            self.last = None;
            self.end = ENTRIES;
            self.begin = 0;
            self.first.take()
        } else {
            self.last = Some(into);
            self.end = end;
            // SAFETY: this one's segment.
            unsafe { (*into.as_ptr()).next.take() }
        };
        while let Some(segment) = rest {
            // SAFETY: this one's segment until it is given away.
            rest = unsafe { (*segment.as_ptr()).next };
            emptied(segment.cast());
        }
    }

    /// Calls `each` with every entry, oldest first, as far as `is_page` says of segments that they can be
    /// looked at.
    pub fn for_each(&self, is_page: impl Fn(usize) -> bool, mut each: impl FnMut(&Entry)) {
        let (mut next, mut at) = (self.first, self.begin);
        for _ in 0..self.len {
            let Some(segment) = next.filter(|segment| is_page(segment.addr().get())) else {
                return;
            };
            // SAFETY: this one's segment, and an entry that was written.
            unsafe { each(&place(segment, at).read()) };
            at += 1;
            if at == ENTRIES {
                // SAFETY: the same segment.
                next = unsafe { (*segment.as_ptr()).next };
                at = 0;
            }
        }
    }
}

/// Where an entry lies.
///
/// # Safety
///
/// `segment` is one, and has so many entries.
unsafe fn place(segment: NonNull<Segment>, index: usize) -> *mut Entry {
    // SAFETY: as the caller promises.
    unsafe {
        (&raw mut (*segment.as_ptr()).entries)
            .cast::<Entry>()
            .add(index)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{collections::VecDeque, vec::Vec};

    use super::*;

    /// Memory for a segment.
    fn page() -> NonNull<u8> {
        let page = std::boxed::Box::<Segment>::new_uninit();
        NonNull::from(std::boxed::Box::leak(page)).cast()
    }

    fn free(page: NonNull<u8>) {
        let page = page.cast::<MaybeUninit<Segment>>();
        // SAFETY: made by `page`.
        drop(unsafe { std::boxed::Box::from_raw(page.as_ptr()) });
    }

    fn entry(number: usize) -> Entry {
        let object = core::num::NonZero::new(number + 1).unwrap();
        Entry {
            object: NonNull::without_provenance(object),
            caller: Location::caller(),
            at_ns: 0,
            thread: 0,
            bytes: number as u32 % 100,
        }
    }

    fn number(entry: &Entry) -> usize {
        entry.object.addr().get() - 1
    }

    fn contents(fifo: &Fifo) -> Vec<usize> {
        let mut found = Vec::new();
        fifo.for_each(|_| true, |entry| found.push(number(entry)));
        found
    }

    /// Against a queue of the library's, with pages counted.
    #[test]
    fn it_is_a_queue_from_which_some_may_go() {
        let mut random: u64 = 7;
        let mut below = move |end: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % end
        };
        let (mut fifo, mut model, mut pages) = (Fifo::new(), VecDeque::new(), 0);
        let mut next = 0;
        for _ in 0..3_000 {
            match below(6) {
                0..3 => {
                    for _ in 0..below(100) {
                        if !fifo.has_room() {
                            // SAFETY: a page of the test's.
                            unsafe { fifo.add(page()) };
                            pages += 1;
                        }
                        fifo.push(entry(next));
                        model.push_back(next);
                        next += 1;
                    }
                }
                3 | 4 => {
                    for _ in 0..below(130) {
                        let found = fifo.pop(|page| {
                            pages -= 1;
                            free(page);
                        });
                        assert_eq!(found.as_ref().map(number), model.pop_front());
                    }
                }
                _ => {
                    let of = 1 + below(5) as usize;
                    let mut left = Vec::new();
                    fifo.sweep(
                        |entry| {
                            let leaves = number(entry).is_multiple_of(of);
                            left.extend(leaves.then_some(number(entry)));
                            leaves
                        },
                        |page| {
                            pages -= 1;
                            free(page);
                        },
                    );
                    let gone = model.iter().copied().filter(|n| n.is_multiple_of(of));
                    assert_eq!(left, gone.collect::<Vec<_>>());
                    model.retain(|number| !number.is_multiple_of(of));
                }
            }
            assert_eq!(contents(&fifo), model.iter().copied().collect::<Vec<_>>());
            assert_eq!(fifo.len(), model.len());
            assert_eq!(fifo.bytes(), model.iter().map(|n| n % 100).sum::<usize>());
            let least = model.len().div_ceil(ENTRIES);
            assert!(
                (least..=least + 1).contains(&pages),
                "{pages} pages for {}",
                model.len()
            );
        }
        fifo.sweep(|_| true, free);
    }
}
