//! The kernel command line as the kernel understood it.

use alloc::format;
use alloc::string::{String, ToString};

use kernel_base::cmdline::{
    CommandLine, DEFAULT_CASE_TIMEOUT_MS, DEFAULT_ROUNDS, Faults, KEYS, OnPanic, Shuffle,
};
use log::LevelFilter;

use crate::boot;
use crate::shell::{Args, Status, shell_command};

shell_command! {
    name: "cmdline",
    usage: "",
    summary: "show the kernel's command line, key by key",
    details: "A star marks what differs from the default. Problems found in the line follow.",
    arguments: (0, 0),
    run: show,
}

fn show(_: Args<'_>) -> Status {
    let line = boot::command_line();
    for key in KEYS {
        let given = value(line, key.name);
        let mark = if given.is_some() { '*' } else { ' ' };
        let value = given.unwrap_or_else(|| String::from(key.default));
        crate::println!("{mark} {:<26} {value}", key.name);
        crate::println!("    {} ({}; default: {})", key.help, key.value, key.default);
    }
    for problem in line.problems() {
        crate::println!("problem: {problem}");
    }
    if line.problems_dropped() > 0 {
        crate::println!("and {} more problems", line.problems_dropped());
    }
    Status::SUCCESS
}

/// What `key` was set to, if it is not the default.
fn value(line: &CommandLine<'_>, key: &str) -> Option<String> {
    match key {
        "bench" => line.bench.map(|globs| globs.to_string()),
        "bench.list" => line.bench_list.then(|| String::from("on")),
        "bench.rounds" => differs(line.bench_rounds, DEFAULT_ROUNDS),
        "debug_exit" => line.debug_exit.map(|port| format!("{port:#x}")),
        "fail_page_alloc" => line.fail_page_alloc.map(faults),
        "failslab" => line.slab.faults.map(faults),
        "init_on_alloc" => line.slab.init_on_alloc.then(|| String::from("on")),
        "init_on_free" => line.slab.init_on_free.then(|| String::from("on")),
        "slab_freelist_hardened" => line.slab.hardened.then(|| String::from("on")),
        "slab_freelist_random" => line.slab.random.then(|| String::from("on")),
        "slab_quarantine" => differs(line.slab.quarantine, 0),
        "slub_debug" => line.slab.debug.map(String::from),
        "page_owner" => line.page_owner.then(|| String::from("on")),
        "page_poison" => line.page_poison.then(|| String::from("on")),
        "kunit" => line.kunit.map(|globs| globs.to_string()),
        "kunit.after" => line.kunit_after.map(|name| name.to_string()),
        "kunit.list" => line.kunit_list.then(|| String::from("on")),
        "kunit.percent" => line.kunit_percent.map(|percent| percent.to_string()),
        "kunit.planted" => line.kunit_planted.map(|name| name.to_string()),
        "rcutorture" => line.rcutorture.map(|seconds| seconds.to_string()),
        "rcutorture.fault" => line.rcutorture_fault.map(|name| name.to_string()),
        "rcutorture.overlong" => line.rcutorture_overlong.then(|| String::from("on")),
        "rcutorture.seed" => line.rcutorture_seed.map(|seed| seed.to_string()),
        "kunit.repeat" => differs(line.kunit_repeat, 1),
        "kunit.shuffle" => line.kunit_shuffle.map(|shuffle| match shuffle {
            Shuffle::Random => String::from("random"),
            Shuffle::Seed(seed) => seed.to_string(),
        }),
        "kunit.timeout_ms" => differs(line.kunit_timeout_ms, DEFAULT_CASE_TIMEOUT_MS),
        "loglevel" => (line.loglevel != LevelFilter::Info)
            .then(|| line.loglevel.as_str().to_ascii_lowercase()),
        "maxcpus" => line.maxcpus.map(|count| count.to_string()),
        "panic" => line.panic.map(|what| {
            String::from(match what {
                OnPanic::Halt => "halt",
                OnPanic::Exit => "exit",
                OnPanic::Reboot => "reboot",
            })
        }),
        knob if knob.starts_with("rcu.") => line.rcu.given(knob).map(|value| value.to_string()),
        "run" => line.run.map(|commands| commands.to_string()),
        "schedule" => line.schedule.map(|seed| seed.to_string()),
        "tsc_khz" => line.tsc_khz.map(|khz| khz.to_string()),
        // A key this command has not learnt yet shows its default only.
        _ => None,
    }
}

fn differs(value: u64, default: u64) -> Option<String> {
    (value != default).then(|| value.to_string())
}

fn faults(faults: Faults) -> String {
    let Faults {
        interval,
        probability,
        space,
        times,
    } = faults;
    let times = times.map_or(-1, i64::from);
    format!("{interval},{probability},{space},{times}")
}
