//! Caches by chance.

use std::{
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use mm::slab::{Constructor, Flags, KmemCache, Slabs, Spec};
use platform::hosted::Hosted;

use super::world::Random;

/// What the constructor writes at the beginning of an object.
const CONSTRUCTED: u64 = 0x6f62_6a65_6374_2121;

/// A cache that was made.
pub struct Made {
    pub cache: &'static KmemCache<Hosted>,
    name: String,
    pub size: usize,
    pub align: usize,
    constructed: bool,
    /// Zeros may be asked for.
    pub may_zero: bool,
}

/// No two caches of a test have one name.
static NEXT: AtomicU64 = AtomicU64::new(0);

fn construct(object: NonNull<u8>) {
    // SAFETY: a fresh object, of at least 8 bytes where this is the constructor.
    unsafe { object.cast::<u64>().write_unaligned(CONSTRUCTED) };
}

/// Flags of one cache.
fn flags(random: &mut Random) -> Flags {
    let mut flags = Flags::empty();
    for (flag, one_in) in [
        (Flags::NO_MERGE, 2),
        (Flags::HWCACHE_ALIGN, 4),
        (Flags::RECLAIM_ACCOUNT, 6),
        (Flags::TYPESAFE_BY_RCU, 6),
    ] {
        if random.one_in(one_in) {
            flags |= flag;
        }
    }
    if random.one_in(5) {
        for flag in [
            Flags::CONSISTENCY_CHECKS,
            Flags::RED_ZONE,
            Flags::POISON,
            Flags::STORE_USER,
        ] {
            if random.one_in(2) {
                flags |= flag;
            }
        }
    }
    flags
}

fn size(random: &mut Random) -> usize {
    let below = match random.below(20) {
        0..12 => 300,
        12..18 => 2_000,
        _ => 20_000,
    };
    1 + random.below(below) as usize
}

impl Made {
    /// A cache; `None`: no memory.
    pub fn new(slabs: &'static Slabs<Hosted>, random: &mut Random) -> Option<Self> {
        let name = format!("model-{}", NEXT.fetch_add(1, Relaxed));
        let (flags, mut size) = (flags(random), size(random));
        let align = if random.one_in(3) {
            1 << random.below(9)
        } else {
            0
        };
        let constructed = random.one_in(4);
        if constructed {
            size = size.max(8);
        }
        let mut spec = Spec::new(&name, size).flags(flags).align(align);
        if constructed {
            spec = spec.constructor(construct as Constructor);
        }
        if random.one_in(3) {
            spec = spec.sheaf_capacity(1 + random.below(40) as u32);
        }
        if (constructed || flags.contains(Flags::TYPESAFE_BY_RCU)) && size >= 24 && random.one_in(2)
        {
            // Behind what the constructor wrote.
            spec = spec.free_pointer(8);
        }
        let cache = match slabs.create(&spec) {
            Ok(cache) => cache,
            Err(mm::slab::CreateError::NoMemory) => return None,
            Err(error) => panic!("{spec:?}: {error}"),
        };
        if random.one_in(8) {
            cache.set_remote_node_defrag_ratio(50);
        }
        let layout = cache.layout();
        // One that it was merged with may be smaller, with as much room.
        assert!(layout.usable as usize >= size);
        Some(Self {
            cache,
            name,
            size,
            align,
            constructed,
            may_zero: !constructed && !flags.contains(Flags::TYPESAFE_BY_RCU),
        })
    }

    /// A fresh object is as the constructor left it.
    #[track_caller]
    pub fn check_fresh(&self, object: NonNull<u8>) {
        if self.constructed {
            // SAFETY: allocated, and the caller's.
            let found = unsafe { object.cast::<u64>().read_unaligned() };
            assert_eq!(
                found, CONSTRUCTED,
                "an object of {} is not as constructed",
                self.name
            );
        }
    }

    /// Makes an object as the constructor left it.
    pub fn restore(&self, object: NonNull<u8>) {
        if self.constructed {
            construct(object);
        }
    }

    /// Destroys it: all its objects were freed, and nobody uses it.
    #[track_caller]
    pub fn destroy(self, slabs: &'static Slabs<Hosted>) {
        // SAFETY: it has no other user, and the reference is that of `new`.
        let destroyed = unsafe { slabs.destroy_named(self.cache, &self.name) };
        destroyed.unwrap_or_else(|leaked| panic!("{}: {leaked}", self.name));
    }
}
