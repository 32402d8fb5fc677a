//! What a cache has on a lane: the sheaves that its CPU has closed, and counts.

use core::ptr::NonNull;

use platform::sync::{AtomicBool, AtomicU64, Cell, Ordering};

use crate::slab::{KmemCache, Machine, sheaf::Sheaf};

/// A cache's part of a [lane](super::lane); lies in what the cache has of that CPU.
///
/// # Invariants
///
/// With the lane's lock: it is linked in the lane's list if, and only if, it has an open sheaf or closed ones.
pub(crate) struct Part<M: Machine> {
    pub cache: NonNull<KmemCache<M>>,
    /// Objects in closed sheaves, pages and chains of the lane. Changed with the lane's lock, read without.
    objects: AtomicU64,
    /// When the CPU's open rcu_free sheaf was opened, in nanoseconds; 0: it has none. The same.
    open_since: AtomicU64,
    linked: AtomicBool,
    inner: Cell<Inner<M>>,
}

/// What only the holder of the lane's lock sees.
struct Inner<M: Machine> {
    /// Closed sheaves, the oldest first.
    sheaves: Fifo,
    /// Objects of the cache in the lane's pages and chains.
    loose: u64,
    /// The cache is being destroyed: nobody but who does so may close its open sheaf.
    barred: bool,
    /// Its neighbours in the lane's list.
    next: Option<NonNull<Part<M>>>,
    before: Option<NonNull<Part<M>>>,
}

/// Sheaves in a row, linked by [`Sheaf::next`]. Owns them.
#[derive(Debug, Default)]
pub(crate) struct Fifo {
    pub first: Option<NonNull<Sheaf>>,
    last: Option<NonNull<Sheaf>>,
}

impl Fifo {
    /// # Safety
    ///
    /// The caller owns the sheaf, and gives it up.
    pub unsafe fn push(&mut self, sheaf: NonNull<Sheaf>) {
        // SAFETY: the caller's, and this one's.
        unsafe {
            (*sheaf.as_ptr()).next = None;
            match self.last {
                Some(last) => (*last.as_ptr()).next = Some(sheaf),
                None => self.first = Some(sheaf),
            }
        }
        self.last = Some(sheaf);
    }

    /// The oldest, which is the caller's then.
    pub fn pop(&mut self) -> Option<NonNull<Sheaf>> {
        let sheaf = self.first?;
        // SAFETY: this one's.
        self.first = unsafe { (*sheaf.as_ptr()).next.take() };
        if self.first.is_none() {
            self.last = None;
        }
        Some(sheaf)
    }
}

// SAFETY: what is in it is used with the lane's lock; counts are atomic.
unsafe impl<M: Machine> Sync for Part<M> {}
// SAFETY: as above.
unsafe impl<M: Machine> Send for Part<M> {}

impl<M: Machine> Part<M> {
    /// Nothing, of a cache that will be there.
    pub fn new(cache: NonNull<KmemCache<M>>) -> Self {
        Self {
            cache,
            objects: AtomicU64::new(0),
            open_since: AtomicU64::new(0),
            linked: AtomicBool::new(false),
            inner: Cell::new(Inner {
                sheaves: Fifo::default(),
                loose: 0,
                barred: false,
                next: None,
                before: None,
            }),
        }
    }

    /// Objects that wait here, without those in the open sheaf. Any context. Who finds none, and
    /// then none in the cache's [hands](super::hands), knows that those that were here rest.
    pub fn objects(&self) -> u64 {
        // Acquire pairs with the Release in `count`.
        self.objects.load(Ordering::Acquire)
    }

    /// When the open sheaf was opened; 0: there is none. Any context.
    pub fn open_since(&self) -> u64 {
        // Acquire pairs with the Release in `set_open`.
        self.open_since.load(Ordering::Acquire)
    }

    /// Whether the lane's list has it. Any context.
    pub fn is_linked(&self) -> bool {
        // Acquire pairs with the Release in `set_links`.
        self.linked.load(Ordering::Acquire)
    }

    /// Adds to [`objects`](Self::objects), or takes off. With the lane's lock.
    fn count(&self, change: i64) {
        // Relaxed: with the lock. Release: who sees objects gone sees them in the hands that took them.
        let now = self
            .objects
            .load(Ordering::Relaxed)
            .wrapping_add_signed(change);
        self.objects.store(now, Ordering::Release);
    }

    /// Notes that there is an open sheaf since then; 0: none. With the lane's lock.
    pub fn set_open(&self, since: u64) {
        self.open_since.store(since, Ordering::Release);
    }

    /// The rest, for who has the lane's lock.
    ///
    /// # Safety
    ///
    /// The caller has the lock for as long as it uses the result, and has no other.
    pub unsafe fn locked(&self) -> Locked<'_, M> {
        // SAFETY: the lock is held, and there is no other reference.
        let inner = unsafe { &mut *core::ptr::from_mut(self.inner.exclusive().get_mut()) };
        Locked { part: self, inner }
    }

    /// Closed sheaves, to be looked at.
    ///
    /// # Safety
    ///
    /// Nobody changes them meanwhile.
    pub unsafe fn peek_sheaves(&self) -> Option<NonNull<Sheaf>> {
        // SAFETY: as the caller promises.
        unsafe { self.inner.shared().get().sheaves.first }
    }

    /// The count of objects in pages and chains, to be looked at.
    ///
    /// # Safety
    ///
    /// Nobody changes it meanwhile.
    pub unsafe fn peek_loose(&self) -> u64 {
        // SAFETY: as the caller promises.
        unsafe { self.inner.shared().get().loose }
    }

    /// The next part of the lane's list, to be looked at.
    ///
    /// # Safety
    ///
    /// Nobody changes it meanwhile.
    pub unsafe fn peek_next(&self) -> Option<NonNull<Self>> {
        // SAFETY: as the caller promises.
        unsafe { self.inner.shared().get().next }
    }
}

/// A part, with its lane's lock held.
pub(crate) struct Locked<'a, M: Machine> {
    part: &'a Part<M>,
    inner: &'a mut Inner<M>,
}

impl<M: Machine> Locked<'_, M> {
    /// Adds a closed sheaf.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf, of this cache, and gives it up.
    pub unsafe fn push(&mut self, sheaf: NonNull<Sheaf>) {
        // SAFETY: as the caller promises.
        unsafe {
            self.part.count(i64::from(Sheaf::len(sheaf)));
            self.inner.sheaves.push(sheaf);
        }
    }

    /// Takes the oldest closed sheaf, if `ripe` says so of its cookie.
    pub fn pop_if(&mut self, ripe: impl FnOnce(u64) -> bool) -> Option<NonNull<Sheaf>> {
        let sheaf = self.inner.sheaves.first?;
        // SAFETY: this one's.
        if !ripe(unsafe { Sheaf::cookie(sheaf) }) {
            return None;
        }
        self.inner.sheaves.pop()
    }

    /// The closed sheaves' cookies, the oldest first, to be changed.
    pub fn cookies(&mut self, mut each: impl FnMut(u64) -> u64) {
        let mut next = self.inner.sheaves.first;
        while let Some(sheaf) = next {
            // SAFETY: this one's.
            unsafe {
                Sheaf::set_cookie(sheaf, each(Sheaf::cookie(sheaf)));
                next = (*sheaf.as_ptr()).next;
            }
        }
    }

    /// Objects that were taken are not here any more: after they were counted elsewhere.
    pub fn uncount(&mut self, objects: u64) {
        self.part.count(-(objects as i64));
    }

    /// An object more, or less, in pages or chains.
    pub fn loose(&mut self, change: i64) {
        self.inner.loose = self.inner.loose.wrapping_add_signed(change);
        self.part.count(change);
    }

    /// Objects in pages and chains.
    pub fn loose_objects(&self) -> u64 {
        self.inner.loose
    }

    /// Whether it has closed sheaves.
    pub fn has_closed(&self) -> bool {
        self.inner.sheaves.first.is_some()
    }

    /// Whether there is something for which the lane has to know the part.
    pub fn is_needed(&self) -> bool {
        self.has_closed() || self.part.open_since() != 0
    }

    /// The open sheaf is the destroyer's alone.
    pub fn bar(&mut self) {
        self.inner.barred = true;
    }

    /// Whether it is.
    pub fn is_barred(&self) -> bool {
        self.inner.barred
    }

    pub fn next(&self) -> Option<NonNull<Part<M>>> {
        self.inner.next
    }

    pub fn before(&self) -> Option<NonNull<Part<M>>> {
        self.inner.before
    }

    pub fn set_next(&mut self, next: Option<NonNull<Part<M>>>) {
        self.inner.next = next;
    }

    pub fn set_before(&mut self, before: Option<NonNull<Part<M>>>) {
        self.inner.before = before;
    }

    /// Notes whether it is in the lane's list.
    pub fn set_linked(&mut self, linked: bool) {
        self.part.linked.store(linked, Ordering::Release);
    }
}
