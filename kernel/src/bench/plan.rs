//! Which workloads run.

use alloc::vec::Vec;

use kernel_base::bench::matches;

use super::{Options, Workload};

/// All registered workloads by name.
pub fn workloads() -> Vec<&'static Workload> {
    unsafe extern "C" {
        static __benchmarks_start: u8;
        static __benchmarks_end: u8;
    }
    let start = (&raw const __benchmarks_start).cast::<&'static Workload>();
    let end = (&raw const __benchmarks_end).cast::<&'static Workload>();
    // SAFETY: The linker script puts these two symbols around the section `.benchmarks`,
    // which holds nothing but the `&'static Workload` of `bench!`, so both are of one array
    // of initialised references.
    let registered = unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) };
    let mut workloads = registered.to_vec();
    // The order of linking is no order that anybody could rely on.
    workloads.sort_unstable_by_key(|workload| workload.name);
    workloads
}

/// What `options` ask for.
pub fn selected(options: &Options) -> Vec<&'static Workload> {
    let mut workloads = workloads();
    workloads.retain(|workload| {
        let mut patterns = options.patterns.iter();
        patterns.any(|pattern| matches(pattern, workload.name))
    });
    workloads
}

/// The patterns that mean no workload at all.
pub fn unmatched(options: &Options) -> Vec<&str> {
    let workloads = workloads();
    let means_none = |pattern: &&str| !workloads.iter().any(|w| matches(pattern, w.name));
    let patterns = options.patterns.iter().map(|pattern| pattern.as_str());
    patterns.filter(means_none).collect()
}
