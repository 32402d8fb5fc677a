//! Faults planted in a heap, on hosted machines: so that a test sees the walk find each.

mod lanes;

use core::{ptr::NonNull, sync::atomic::Ordering::Relaxed};
use std::boxed::Box;

use platform::{CpuId, sync::AtomicU64};

pub use lanes::LanePlant;

use crate::frame::{Pfn, State, Use};
use crate::slab::{
    KmemCache, Machine, Slab, list::BEFORE, node::Node, percpu::CpuSheaves, sheaf::Sheaf,
};

/// What can be planted beyond what a wrong caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// CPU 0 forgets its main sheaf.
    LostSheaf,
    /// CPU 0 has its main sheaf as its spare, too.
    SharedSheaf,
    /// CPU 0's main sheaf says to have one object more than it has room for.
    LongSheaf,
    /// CPU 0's main sheaf is where no memory is.
    WildSheaf,
    /// The memory of CPU 0's main sheaf was freed.
    FreedSheaf,
    /// A barn's count of full sheaves is one too high.
    BarnCount,
    /// A node's count of slabs is one too high.
    SlabCount,
    /// A node's count of objects is one too high.
    ObjectCount,
    /// The count of deferred frees is one too high.
    DeferredCount,
    /// The count of objects in the quarantine of CPU 0 is one too high.
    QuarantinedCount,
    /// A partial slab is not on its list, and says to be.
    Unlisted,
    /// A partial slab is on the list of full ones.
    WrongList,
    /// A partial slab says to be on no list.
    WrongWord,
    /// The last slab of the list of partial ones, of several, has a wrong link back.
    ListLink,
    /// A tail of a free block says to be in use.
    FreeTail,
    /// The last tail of a used block names another order.
    UsedTail,
}

/// Takes away what was planted.
pub type Undo<'a> = Box<dyn FnOnce() + 'a>;

impl<M: Machine> KmemCache<M> {
    /// The first node with slabs.
    fn a_node(&self) -> &Node<M> {
        let mut nodes = self.all_nodes().filter(|n| n.slabs.load(Relaxed) > 0);
        nodes.next().expect("the cache has slabs")
    }

    fn partial(&self) -> impl Iterator<Item = Slab<M>> + use<'_, M> {
        let map = *self.slabs().mm().frames();
        self.a_node().lists.lock().partial.iter(map)
    }

    fn with_sheaves<R>(&self, f: impl FnOnce(&mut CpuSheaves) -> R) -> R {
        // SAFETY: nobody uses the cache, as `plant` was promised.
        let sheaves = unsafe { self.cpus.on(CpuId::BOOT).sheaves.steal() };
        f(&mut sheaves.expect("nobody uses it"))
    }

    fn one_more(count: &AtomicU64) -> Undo<'_> {
        count.fetch_add(1, Relaxed);
        Box::new(move || _ = count.fetch_sub(1, Relaxed))
    }

    /// Plants a fault; what is returned takes it away.
    ///
    /// # Panics
    ///
    /// If there is nothing that it could be planted in.
    ///
    /// # Safety
    ///
    /// Nobody uses the cache until it is taken away.
    pub unsafe fn plant(&self, what: Plant) -> Undo<'_> {
        match what {
            Plant::LostSheaf => self.with_main(Sheaf::nothing()),
            Plant::WildSheaf => self.with_main(NonNull::without_provenance(WILD)),
            Plant::SharedSheaf => {
                let spare = self.with_sheaves(|s| s.spare.replace(s.main));
                Box::new(move || self.with_sheaves(|s| s.spare = spare))
            }
            Plant::LongSheaf => {
                let main = self.with_sheaves(|s| s.main);
                // SAFETY: nobody uses it.
                let Sheaf { len, capacity, .. } = *unsafe { main.as_ref() };
                let set = move |len| {
                    // SAFETY: the same.
                    unsafe { (*main.as_ptr()).len = len };
                };
                set(capacity + 1);
                Box::new(move || set(len))
            }
            Plant::FreedSheaf => {
                let main = self.with_sheaves(|s| s.main);
                // SAFETY: of kmalloc; who gets it next is whoever takes this away.
                unsafe { self.slabs().kfree(main.cast()) };
                let bytes = Sheaf::bytes(self.capacity());
                Box::new(move || {
                    let memory = self.slabs().kmalloc(bytes, crate::Gfp::NOWAIT);
                    assert_eq!(memory, Some(main.cast()));
                })
            }
            Plant::BarnCount => {
                let barn = &self.a_node().barn;
                barn.sheaves.lock().full.len += 1;
                Box::new(|| barn.sheaves.lock().full.len -= 1)
            }
            Plant::SlabCount => Self::one_more(&self.a_node().slabs),
            Plant::ObjectCount => Self::one_more(&self.a_node().objects),
            Plant::DeferredCount => Self::one_more(&self.deferred),
            Plant::QuarantinedCount => Self::one_more(&self.cpus.on(CpuId::BOOT).quarantined),
            Plant::Unlisted => {
                let (node, slab) = (self.a_node(), self.partial().next().expect("one"));
                node.lists.lock().partial.remove(slab);
                Box::new(move || node.lists.lock().partial.push_front(slab))
            }
            Plant::WrongList => {
                let (node, slab) = (self.a_node(), self.partial().next().expect("one"));
                let mut lists = node.lists.lock();
                lists.partial.remove(slab);
                lists.full.push_front(slab);
                Box::new(move || {
                    let mut lists = node.lists.lock();
                    lists.full.remove(slab);
                    lists.partial.push_front(slab);
                })
            }
            Plant::WrongWord => {
                let slab = self.partial().next().expect("one");
                let word = slab.freelist();
                word.unlist();
                Box::new(move || {
                    slab.freelist()
                        .set(slab.freelist().load().with_listed(true))
                })
            }
            Plant::ListLink => {
                let slab = self.partial().skip(1).last().expect("several");
                let before = slab.frame().links[BEFORE].swap(0, Relaxed);
                Box::new(move || slab.frame().links[BEFORE].store(before, Relaxed))
            }
            Plant::FreeTail => {
                self.with_last_tail(|state| state == State::Free, (State::Used(Use::Pages), 0))
            }
            Plant::UsedTail => {
                self.with_last_tail(|state| matches!(state, State::Used(_)), (State::Tail, 5))
            }
        }
    }

    /// Gives the last tail of the first block of such a state another word.
    fn with_last_tail(&self, of: fn(State) -> bool, wrong: (State, usize)) -> Undo<'_> {
        let map = self.slabs().mm().frames();
        let is_block = |pfn: &Pfn| {
            let word = map.get(*pfn).expect("below the end").word();
            of(word.state()) && word.order() > 0
        };
        let head = (0..map.end().0).map(Pfn).find(is_block).expect("a block");
        let order = map.get(head).expect("just found").word().order();
        let tail = map.get(head.add((1 << order) - 1)).expect("of the block");
        let right = tail.word();
        tail.set_word(right.with(wrong.0, wrong.1));
        Box::new(move || tail.set_word(right))
    }

    /// Gives CPU 0 another main sheaf.
    fn with_main(&self, sheaf: NonNull<Sheaf>) -> Undo<'_> {
        let main = self.with_sheaves(|s| core::mem::replace(&mut s.main, sheaf));
        Box::new(move || self.with_sheaves(|s| s.main = main))
    }
}

/// An address that is no memory.
const WILD: core::num::NonZero<usize> = core::num::NonZero::new(0x1000).unwrap();
