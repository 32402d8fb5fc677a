//! The engine's knobs, from the command line's.

use kernel_base::cmdline;
use rcu::Config;

use crate::timer::TICK_NS;

/// The engine's defaults, but for what was given.
pub(super) fn from_command_line(given: &cmdline::Rcu) -> Config {
    let mut config = Config::default();
    let ns = |factor: u64| move |value: u64| value * factor;
    let ticks = ns(TICK_NS);
    set(
        &mut config.first_scan_ns,
        given.jiffies_till_first_fqs,
        ticks,
    );
    set(&mut config.next_scan_ns, given.jiffies_till_next_fqs, ticks);
    set(&mut config.urge_ns, given.jiffies_till_sched_qs, ticks);
    set(
        &mut config.min_interval_ns,
        given.min_interval_us,
        ns(1_000),
    );
    set(&mut config.stall_ns, given.stall_timeout_ms, ns(1_000_000));
    let number = |value: u64| value as usize;
    set(&mut config.leaf_fanout, given.fanout_leaf, number);
    set(&mut config.fanout, given.fanout, number);
    set(&mut config.batch, given.blimit, number);
    set(&mut config.high_mark, given.qhimark, number);
    config
}

/// Sets a knob to what was given, if something was.
fn set<T>(knob: &mut T, given: Option<u64>, convert: impl FnOnce(u64) -> T) {
    if let Some(value) = given {
        *knob = convert(value);
    }
}
