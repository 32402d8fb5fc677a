//! Which cases run, and in which order.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kernel_base::glob;
use kernel_base::rng::Rng;

use super::{Case, Options, Suite};

/// A suite with those of its cases that are to run, in their order. There is at
/// least one.
pub struct Planned {
    /// The suite.
    pub suite: &'static Suite,
    /// The cases.
    pub cases: Vec<&'static Case>,
}

/// All registered suites by name, without the planted one.
pub fn suites() -> Vec<&'static Suite> {
    unsafe extern "C" {
        static __kunit_suites_start: u8;
        static __kunit_suites_end: u8;
    }
    let start = (&raw const __kunit_suites_start).cast::<&'static Suite>();
    let end = (&raw const __kunit_suites_end).cast::<&'static Suite>();
    // SAFETY: The linker script puts these two symbols around the section
    // `.kunit_suites`, which holds nothing but the `&'static Suite` of
    // `kunit_suite!`, so both are of one array of initialised references.
    let registered = unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) };
    let mut suites = registered.to_vec();
    // The order of linking is no order that anybody could rely on.
    suites.sort_unstable_by_key(|suite| suite.name);
    suites
}

/// What runs in round `round` (from 0).
pub fn build(suites: &[&'static Suite], options: &Options, round: u32) -> Vec<Planned> {
    let mut plan: Vec<Planned> = suites
        .iter()
        .map(|&suite| Planned {
            suite,
            cases: suite
                .cases
                .iter()
                .filter(|case| selects(options, suite, case))
                .collect(),
        })
        .collect();
    if let Some(seed) = options.shuffle {
        // Each round has an order of its own, the same in every run with this seed.
        let mut rng = Rng::new(seed.wrapping_add(u64::from(round)));
        rng.shuffle(&mut plan);
        for planned in &mut plan {
            rng.shuffle(&mut planned.cases);
        }
    }
    // What comes after is meant for the round that was cut short, the first one.
    if round == 0
        && let Some(after) = &options.after
    {
        resume(&mut plan, after);
    }
    plan.retain(|planned| !planned.cases.is_empty());
    plan
}

/// Leaves out everything up to and including the case called `after`.
fn resume(plan: &mut [Planned], after: &str) {
    let Some((suite_at, case_at)) = find(plan, after) else {
        return;
    };
    for planned in &mut plan[..suite_at] {
        planned.cases.clear();
    }
    plan[suite_at].cases.drain(..=case_at);
}

/// Whether a selected case is called `name`.
pub fn contains(suites: &[&'static Suite], options: &Options, name: &str) -> bool {
    suites.iter().any(|suite| {
        suite
            .cases
            .iter()
            .any(|case| full_name(suite, case) == name && selects(options, suite, case))
    })
}

/// `suite.case`.
pub fn full_name(suite: &Suite, case: &Case) -> String {
    format!("{}.{}", suite.name, case.name)
}

fn find(plan: &[Planned], name: &str) -> Option<(usize, usize)> {
    plan.iter().enumerate().find_map(|(suite_at, planned)| {
        let case_at = planned
            .cases
            .iter()
            .position(|case| full_name(planned.suite, case) == name)?;
        Some((suite_at, case_at))
    })
}

fn selects(options: &Options, suite: &Suite, case: &Case) -> bool {
    let name = full_name(suite, case);
    options.patterns.iter().any(|pattern| {
        glob::matches(pattern, &name)
            || (!pattern.contains('.') && glob::matches(pattern, suite.name))
    })
}
