//! What waits for a grace period outside of sheaves: pages of pointers, and chains of heads.
//!
//! A lane has of each kind of memory an *open* page, into which pointers are put; full ones, and
//! those that are old, are *closed*: they get a cookie and go behind the others. Of heads there are two
//! chains: one that has a cookie, and the open one, which gets one when the other has been taken.

mod look;

use core::ptr::NonNull;

pub(crate) use look::Batch;

use super::head::Head;
use crate::frame::PAGE_SIZE;

/// Kinds of memory, each with pages of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// Objects of slabs, and large kmalloc.
    Kmalloc = 0,
    /// vmalloc.
    Vmalloc = 1,
}

/// How many there are.
pub(crate) const KINDS: usize = 2;

impl Kind {
    const ALL: [Self; KINDS] = [Self::Kmalloc, Self::Vmalloc];
}

/// An address that waits, and whether its cache is held for it: that was dying when the object
/// came. Memory that is given to `kfree_rcu` is aligned to 8, so there is room for a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item(*mut u8);

impl Item {
    /// Not null.
    pub fn new(memory: NonNull<u8>, held: bool) -> Self {
        Self(memory.as_ptr().map_addr(|addr| addr | usize::from(held)))
    }

    pub fn memory(self) -> NonNull<u8> {
        let memory = self.0.map_addr(|addr| addr & !1);
        // SAFETY: made of one that is not null, and more than 1.
        unsafe { NonNull::new_unchecked(memory) }
    }

    pub fn is_held(self) -> bool {
        self.0.addr() & 1 != 0
    }
}

/// A page of pointers. Lies at the beginning of a page.
#[repr(C)]
pub(crate) struct Page {
    next: Option<NonNull<Self>>,
    cookie: u64,
    kind: Kind,
    len: u32,
    items: [Item; ITEMS],
}

/// Pointers of a page.
pub(crate) const ITEMS: usize =
    (PAGE_SIZE - 2 * size_of::<u64>() - 2 * size_of::<u32>()) / size_of::<Item>();

const _: () = assert!(size_of::<Page>() == PAGE_SIZE);

/// Heads in a row, the latest first. Owns what they name.
#[derive(Debug, Default)]
struct Chain {
    first: Option<NonNull<Head>>,
    cookie: u64,
}

/// The pages and chains of a lane. Owned by who has its lock.
#[derive(Default)]
pub(crate) struct Loose {
    open: [Option<NonNull<Page>>; KINDS],
    /// Closed pages, the oldest first.
    first: Option<NonNull<Page>>,
    last: Option<NonNull<Page>>,
    /// A page without pointers, for the next that is needed.
    spare: Option<NonNull<Page>>,
    open_chain: Chain,
    closed_chain: Chain,
    /// When what is open was begun, in nanoseconds; 0: nothing is.
    pub open_since: u64,
    /// Pages that are in use.
    pub pages: u32,
}

// SAFETY: pages and heads have one owner, which is who has this.
unsafe impl Send for Loose {}

/// What was taken: its kind, if that is known; a page that has nothing left, which is the caller's then.
pub(crate) type Popped = (Item, Option<Kind>, Option<NonNull<u8>>);

/// What became of an object that was to be put in.
pub(crate) enum Put {
    /// It is in.
    In,
    /// It is, and a page was closed.
    Closed,
    /// There is no page for it; whether one was closed.
    NoPage(bool),
}

impl Loose {
    /// Puts an address into the open page of its kind; `name` gives the cookie of a page that is closed
    /// for it.
    pub fn put(&mut self, kind: Kind, item: Item, name: impl FnOnce() -> u64) -> Put {
        let mut result = Put::In;
        let mut open = self.open[kind as usize];
        if let Some(page) = open
            // SAFETY: this one's, here and below.
            && unsafe { page.as_ref() }.len as usize == ITEMS
        {
            self.close(kind, name());
            result = Put::Closed;
            open = None;
        }
        let page = match open.or_else(|| self.spare.take()) {
            Some(page) => page,
            None => return Put::NoPage(matches!(result, Put::Closed)),
        };
        // SAFETY: as above.
        unsafe {
            if open.is_none() {
                (&raw mut (*page.as_ptr()).kind).write(kind);
                self.open[kind as usize] = Some(page);
                self.pages += 1;
            }
            let len = (*page.as_ptr()).len;
            (&raw mut (*page.as_ptr()).items[len as usize]).write(item);
            (*page.as_ptr()).len = len + 1;
        }
        result
    }

    /// Gives it a page to use, unless it has a spare one: then that comes back.
    ///
    /// # Safety
    ///
    /// The caller owns the page of memory.
    pub unsafe fn give(&mut self, memory: NonNull<u8>) -> Option<NonNull<u8>> {
        if self.spare.is_some() {
            return Some(memory);
        }
        let page = memory.cast::<Page>();
        // SAFETY: the caller's. The items are written before they are read.
        unsafe {
            (&raw mut (*page.as_ptr()).next).write(None);
            (&raw mut (*page.as_ptr()).cookie).write(0);
            (&raw mut (*page.as_ptr()).kind).write(Kind::Kmalloc);
            (&raw mut (*page.as_ptr()).len).write(0);
        }
        self.spare = Some(page);
        None
    }

    /// Takes the spare page, which is the caller's then.
    pub fn take_spare(&mut self) -> Option<NonNull<u8>> {
        self.spare.take().map(NonNull::cast)
    }

    /// Links an object by its head.
    ///
    /// # Safety
    ///
    /// The head's memory is the caller's, and given up.
    pub unsafe fn chain(&mut self, head: NonNull<Head>, item: Item) {
        // SAFETY: as the caller promises.
        unsafe { Head::fill(head, self.open_chain.first, item.0) };
        self.open_chain.first = Some(head);
    }

    fn close(&mut self, kind: Kind, cookie: u64) {
        let Some(page) = self.open[kind as usize].take() else {
            return;
        };
        // SAFETY: this one's.
        unsafe {
            (*page.as_ptr()).cookie = cookie;
            (*page.as_ptr()).next = None;
            match self.last {
                Some(last) => (*last.as_ptr()).next = Some(page),
                None => self.first = Some(page),
            }
        }
        self.last = Some(page);
    }

    /// Closes what is open. The chain only if the other one has been taken, or with `force`, which lets that one
    /// wait longer. Whether anything was closed.
    pub fn close_all(&mut self, force: bool, mut name: impl FnMut() -> u64) -> bool {
        let mut any = false;
        for kind in Kind::ALL {
            if self.open[kind as usize].is_some() {
                self.close(kind, name());
                any = true;
            }
        }
        if self.open_chain.first.is_none() {
            self.open_since = 0;
            return any;
        }
        if self.closed_chain.first.is_some() {
            if !force {
                // It is still old, and closed when the other one has gone.
                return any;
            }
            // In front of it, with the later cookie.
            let mut last = self.open_chain.first;
            // SAFETY: heads that are linked are this one's.
            unsafe {
                while let Some(head) = last
                    && let (Some(next), _) = Head::read(head)
                {
                    last = Some(next);
                }
                if let Some(last) = last {
                    let (_, item) = Head::read(last);
                    Head::fill(last, self.closed_chain.first.take(), item);
                }
            }
        }
        self.open_since = 0;
        self.closed_chain = core::mem::take(&mut self.open_chain);
        self.closed_chain.cookie = name();
        true
    }

    /// Whether something is closed and waits.
    pub fn has_closed(&self) -> bool {
        self.first.is_some() || self.closed_chain.first.is_some()
    }

    /// Whether something is open.
    pub fn has_open(&self) -> bool {
        self.open.iter().any(Option::is_some) || self.open_chain.first.is_some()
    }

    /// The cookies of what is closed, to be changed.
    pub fn cookies(&mut self, mut each: impl FnMut(u64) -> u64) {
        let mut next = self.first;
        while let Some(page) = next {
            // SAFETY: this one's.
            unsafe {
                (*page.as_ptr()).cookie = each((*page.as_ptr()).cookie);
                next = (*page.as_ptr()).next;
            }
        }
        if self.closed_chain.first.is_some() {
            self.closed_chain.cookie = each(self.closed_chain.cookie);
        }
    }

    /// Takes one that is ripe. A page that has none left becomes the spare one, or comes with it.
    pub fn pop_ripe(&mut self, ripe: impl Fn(u64) -> bool) -> Option<Popped> {
        if let Some(page) = self.first
            // SAFETY: this one's, here and below.
            && ripe(unsafe { page.as_ref() }.cookie)
        {
            // SAFETY: as above; pages that are closed have pointers.
            unsafe {
                let len = (*page.as_ptr()).len - 1;
                (*page.as_ptr()).len = len;
                let item = (*page.as_ptr()).items[len as usize];
                let kind = (*page.as_ptr()).kind;
                let mut empty = None;
                if len == 0 {
                    self.first = (*page.as_ptr()).next;
                    if self.first.is_none() {
                        self.last = None;
                    }
                    empty = self.retire(page);
                }
                return Some((item, Some(kind), empty));
            }
        }
        let head = self.closed_chain.first?;
        if !ripe(self.closed_chain.cookie) {
            return None;
        }
        // SAFETY: linked, so this one's.
        let (next, item) = unsafe { Head::read(head) };
        self.closed_chain.first = next;
        Some((Item(item), None, None))
    }

    /// An empty page becomes the spare one, or comes back.
    fn retire(&mut self, page: NonNull<Page>) -> Option<NonNull<u8>> {
        self.pages -= 1;
        // SAFETY: this one's, and a page.
        unsafe { self.give(page.cast()) }
    }

    /// Takes one that is ripe and for which `is` holds. As [`pop_ripe`](Self::pop_ripe).
    pub fn pop_own(
        &mut self,
        ripe: impl Fn(u64) -> bool,
        is: impl Fn(NonNull<u8>) -> bool,
    ) -> Option<Popped> {
        let (mut before, mut next) = (None::<NonNull<Page>>, self.first);
        while let Some(page) = next {
            // SAFETY: this one's.
            unsafe {
                let behind = page.as_ref().next;
                if !ripe(page.as_ref().cookie) {
                    break;
                }
                if let Some(item) = take_from(page, &is) {
                    let mut empty = None;
                    let kind = page.as_ref().kind;
                    if page.as_ref().len == 0 {
                        match before {
                            Some(before) => (*before.as_ptr()).next = behind,
                            None => self.first = behind,
                        }
                        if self.last == Some(page) {
                            self.last = before;
                        }
                        empty = self.retire(page);
                    }
                    return Some((item, Some(kind), empty));
                }
                (before, next) = (Some(page), behind);
            }
        }
        if !ripe(self.closed_chain.cookie) {
            return None;
        }
        // SAFETY: linked, so this one's.
        let item = unsafe { self.closed_chain.take_where(&is) }?;
        Some((item, None, None))
    }
}

/// Takes one for which `is` holds out of a page.
///
/// # Safety
///
/// The page is the caller's.
unsafe fn take_from(page: NonNull<Page>, is: impl Fn(NonNull<u8>) -> bool) -> Option<Item> {
    // SAFETY: as the caller promises; the first `len` items are there.
    unsafe {
        let len = (*page.as_ptr()).len as usize;
        let items = (&raw mut (*page.as_ptr()).items).cast::<Item>();
        for index in 0..len {
            let item = items.add(index).read();
            if is(item.memory()) {
                items.add(index).write(items.add(len - 1).read());
                (*page.as_ptr()).len = len as u32 - 1;
                return Some(item);
            }
        }
    }
    None
}

impl Chain {
    /// Takes one for which `is` holds.
    ///
    /// # Safety
    ///
    /// The heads are the caller's.
    unsafe fn take_where(&mut self, is: impl Fn(NonNull<u8>) -> bool) -> Option<Item> {
        let (mut before, mut next) = (None::<NonNull<Head>>, self.first);
        while let Some(head) = next {
            // SAFETY: as the caller promises.
            let (behind, item) = unsafe { Head::read(head) };
            if is(Item(item).memory()) {
                match before {
                    // SAFETY: the same.
                    Some(before) => unsafe {
                        let (_, own) = Head::read(before);
                        Head::fill(before, behind, own);
                    },
                    None => self.first = behind,
                }
                return Some(Item(item));
            }
            (before, next) = (Some(head), behind);
        }
        None
    }
}
