//! Looking at pages and chains on a machine that stands still, without trusting what is found
//! there: for walks of the heap, and in a panic too.

use core::ptr::NonNull;

use super::{Head, ITEMS, Item, Kind, Loose, PAGE_SIZE, Page};

/// Pages of a lane, or heads of a chain, that are looked at, at most, should their links be a circle.
const MOST: usize = 1 << 20;

/// Says of an address, and a number of bytes, whether that is memory that can be read.
pub(crate) type IsMemory<'a> = &'a dyn Fn(usize, usize) -> bool;

/// A page or a chain.
pub(crate) struct Batch<'a> {
    of: Of,
    /// What it waits for; `None`: it is open.
    pub cookie: Option<u64>,
    is_memory: IsMemory<'a>,
}

#[derive(Clone, Copy)]
enum Of {
    Page(NonNull<Page>),
    Chain(NonNull<Head>),
}

impl Loose {
    /// Calls `each` with every page and chain, open ones first, then in the order in which they were closed;
    /// `Err`: the address of a page where none can be, and what is behind that is not found.
    ///
    /// # Safety
    ///
    /// Nobody changes them meanwhile.
    pub unsafe fn for_each_batch<'a>(
        &self,
        is_memory: IsMemory<'a>,
        mut each: impl FnMut(Result<Batch<'a>, usize>),
    ) {
        let page_at = |page: NonNull<Page>| {
            let address = page.addr().get();
            let sound = address.is_multiple_of(PAGE_SIZE) && is_memory(address, PAGE_SIZE);
            if sound { Ok(page) } else { Err(address) }
        };
        let batch = |of, cookie| Batch {
            of,
            cookie,
            is_memory,
        };
        for page in self.open.iter().flatten() {
            each(page_at(*page).map(|page| batch(Of::Page(page), None)));
        }
        let mut next = self.first;
        for _ in 0..MOST {
            let Some(page) = next else { break };
            let page = page_at(page);
            next = page.ok().and_then(|page| {
                // SAFETY: memory that can be read, and any bits are a pointer or none.
                unsafe { (&raw const (*page.as_ptr()).next).read() }
            });
            each(page.map(|page| {
                // SAFETY: the same.
                let cookie = unsafe { (&raw const (*page.as_ptr()).cookie).read() };
                batch(Of::Page(page), Some(cookie))
            }));
        }
        let closed = &self.closed_chain;
        for (chain, cookie) in [(&self.open_chain, None), (closed, Some(closed.cookie))] {
            if let Some(first) = chain.first {
                each(Ok(batch(Of::Chain(first), cookie)));
            }
        }
    }
}

impl Batch<'_> {
    /// The kind of memory that a page has pointers to; `None`: it is a chain, or one of no kind.
    pub fn kind(&self) -> Option<Kind> {
        let Of::Page(page) = self.of else { return None };
        // SAFETY: memory that can be read; not as a kind, which it need not be.
        let kind = unsafe { (&raw const (*page.as_ptr()).kind).cast::<u32>().read() };
        Kind::ALL.into_iter().find(|known| *known as u32 == kind)
    }

    /// Whether it is a page.
    pub fn page(&self) -> Option<usize> {
        match self.of {
            Of::Page(page) => Some(page.addr().get()),
            Of::Chain(_) => None,
        }
    }

    /// What waits in it, as far as links are sound.
    pub fn items(&self) -> impl Iterator<Item = NonNull<u8>> {
        let (mut index, mut head) = (0, None);
        if let Of::Chain(first) = self.of {
            head = Some(first);
        }
        core::iter::from_fn(move || {
            let item = match self.of {
                // SAFETY: memory that can be read, and any bits are an item.
                Of::Page(page) => unsafe {
                    let len = (&raw const (*page.as_ptr()).len).read() as usize;
                    if index >= len.min(ITEMS) {
                        return None;
                    }
                    (&raw const (*page.as_ptr()).items[index]).read()
                },
                Of::Chain(_) => {
                    let at = head?;
                    let address = at.addr().get();
                    if index >= MOST
                        || !address.is_multiple_of(align_of::<Head>())
                        || !(self.is_memory)(address, size_of::<Head>())
                    {
                        return None;
                    }
                    // SAFETY: memory that can be read.
                    let (behind, item) = unsafe { Head::read(at) };
                    head = behind;
                    Item(item)
                }
            };
            index += 1;
            Some(item.0.map_addr(|address| address & !1))
        })
        .filter_map(NonNull::new)
    }
}
