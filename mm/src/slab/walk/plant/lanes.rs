//! Faults in what waits for grace periods.

use core::ptr::NonNull;
use std::boxed::Box;

use platform::CpuId;

use super::Undo;
use crate::{
    kvfree_rcu::{Lane, Part},
    slab::{KmemCache, Machine, sheaf::Sheaf},
};

/// What can be planted on CPU 0's lane, beyond what a wrong caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LanePlant {
    /// The only closed sheaf of the cache is not there any more.
    LostSheaf,
    /// The oldest closed sheaf has its first object twice.
    Twice,
    /// The oldest closed sheaf has an address that is none of an object.
    Stranger,
    /// The oldest closed sheaf says to be fuller than those are that have a cookie.
    LongSheaf,
    /// The cache's count of objects is one too low.
    Count,
    /// The cache's count of those in pages and chains is one too high, and so is the one above.
    Loose,
    /// The lane has the cache not in its list.
    Unlinked,
    /// The cache says not to be in the list of the lane, and is.
    Denied,
    /// The lane takes the CPU to have no open sheaf.
    Forgotten,
    /// The lane's count of bytes is one too high.
    Bytes,
    /// The lane's count of pages is one too high.
    Pages,
    /// The count of deferred calls for what is no cache's is one too high.
    Deferred,
}

impl<M: Machine> KmemCache<M> {
    fn on_lane(&self) -> (&Lane<M>, &Part<M>) {
        let lane = self.slabs().kvfree_rcu.lane(CpuId::BOOT);
        (lane, self.part(CpuId::BOOT))
    }

    fn oldest(part: &Part<M>) -> NonNull<Sheaf> {
        // SAFETY: nobody changes it, as `plant_on_lane` was promised; here and below.
        unsafe { part.peek_sheaves() }.expect("a closed sheaf")
    }

    /// Gives the oldest closed sheaf another second object, made of the first.
    fn with_second(part: &Part<M>, other: impl Fn(NonNull<u8>) -> NonNull<u8>) -> Undo<'_> {
        let sheaf = Self::oldest(part);
        // SAFETY: as above; it has several.
        unsafe {
            let objects = Sheaf::filled_mut(sheaf);
            let wrong = other(objects[0]);
            let second = core::mem::replace(&mut objects[1], wrong);
            Box::new(move || Sheaf::filled_mut(sheaf)[1] = second)
        }
    }

    /// Plants a fault; what is returned takes it away.
    ///
    /// # Panics
    ///
    /// If there is nothing that it could be planted in.
    ///
    /// # Safety
    ///
    /// Nobody uses the cache, nor the engine, until it is taken away.
    pub unsafe fn plant_on_lane(&self, what: LanePlant) -> Undo<'_> {
        let (lane, part) = self.on_lane();
        // SAFETY: nobody uses it, so this is the only one; as the caller promises, here and below.
        let locked = || unsafe { part.locked() };
        match what {
            LanePlant::LostSheaf => {
                let sheaf = locked().pop_if(|_| true).expect("a closed sheaf");
                Box::new(move || {
                    let mut locked = locked();
                    // SAFETY: it was there before.
                    unsafe {
                        locked.push(sheaf);
                        locked.uncount(Sheaf::len(sheaf).into());
                    }
                })
            }
            LanePlant::Twice => Self::with_second(part, |first| first),
            // SAFETY: stays within the object.
            LanePlant::Stranger => Self::with_second(part, |first| unsafe { first.add(8) }),
            LanePlant::LongSheaf => {
                let sheaf = Self::oldest(part);
                // SAFETY: nobody uses it.
                let (len, capacity) = unsafe { (Sheaf::len(sheaf), Sheaf::capacity(sheaf)) };
                let set = move |len| {
                    // SAFETY: the same.
                    unsafe { (*sheaf.as_ptr()).len = len };
                };
                set(capacity);
                Box::new(move || set(len))
            }
            LanePlant::Count => {
                locked().uncount(1);
                Box::new(move || locked().uncount(1_u64.wrapping_neg()))
            }
            LanePlant::Loose => {
                locked().loose(1);
                locked().uncount(1);
                Box::new(move || {
                    locked().loose(-1);
                    locked().uncount(1_u64.wrapping_neg());
                })
            }
            LanePlant::Unlinked => {
                let sheaf = locked().pop_if(|_| true).expect("a closed sheaf");
                // The lane takes it off, as nothing is there; then something is.
                let open = part.open_since();
                part.set_open(0);
                lane.state.lock().relink(part, &mut locked());
                part.set_open(open);
                // SAFETY: it was there before.
                let back = move || unsafe {
                    locked().push(sheaf);
                    locked().uncount(Sheaf::len(sheaf).into());
                };
                back();
                Box::new(move || lane.state.lock().relink(part, &mut locked()))
            }
            LanePlant::Denied => {
                locked().set_linked(false);
                Box::new(move || locked().set_linked(true))
            }
            LanePlant::Forgotten => {
                let since = part.open_since();
                part.set_open(0);
                Box::new(move || part.set_open(since))
            }
            LanePlant::Bytes => {
                lane.add_bytes(&mut lane.state.lock(), 1);
                Box::new(move || lane.sub_bytes(&mut lane.state.lock(), 1))
            }
            LanePlant::Pages => {
                lane.state.lock().loose.pages += 1;
                Box::new(|| lane.state.lock().loose.pages -= 1)
            }
            LanePlant::Deferred => Self::one_more(&self.slabs().kvfree_rcu.deferred),
        }
    }
}
