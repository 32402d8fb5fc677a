//! Allocating and freeing pages.
//!
//! An allocation first looks in the page lists of its CPU ([`lists`](crate::lists)), then in
//! the zones, the nearest first: down to the *low* watermark, then to *min* (or below, if it
//! may); then, if it may sleep, it reclaims ([`reclaim`](crate::reclaim)) and tries again, a
//! bounded number of times. What fails is reported with the state of all zones.

use core::panic::Location;

use platform::NodeId;

use crate::{
    frame::{Frame, MAX_ORDER, PAGE_SIZE, Pfn, State, Use, Word},
    gfp::Gfp,
    lists::MAX_LIST_ORDER,
    machine::Machine,
    mm::Mm,
    report::{Kind, Report, wrong_free},
    zone::{Depth, Zone, ZoneKind},
};

/// What an allocation wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) gfp: Gfp,
    pub(crate) order: usize,
    pub(crate) usage: Use,
    /// `None`: that of the CPU.
    pub(crate) node: Option<NodeId>,
    pub(crate) caller: &'static Location<'static>,
}

impl<M: Machine> Mm<M> {
    /// Allocates `2^order` frames, near the CPU that runs this. Their contents are whatever
    /// was in them, unless `gfp` asks for zeros. Context: as `gfp` says. `None`: no memory
    /// (or `order` above [`MAX_ORDER`]); reported, unless `gfp` says not to.
    #[inline(always)]
    #[track_caller]
    pub fn alloc_pages(&self, gfp: Gfp, order: usize, usage: Use) -> Option<Pfn> {
        check_context::<M>(gfp);
        if order <= MAX_LIST_ORDER
            && !gfp.intersects(Gfp::THISNODE.union(Gfp::DMA32))
            && let Some(pfn) = self.pop(None, gfp, order, usage)
        {
            return Some(pfn);
        }
        self.alloc_slowly(Request {
            gfp,
            order,
            usage,
            node: None,
            caller: Location::caller(),
        })
    }

    /// [`alloc_pages`](Self::alloc_pages), near a node; on it, with [`Gfp::THISNODE`].
    #[inline]
    #[track_caller]
    pub fn alloc_pages_node(
        &self,
        node: NodeId,
        gfp: Gfp,
        order: usize,
        usage: Use,
    ) -> Option<Pfn> {
        check_context::<M>(gfp);
        if order <= MAX_LIST_ORDER
            && !gfp.contains(Gfp::DMA32)
            && let Some(pfn) = self.pop(Some(node), gfp, order, usage)
        {
            return Some(pfn);
        }
        self.alloc_slowly(Request {
            gfp,
            order,
            usage,
            node: Some(node),
            caller: Location::caller(),
        })
    }

    /// Frees a block. Any context but NMI. A block that is not what the caller says is
    /// reported and left as it is.
    ///
    /// # Safety
    ///
    /// The block was allocated with this order for this use, belongs to the caller, and
    /// nobody uses it any more.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn free_pages(&self, pfn: Pfn, order: usize, usage: Use) {
        // SAFETY: as the caller promises.
        if !unsafe { self.push(pfn, order, usage) } {
            self.free_slowly(pfn, order, usage, true, Location::caller());
        }
    }

    /// [`free_pages`](Self::free_pages) for any context, with any locks held.
    ///
    /// # Safety
    ///
    /// As for [`free_pages`](Self::free_pages).
    #[inline]
    #[track_caller]
    pub unsafe fn free_pages_nolock(&self, pfn: Pfn, order: usize, usage: Use) {
        // SAFETY: as the caller promises.
        if !unsafe { self.push(pfn, order, usage) } {
            self.free_slowly(pfn, order, usage, false, Location::caller());
        }
    }

    /// Fills a block with zeros.
    #[inline]
    fn zero(&self, pfn: Pfn, order: usize) {
        // SAFETY: a block that was just allocated is mapped in the direct map and nobody
        // else's.
        unsafe { self.map.address_of(pfn).write_bytes(0, PAGE_SIZE << order) };
    }

    /// Takes a block from this CPU's lists, if they are of `node`.
    #[inline(always)]
    fn pop(&self, node: Option<NodeId>, gfp: Gfp, order: usize, usage: Use) -> Option<Pfn> {
        if self.debug.any() {
            return None;
        }
        let pfn = self.pop_listed(node, gfp, order, usage)?;
        if gfp.contains(Gfp::ZERO) {
            self.zero(pfn, order);
        }
        Some(pfn)
    }

    /// [`pop`](Self::pop) without a look at the checks.
    #[inline(always)]
    fn pop_listed(&self, node: Option<NodeId>, gfp: Gfp, order: usize, usage: Use) -> Option<Pfn> {
        let guard = self.lists.try_lock_in(|lists| &lists.lock)?;
        let lists = self.lists.here(platform::lock::LocalGuard::preempt(&guard));
        if node.is_some_and(|node| lists.home().node() != node) {
            return None;
        }
        loop {
            let Some(pfn) = lists.pop(order) else {
                let zone = self.zone(lists.home())?;
                if lists.refill(&self.map, zone, order, !gfp.contains(Gfp::NOLOCK)) {
                    continue;
                }
                return None;
            };
            // SAFETY: what is in a list has a descriptor.
            let frame = unsafe { self.map.at(pfn) };
            if self.change(
                frame,
                lists.word(State::Listed, order),
                lists.word(State::Used(usage), order),
            ) {
                lists.count(usage, 1 << order);
                return Some(pfn);
            }
            self.report_damage(pfn, frame, order);
        }
    }

    /// Puts a block on this CPU's list, if it is what the caller says, from the home zone, and
    /// there is room.
    ///
    /// # Safety
    ///
    /// As for [`free_pages`](Self::free_pages).
    #[inline(always)]
    unsafe fn push(&self, pfn: Pfn, order: usize, usage: Use) -> bool {
        if order > MAX_LIST_ORDER || pfn >= self.map.end() || self.debug.any() {
            return false;
        }
        let Some(guard) = self.lists.try_lock_in(|lists| &lists.lock) else {
            return false;
        };
        let lists = self.lists.here(platform::lock::LocalGuard::preempt(&guard));
        // SAFETY: below the end.
        let frame = unsafe { self.map.at(pfn) };
        let used = lists.word(State::Used(usage), order);
        if lists.is_full(order) || !self.change(frame, used, lists.word(State::Listed, order)) {
            return false;
        }
        lists.push(order, pfn);
        lists.count(usage, (1_u64 << order).wrapping_neg());
        true
    }

    /// Moves a frame from one word to another; `false`: it was not what it should be. Builds
    /// that check locks use an atomic exchange, which tells even two frees at the same time
    /// apart.
    #[inline(always)]
    fn change(&self, frame: &Frame, from: Word, to: Word) -> bool {
        // A look first: an exchange writes even where it fails, and descriptors in holes
        // cannot be written.
        if frame.word() != from {
            return false;
        }
        if M::CHECK_LOCKS {
            return frame.exchange_word(from, to).is_ok();
        }
        frame.set_word(to);
        true
    }

    /// All that is not the fast road.
    #[cold]
    #[inline(never)]
    fn alloc_slowly(&self, request: Request) -> Option<Pfn> {
        let Request {
            gfp, order, usage, ..
        } = request;
        if order > MAX_ORDER {
            self.report_failure(&request, "no block is that large");
            return None;
        }
        if self.debug.any() && self.debug.before_alloc(gfp, order) {
            return None;
        }
        // Every turn but the last takes a damaged block out of use.
        loop {
            let Some(pfn) = self.find(&request) else {
                self.report_failure(&request, "no memory");
                return None;
            };
            // SAFETY: the block was found for this, and is nobody else's.
            let checked = || unsafe { self.debug.on_alloc(&self.map, pfn, order, usage, gfp) };
            if self.debug.any()
                && let Err(damage) = checked()
            {
                self.keep_out(pfn, order, usage);
                self.report(
                    Kind::Poison,
                    damage.frame,
                    format_args!("{damage}"),
                    request.caller,
                );
                continue;
            }
            if gfp.contains(Gfp::ZERO) {
                self.zero(pfn, order);
            }
            return Some(pfn);
        }
    }

    /// Finds a block, by all that the request may do.
    fn find(&self, request: &Request) -> Option<Pfn> {
        let gfp = request.gfp;
        if request.order <= MAX_LIST_ORDER
            && !gfp.contains(Gfp::DMA32)
            && self.debug.any()
            && let Some(pfn) = self.pop_listed(
                Some(request.node.unwrap_or_else(M::node_here)),
                gfp,
                request.order,
                request.usage,
            )
        {
            return Some(pfn);
        }
        let depth = if gfp.contains(Gfp::HIGH) {
            Depth::Reserve
        } else {
            Depth::Min
        };
        if gfp.contains(Gfp::NOLOCK) {
            return self.search_zones(request, Depth::Min);
        }
        let found = self
            .search_zones(request, Depth::Low)
            .or_else(|| self.search_zones(request, depth));
        if found.is_some() || !gfp.contains(Gfp::RECLAIM) || !M::may_sleep() {
            return found;
        }
        self.reclaim_for(request, || self.search_zones(request, depth))
    }

    /// Takes a block from the first zone that can give one.
    fn search_zones(&self, request: &Request, depth: Depth) -> Option<Pfn> {
        let Request {
            gfp, order, usage, ..
        } = *request;
        let node = request.node.unwrap_or_else(M::node_here);
        for &index in self.fallback(node) {
            let Some(zone) = self.zone(index) else {
                continue;
            };
            let unsuited = gfp.contains(Gfp::THISNODE) && zone.node() != node
                || gfp.contains(Gfp::DMA32) && zone.kind() == ZoneKind::Normal;
            if unsuited || zone.free() < 1 << order && zone.later.is_empty() {
                continue;
            }
            let protected = !gfp.contains(Gfp::DMA32) && zone.kind() == ZoneKind::Dma32;
            let locked = if gfp.contains(Gfp::NOLOCK) {
                zone.try_lock(&self.map)
            } else {
                Some(zone.lock(&self.map))
            };
            let pfn = locked.and_then(|mut zone| zone.take(order, usage, depth, protected));
            if pfn.is_some() {
                return pfn;
            }
        }
        None
    }

    /// Frees a block that the CPU's lists did not take, or finds out what is wrong with it.
    /// `wait`: locks may be waited for.
    #[cold]
    #[inline(never)]
    fn free_slowly(
        &self,
        pfn: Pfn,
        order: usize,
        usage: Use,
        wait: bool,
        caller: &'static Location<'static>,
    ) {
        let Some(frame) = self.map.get(pfn) else {
            let details = format_args!("memory ends at frame {}", self.map.end());
            self.report(Kind::Foreign, Some(pfn), details, caller);
            return;
        };
        let word = frame.word();
        let zone = self.zone(word.zone());
        let (Some(zone), true) = (zone, word == word.with(State::Used(usage), order)) else {
            self.report_wrong_free(pfn, word, order, usage, caller);
            return;
        };
        // From here on the block is nobody's: a second free sees that.
        if !self.change(frame, word, word.with(State::Later, order)) {
            self.report_wrong_free(pfn, frame.word(), order, usage, caller);
            return;
        }
        if self.debug.any() {
            // SAFETY: the block is nobody's, and on no list yet.
            unsafe { self.debug.on_free(&self.map, pfn, order, usage) };
        }
        if wait && order <= MAX_LIST_ORDER && self.push_after_drain(pfn, frame, order, usage, zone)
        {
            return;
        }
        let locked = if wait {
            Some(zone.lock(&self.map))
        } else {
            zone.try_lock(&self.map)
        };
        match locked {
            Some(mut zone) => zone.give_back(pfn, order, usage),
            None => {
                frame.note_use(usage);
                // SAFETY: the block's head has a descriptor, and is on no list: its state
                // was changed from used just now.
                unsafe { zone.later.push(&self.map, pfn) };
            }
        }
    }

    /// Makes room in this CPU's list, or among its strays, and puts the block there. The
    /// block is [`State::Later`] and the caller's.
    fn push_after_drain(
        &self,
        pfn: Pfn,
        frame: &Frame,
        order: usize,
        usage: Use,
        zone: &Zone<M>,
    ) -> bool {
        let Some(guard) = self.lists.try_lock_in(|lists| &lists.lock) else {
            return false;
        };
        let lists = self.lists.here(platform::lock::LocalGuard::preempt(&guard));
        let listed = frame.word().with(State::Listed, order);
        if lists.home() == zone.index() {
            if lists.is_full(order) {
                lists.make_room(&self.map, zone, order);
            }
            frame.set_word(listed);
            lists.push(order, pfn);
            lists.count(usage, (1_u64 << order).wrapping_neg());
            return true;
        }
        frame.note_use(usage);
        frame.set_word(listed);
        if !lists.keep_stray(pfn) {
            lists.send_strays(&self.map, |index| self.zone(index));
            lists.keep_stray(pfn);
        }
        true
    }

    /// Gives all that this CPU's lists hold to the zones; `false`: they are in use, by the
    /// code that this interrupts. Task and interrupt context.
    pub fn drain_here(&self) -> bool {
        let Some(guard) = self.lists.try_lock_in(|lists| &lists.lock) else {
            return false;
        };
        self.drain(self.lists.here(platform::lock::LocalGuard::preempt(&guard)));
        true
    }

    fn drain(&self, lists: &crate::lists::PageLists<M>) {
        if let Some(zone) = self.zone(lists.home()) {
            for order in 0..=MAX_LIST_ORDER {
                lists.drain(&self.map, zone, order, u32::MAX);
            }
        }
        lists.send_strays(&self.map, |index| self.zone(index));
    }

    /// Gives all that CPUs' lists hold to the zones, and takes in what was left for holders
    /// of the zones' locks. A thread that may sleep.
    pub fn drain_all(&self) {
        // Lists that the interrupted code is using are met at another place soon: sections
        // are short. The bound is for a CPU that is stopped inside one, by a debugger.
        const TRIES: usize = 1000;
        let mut left = M::online_cpus();
        for _ in 0..TRIES {
            let busy = platform::sync::AtomicU64::new(0);
            M::call(left, &|| {
                if !self.drain_here() {
                    let own = platform::CpuMask::only(M::current_cpu()).bits();
                    // Relaxed: the end of a call orders what was done in it.
                    busy.fetch_or(own, platform::sync::Ordering::Relaxed);
                }
            });
            left = platform::CpuMask::from_bits(busy.load(platform::sync::Ordering::Relaxed));
            if left.is_empty() {
                break;
            }
            M::yield_now();
        }
        for zone in self.zones() {
            drop(zone.lock(&self.map));
        }
    }

    /// Gives all that the lists of a CPU hold to the zones, when that CPU has gone. Task
    /// context.
    ///
    /// # Safety
    ///
    /// The CPU does not run, will not while this does, and what it did came before this.
    pub unsafe fn drain_offline(&self, cpu: platform::CpuId) {
        let lists = self.lists.on(cpu);
        // SAFETY: as the caller promises.
        if let Some(_guard) = unsafe { lists.lock.steal() } {
            self.drain(lists);
        }
    }

    /// Keeps a block that the caller was about to use out of use for ever.
    ///
    /// Any context.
    fn keep_out(&self, pfn: Pfn, order: usize, usage: Use) {
        // SAFETY: an allocated block has descriptors.
        let frame = unsafe { self.map.at(pfn) };
        let word = frame.word();
        frame.set_word(word.with(State::Bad, order));
        if let Some(zone) = self.zone(word.zone()) {
            zone.keep_out(1 << order, Some(usage));
        }
    }

    /// A block in a list is not marked so: somebody wrote to its descriptor. It is not used
    /// again.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn report_damage(&self, pfn: Pfn, frame: &Frame, order: usize) {
        if let Some(zone) = self.zone(frame.word().zone()) {
            zone.keep_out(1 << order, None);
        }
        self.report(
            Kind::Descriptor,
            Some(pfn),
            format_args!("expected free (page list), found {:?}", frame.word()),
            Location::caller(),
        );
    }

    #[cold]
    fn report_wrong_free(
        &self,
        pfn: Pfn,
        word: Word,
        order: usize,
        usage: Use,
        caller: &'static Location<'static>,
    ) {
        // What was freed may be a part of a larger free block by now.
        let whole = self.map.head_of(pfn).map_or(word, |(_, head)| head);
        let state = match (word.state(), whole.state()) {
            (State::Tail, free @ (State::Free | State::Listed | State::Later)) => free,
            (state, _) => state,
        };
        let kind = wrong_free(state, word.order(), usage, order);
        self.report(
            kind,
            Some(pfn),
            format_args!("expected {} of order {order}, found {word:?}", usage.name()),
            caller,
        );
    }

    pub(crate) fn report(
        &self,
        kind: Kind,
        frame: Option<Pfn>,
        details: core::fmt::Arguments<'_>,
        caller: &'static Location<'static>,
    ) {
        M::memory_report(&Report {
            kind,
            frame,
            details,
            caller: Some(caller),
            owner: frame.and_then(|pfn| self.debug.record(pfn)),
        });
    }
}

/// In checked builds: an allocation that may sleep is made where that is allowed.
#[inline(always)]
#[track_caller]
fn check_context<M: Machine>(gfp: Gfp) {
    if M::CHECK_LOCKS && gfp.contains(Gfp::RECLAIM) && !gfp.contains(Gfp::NOLOCK) {
        M::might_sleep(Location::caller());
    }
}
