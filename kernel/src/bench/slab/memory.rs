//! How much memory caches hold for what is in them: the caches of XFS.

use alloc::vec::Vec;
use core::ptr::NonNull;

use kernel_base::bench::Value;
use mm::{
    Gfp, PAGE_SIZE, Use,
    slab::{Flags, Spec},
};

use super::{Own, failed, places};
use crate::{
    bench::{Outcome, Run, bench},
    memory::{mm, slab::slabs},
};

bench! {
    name: "memory/xfs",
    ops: 1,
    run: xfs,
}

/// Names and object sizes, in the order created. The two marked are aligned to cache lines.
pub const XFS: [(&str, usize, bool); 28] = [
    ("xfs_buf", 384, true),
    ("xfs_log_ticket", 48, false),
    ("xfs_bmbt_cur", 224, false),
    ("xfs_inobt_cur", 216, false),
    ("xfs_allocbt_cur", 208, false),
    ("xfs_rmapbt_cur", 248, false),
    ("xfs_refcbt_cur", 200, false),
    ("xfs_da_state", 480, false),
    ("xfs_ifork", 48, false),
    ("xfs_trans", 232, false),
    ("xfs_buf_item", 208, false),
    ("xfs_efd_item", 184, false),
    ("xfs_efi_item", 432, false),
    ("xfs_inode", 960, true),
    ("xfs_ili", 200, false),
    ("xfs_icr", 184, false),
    ("xfs_rud_item", 176, false),
    ("xfs_rui_item", 688, false),
    ("xfs_cud_item", 176, false),
    ("xfs_cui_item", 432, false),
    ("xfs_bud_item", 176, false),
    ("xfs_bui_item", 208, false),
    ("xfs_attrd_item", 176, false),
    ("xfs_attri_item", 216, false),
    ("xfs_iul_item", 176, false),
    ("xfs_bmap_intent", 96, false),
    ("xfs_extfree_intent", 88, false),
    ("xfs_attr_intent", 240, false),
];

/// Live objects of each cache.
const OBJECTS: usize = 1000;

/// KiB of all slabs.
pub(super) fn slab_kib() -> u64 {
    mm().counts().used[Use::Slab as usize] * PAGE_SIZE / 1024
}

/// Gives back what all caches could do without, so also those that sheaves come from.
fn shrink_all() {
    for cache in slabs().caches().iter() {
        cache.shrink();
    }
}

/// What is held while each cache has its objects, and after all were freed and all caches
/// shrunk; with what the objects need (`live_kib`) and one slab of each cache (`slabs_kib`), so
/// that the one can be compared with the other.
fn xfs(run: &mut Run) -> Outcome {
    let mut caches = Vec::new();
    for (name, size, aligned) in XFS {
        let flags = if aligned {
            Flags::HWCACHE_ALIGN
        } else {
            Flags::empty()
        };
        caches.push((
            Own::new(&Spec::new(name, size).flags(flags))?,
            places(OBJECTS)?,
        ));
    }
    shrink_all();
    let before = slab_kib();
    let mut had = true;
    for (own, held) in &mut caches {
        for place in held.iter_mut() {
            match own.cache().alloc(Gfp::KERNEL) {
                Some(object) => *place = object,
                None => had = false,
            }
        }
    }
    let held_kib = slab_kib().saturating_sub(before);
    let (mut live, mut slabs) = (0, 0);
    for (own, held) in &caches {
        let layout = own.cache().layout();
        live += OBJECTS as u64 * u64::from(layout.object_size);
        slabs += PAGE_SIZE << layout.order;
        let dangling = NonNull::dangling();
        for object in held.iter().filter(|object| **object != dangling) {
            // SAFETY: allocated above, and used by nobody.
            unsafe { own.cache().free(*object) };
        }
    }
    shrink_all();
    let after_kib = slab_kib().saturating_sub(before);
    // Destroyed in the reverse order.
    caches
        .into_iter()
        .rev()
        .try_for_each(|(own, _)| own.end())?;
    if !had {
        return Err(failed("no memory for objects"));
    }
    run.key("held_kib", Value::Whole(held_kib))?;
    run.key("after_kib", Value::Whole(after_kib))?;
    run.key("live_kib", Value::Whole(live.div_ceil(1024)))?;
    run.key("slabs_kib", Value::Whole(slabs / 1024))
}
