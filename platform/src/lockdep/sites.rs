//! Where each edge of the order was seen first: a hash table of fixed size that is only
//! added to (but for tests that forget).
//!
//! A slot is claimed by its key; then its places are filled in, the wanted one last. A
//! reader that finds the key and no place says that the place is unknown. The table is
//! filled before the edge is added, so that happens only if another CPU, or interrupted
//! code below, is just noting the same edge.

use core::{
    panic::Location,
    ptr,
    sync::atomic::{AtomicPtr, AtomicU32, Ordering},
};

use super::{
    classes::ClassId,
    entry::{HeldLock, decode_context, encode_context},
};
use crate::{Context, CpuId};

/// How many edges have their places noted; a power of two. Beyond it edges count as ever,
/// but their places are shown as unknown.
const NOTED: usize = if cfg!(model) { 16 } else { 2048 };

/// Never used.
const FREE: u32 = 0;
/// Was used, and may be again; searches go on behind it.
const GONE: u32 = u32::MAX;

#[derive(Debug)]
struct Slot {
    /// [`FREE`], [`GONE`], or the two class numbers.
    key: AtomicU32,
    /// CPU and context of the second acquisition.
    by: AtomicU32,
    held_at: AtomicPtr<Location<'static>>,
    wanted_at: AtomicPtr<Location<'static>>,
}

/// An edge's first sight.
#[derive(Debug, Clone, Copy)]
pub struct Site {
    /// Where the lock that was held had been taken.
    pub held_at: &'static Location<'static>,
    /// Where the other one was then taken.
    pub wanted_at: &'static Location<'static>,
    /// Who did.
    pub cpu: CpuId,
    /// In which context.
    pub context: Context,
}

/// The table.
#[derive(Debug)]
pub struct Sites([Slot; NOTED]);

impl Sites {
    /// An empty one.
    pub const fn new() -> Self {
        Self(
            [const {
                Slot {
                    key: AtomicU32::new(FREE),
                    by: AtomicU32::new(0),
                    held_at: AtomicPtr::new(ptr::null_mut()),
                    wanted_at: AtomicPtr::new(ptr::null_mut()),
                }
            }; NOTED],
        )
    }

    /// Notes that `wanted` was taken while `held` was, if that edge is not noted yet.
    pub fn note(&self, from: ClassId, to: ClassId, held: &HeldLock, wanted: &HeldLock) {
        let key = key(from, to);
        if self.find(key).is_some() {
            return;
        }
        for slot in self.chain(key) {
            let seen = slot.key.load(Ordering::Relaxed);
            if seen == key {
                // Another CPU was faster.
                return;
            }
            if seen != FREE && seen != GONE {
                continue;
            }
            // Relaxed: the places are published by themselves.
            match slot
                .key
                .compare_exchange(seen, key, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => {
                    let by = wanted.cpu.number() << 8 | encode_context(wanted.context) as u32;
                    slot.by.store(by, Ordering::Relaxed);
                    slot.held_at
                        .store(ptr::from_ref(held.at).cast_mut(), Ordering::Relaxed);
                    // Release: who sees this place sees the rest of the slot.
                    slot.wanted_at
                        .store(ptr::from_ref(wanted.at).cast_mut(), Ordering::Release);
                    return;
                }
                Err(now) if now == key => return,
                Err(_) => {}
            }
        }
    }

    /// What is noted of the edge.
    pub fn get(&self, from: ClassId, to: ClassId) -> Option<Site> {
        let slot = self.find(key(from, to))?;
        // Acquire: pairs with the Release in `note`.
        let wanted_at = slot.wanted_at.load(Ordering::Acquire);
        let held_at = slot.held_at.load(Ordering::Relaxed);
        let by = slot.by.load(Ordering::Relaxed);
        Some(Site {
            // SAFETY: both are null or came from a `&'static Location` in `note`.
            held_at: unsafe { held_at.as_ref() }?,
            // SAFETY: see above.
            wanted_at: unsafe { wanted_at.as_ref() }?,
            cpu: CpuId::new(by >> 8)?,
            context: decode_context(by as u64),
        })
    }

    /// Forgets the edges of a class.
    pub fn forget(&self, class: ClassId) {
        let number = u32::from(class.number());
        for slot in &self.0 {
            let key = slot.key.load(Ordering::Relaxed);
            if key != FREE && key != GONE && (key >> 8 == number || key & 0xff == number) {
                slot.wanted_at.store(ptr::null_mut(), Ordering::Relaxed);
                slot.held_at.store(ptr::null_mut(), Ordering::Relaxed);
                // Release: the slot is empty when it is claimed again.
                slot.key.store(GONE, Ordering::Release);
            }
        }
    }

    fn find(&self, key: u32) -> Option<&Slot> {
        for slot in self.chain(key) {
            match slot.key.load(Ordering::Relaxed) {
                FREE => return None,
                found if found == key => return Some(slot),
                _ => {}
            }
        }
        None
    }

    /// All slots, from where the key belongs.
    fn chain(&self, key: u32) -> impl Iterator<Item = &Slot> {
        // Fibonacci hashing: the upper bits of the product are well mixed.
        let start = (key.wrapping_mul(0x9e37_79b9) >> 16) as usize;
        (start..start + NOTED).map(|index| &self.0[index % NOTED])
    }
}

/// Neither [`FREE`] nor [`GONE`], because class numbers are not 0 and have 8 bits.
fn key(from: ClassId, to: ClassId) -> u32 {
    u32::from(from.number()) << 8 | u32::from(to.number())
}
