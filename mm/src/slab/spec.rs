//! What a cache is asked to be.

use core::{fmt, ops::Range, ptr::NonNull};

bitflags::bitflags! {
    /// How a cache is, as Linux's `SLAB_*` flags.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Flags: u32 {
        /// Objects are checked on each allocation and free. A debug flag.
        const CONSISTENCY_CHECKS = 1 << 0;
        /// Bytes beside the object that must not change. A debug flag.
        const RED_ZONE = 1 << 1;
        /// Free objects are filled with a pattern, which is checked. A debug flag.
        const POISON = 1 << 2;
        /// Who allocated and freed an object is kept. A debug flag.
        const STORE_USER = 1 << 3;
        /// Objects begin at cache lines, where that is not a waste.
        const HWCACHE_ALIGN = 1 << 4;
        /// A failing creation is a panic.
        const PANIC = 1 << 5;
        /// Never merged with another cache.
        const NO_MERGE = 1 << 6;
        /// Slabs go back to the page allocator after an RCU grace period; objects are reused
        /// at once, as objects of the same type.
        const TYPESAFE_BY_RCU = 1 << 7;
        /// Objects can be reclaimed under memory pressure.
        const RECLAIM_ACCOUNT = 1 << 8;
        /// One of the caches that others are made of: it has no sheaves, ever.
        const NO_SHEAVES = 1 << 9;
        /// One of the kmalloc caches, or one of a caller's own that keeps what was asked for as they
        /// do ([`alloc_sized`](super::KmemCache::alloc_sized)).
        const KMALLOC = 1 << 10;

        /// Flags with which a cache takes the slow, checked path.
        const DEBUG = Self::CONSISTENCY_CHECKS.bits() | Self::RED_ZONE.bits()
            | Self::POISON.bits() | Self::STORE_USER.bits();
        /// Flags that callers may give.
        const CALLERS = Self::DEBUG.bits() | Self::HWCACHE_ALIGN.bits() | Self::PANIC.bits()
            | Self::NO_MERGE.bits() | Self::TYPESAFE_BY_RCU.bits() | Self::RECLAIM_ACCOUNT.bits()
            | Self::KMALLOC.bits();
        /// Flags with which a cache is never merged.
        const NEVER_MERGED = Self::DEBUG.bits() | Self::NO_MERGE.bits()
            | Self::TYPESAFE_BY_RCU.bits() | Self::NO_SHEAVES.bits();
        /// Flags in which merged caches agree.
        const SAME_MERGED = Self::RECLAIM_ACCOUNT.bits();
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bitflags::parser::to_writer(self, f)
    }
}

/// Makes a fresh object what users expect: called once for each object when its slab is made,
/// with preemption possible where the allocation may sleep; an object that is freed must be as
/// the constructor left it.
pub type Constructor = fn(NonNull<u8>);

/// What is called with an object that was given to `kfree_rcu`, after its grace period and before it is used
/// again, once. In a thread, without locks; it may free, also by `kfree_rcu`, and take locks, but may not wait for barriers or
/// destroy caches. (An object that is freed by itself has no destructor called: who frees it knows what is in it.)
pub type Destructor = unsafe fn(NonNull<u8>);

/// What a cache is asked to be.
#[derive(Clone, Copy, Debug)]
pub struct Spec<'a> {
    /// Its name, of at most [`Name::MAX`](super::name::Name::MAX) bytes; copied.
    pub name: &'a str,
    /// Bytes of an object.
    pub size: usize,
    /// What the address of an object is a multiple of: a power of two, or 0 for a word.
    pub align: usize,
    /// How it is.
    pub flags: Flags,
    /// Makes fresh objects.
    pub constructor: Option<Constructor>,
    /// Called with objects that `kfree_rcu` frees.
    pub destructor: Option<Destructor>,
    /// Objects in a sheaf; `None`: by the size of objects.
    pub sheaf_capacity: Option<u32>,
    /// Where in a free object the allocator may keep its link: a multiple of 8. Only with a
    /// constructor or TYPESAFE_BY_RCU, which otherwise have it behind the object. `None`: where the allocator likes.
    pub free_pointer: Option<usize>,
    /// Bytes of an object that may be copied to and from users. Kept and shown; there is no user space.
    pub usercopy: Option<(usize, usize)>,
}

impl<'a> Spec<'a> {
    /// A cache of objects of `size` bytes without any wish.
    pub const fn new(name: &'a str, size: usize) -> Self {
        Self {
            name,
            size,
            align: 0,
            flags: Flags::empty(),
            constructor: None,
            destructor: None,
            sheaf_capacity: None,
            free_pointer: None,
            usercopy: None,
        }
    }

    /// The same with these flags.
    #[must_use]
    pub const fn flags(self, flags: Flags) -> Self {
        Self { flags, ..self }
    }

    /// The same with this alignment.
    #[must_use]
    pub const fn align(self, align: usize) -> Self {
        Self { align, ..self }
    }

    /// The same with a constructor.
    #[must_use]
    pub const fn constructor(self, constructor: Constructor) -> Self {
        Self {
            constructor: Some(constructor),
            ..self
        }
    }

    /// The same with a destructor.
    ///
    /// # Safety
    ///
    /// It may be called with any object of the cache that is given to `kfree_rcu`, by any thread.
    #[must_use]
    pub const unsafe fn destructor(self, destructor: Destructor) -> Self {
        Self {
            destructor: Some(destructor),
            ..self
        }
    }

    /// The same with sheaves of so many objects.
    #[must_use]
    pub const fn sheaf_capacity(self, capacity: u32) -> Self {
        Self {
            sheaf_capacity: Some(capacity),
            ..self
        }
    }

    /// The same with the link at `offset` in free objects.
    #[must_use]
    pub const fn free_pointer(self, offset: usize) -> Self {
        Self {
            free_pointer: Some(offset),
            ..self
        }
    }

    /// The bytes that [`usercopy`](Self::usercopy) names.
    pub fn usercopy_range(&self) -> Range<usize> {
        let (start, len) = self.usercopy.unwrap_or((0, 0));
        start..start.saturating_add(len)
    }
}
