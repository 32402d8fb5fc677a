//! `kfree_rcu` in the kernel: everything at once with readers that hold what is freed, and what
//! the end of a cache asks of others while they flood another one.

mod exact;
mod torture;

use alloc::vec::Vec;
use core::ptr::NonNull;

use mm::{
    Gfp,
    kvfree_rcu::Head,
    slab::{Flags, KmemCache, Spec},
};

use self::{
    exact::{
        idle_cache_asks_nothing, in_flight_asks_once, others_flood, passed_cookie_asks_nothing,
    },
    torture::{cpus_stay, everything_at_once},
};
use crate::{
    kunit::{Outcome, Stop, kassert_ok, kunit_suite},
    machine::Kernel,
    memory::slab::slabs,
    tests::long_run::Parts,
};

kunit_suite! {
    name: "kfree_rcu",
    cases: [
        idle_cache_asks_nothing,
        in_flight_asks_once,
        passed_cookie_asks_nothing,
        others_flood,
        everything_at_once => { over: Parts },
        cpus_stay,
    ],
}

type Cache = KmemCache<Kernel>;

fn create(name: &str, size: usize) -> Result<&'static Cache, Stop> {
    let spec = Spec::new(name, size).flags(Flags::NO_MERGE);
    Ok(kassert_ok!(slabs().create(&spec)))
}

fn destroy(cache: &Cache) -> Outcome {
    // SAFETY: of `create`; the test does not use it any more.
    kassert_ok!(unsafe { slabs().destroy(cache) });
    Ok(())
}

fn take(cache: &Cache, count: usize) -> Result<Vec<NonNull<u8>>, Stop> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        held.push(kassert_ok!(cache.alloc(Gfp::KERNEL)));
    }
    Ok(held)
}

/// Gives an object to `kfree_rcu`; its head is its first two words.
fn free_rcu(object: NonNull<u8>) {
    // SAFETY: callers own it, and it has 16 bytes at least.
    unsafe { slabs().kfree_rcu(object, object.cast::<Head>()) };
}
