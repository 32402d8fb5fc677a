//! Which caches can be one.
//!
//! A cache that is asked for is one that exists already, by a further name, if objects of the latter
//! do as well:
//!
//! - neither has a constructor, a destructor, bytes for users, nor a flag of [`Flags::NEVER_MERGED`]
//!   (debugging, TYPESAFE_BY_RCU, NO_MERGE, the caches of descriptors);
//! - they agree in RECLAIM_ACCOUNT, and in the size of their sheaves;
//! - an existing object is as large as is asked for, by less than 8 bytes larger, and lies as it
//!   is asked to;
//! - the existing cache is not destroyed, nor about to be, and never was.
//!
//! Objects of merged caches cannot be told apart: what is allocated by one name may be freed by the
//! other, and destroying one of the names drops a reference and waits for nothing.

use core::ptr::NonNull;

use platform::sync::{AtomicPtr, Ordering};

use super::{
    Alias, Caches, CreateError, Flags, KmemCache, Machine, Slabs, create::Plan, name::Name,
};
use crate::Gfp;

/// How many bytes larger than asked for an object must not be.
const GAP: u32 = size_of::<usize>() as u32;

impl<M: Machine> Caches<'_, M> {
    /// A cache that does for `plan`.
    pub(crate) fn find_mergeable(&self, plan: &Plan) -> Option<&'_ KmemCache<M>> {
        let never = plan.flags.intersects(Flags::NEVER_MERGED)
            || plan.constructor.is_some()
            || plan.destructor.is_some()
            || plan.usercopy.1 > 0;
        if never || !self.slabs().registry.merging() {
            return None;
        }
        self.iter().find(|cache| cache.does_for(plan))
    }
}

impl<M: Machine> KmemCache<M> {
    fn does_for(&self, plan: &Plan) -> bool {
        let (own, wanted) = (&self.layout, &plan.layout);
        let differ = self.flags.symmetric_difference(plan.flags);
        // Relaxed: changed at boot, before there is anybody to merge.
        let capacity = self.sheaf_capacity.load(Ordering::Relaxed);
        !self.flags.intersects(Flags::NEVER_MERGED)
            && !differ.intersects(Flags::SAME_MERGED)
            && !self.is_dying()
            && self.constructor.is_none()
            && self.destructor.is_none()
            && self.usercopy.1 == 0
            && capacity == plan.sheaf_capacity
            && wanted.object_size <= own.usable
            && wanted.size <= own.size
            && own.size - wanted.size < GAP
            && own.size.is_multiple_of(wanted.align)
    }
}

impl<M: Machine> Slabs<M> {
    /// Gives a cache a further name, and its creator a reference. With the registry locked.
    pub(crate) fn add_alias(&self, cache: &KmemCache<M>, name: Name) -> Result<(), CreateError> {
        let memory = self.kmalloc(size_of::<Alias>(), Gfp::KERNEL);
        let alias = memory.ok_or(CreateError::NoMemory)?.cast::<Alias>();
        // Relaxed: under the lock.
        let next = cache.aliases.load(Ordering::Relaxed);
        // SAFETY: fresh memory of its size.
        unsafe {
            alias.write(Alias {
                name,
                next: AtomicPtr::new(next),
            });
        }
        // Release: who walks without the lock sees it whole.
        cache.aliases.store(alias.as_ptr(), Ordering::Release);
        // Relaxed: under the lock.
        cache.references.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes a further name away: `name`, or the newest. With the registry locked.
    pub(crate) fn remove_alias(&self, cache: &KmemCache<M>, name: Option<&str>) {
        let mut link = &cache.aliases;
        loop {
            // Relaxed: under the lock.
            let Some(alias) = NonNull::new(link.load(Ordering::Relaxed)) else {
                return;
            };
            // SAFETY: names that are linked are there, until we free them.
            let (next, found) = unsafe {
                let alias = alias.as_ref();
                let found = name.is_none_or(|name| alias.name.as_str() == name);
                (&*core::ptr::from_ref(&alias.next), found)
            };
            if found {
                // Release: as in `add_alias`.
                link.store(next.load(Ordering::Relaxed), Ordering::Release);
                // SAFETY: allocated by `add_alias`, and linked no more. (Who walks without the
                // lock does so while nobody else runs.)
                unsafe { self.kfree(alias.cast()) };
                return;
            }
            link = next;
        }
    }

    /// Whether caches may be merged from now on. They may, unless this is called.
    pub fn set_merging(&self, on: bool) {
        self.registry.set_merging(on);
    }
}
