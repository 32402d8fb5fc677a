//! The kernel command line and the shell: what they say and how they end.

use super::{Check, GOOD_END, boot, has, quick, small, with_cpus};
use crate::test::scenario::{Action, Boot, Scenario};
use crate::test::subject::{RESET, SUCCESS, run_status};

/// Command lines with something wrong: the kernel says so and goes on.
const PROBLEMS: &[(&str, &str, &str)] = &[
    (
        "cmdline-unknown-key",
        "colour=red run=true",
        r"warn.*unknown key `colour`",
    ),
    (
        "cmdline-unknown-flag",
        "verbose run=true",
        r"warn.*unknown key `verbose`",
    ),
    (
        "cmdline-bad-number",
        "maxcpus=many run=true",
        r"warn.*maxcpus",
    ),
    (
        "cmdline-bad-level",
        "loglevel=loud run=true",
        r"warn.*loglevel",
    ),
    (
        "cmdline-missing-value",
        "maxcpus run=true",
        r"warn.*maxcpus",
    ),
    (
        "cmdline-bad-faults",
        "fail_page_alloc=1,200,0,1 run=true",
        r"warn.*fail_page_alloc.*INTERVAL,PROBABILITY,SPACE,TIMES",
    ),
    (
        "cmdline-bad-slub-debug",
        "slub_debug=FQ run=true",
        r"warn.*slab: slub_debug: `Q` is none of the letters",
    ),
    ("cmdline-open-quote", r#"run="true"#, r"warn.*run"),
];

/// Shell commands, the status they end with, and a line that is printed.
const COMMANDS: &[(&str, &str, i32, &str)] = &[
    ("shell-true", "true", SUCCESS, r"boot: ready"),
    ("shell-false", "false", run_status(1), r"boot: ready"),
    (
        "shell-last-status-counts",
        "false; true",
        SUCCESS,
        r"boot: ready",
    ),
    (
        "shell-last-failure-counts",
        "true; false",
        run_status(1),
        r"boot: ready",
    ),
    (
        "shell-unknown-command",
        "nonsense",
        run_status(31),
        r"unknown command 'nonsense'",
    ),
    (
        "shell-wrong-usage",
        "mem a b",
        run_status(2),
        r"mem: too many arguments",
    ),
    ("shell-echo", "echo one two", SUCCESS, r"^one two$"),
    ("shell-help", "help", SUCCESS, r"poweroff"),
    ("shell-dmesg", "dmesg", SUCCESS, r"smp: 2 of 2 CPUs online"),
    (
        "shell-locks",
        "locks; locks --held",
        SUCCESS,
        r"classes, [0-9]+ edges, [0-9]+ acquisitions",
    ),
    (
        "shell-locks-wrong-option",
        "locks --all",
        run_status(2),
        r"locks: '--all' is not an option",
    ),
    (
        "shell-kunit-without-match",
        "kunit no-such-suite",
        run_status(1),
        r"boot: ready",
    ),
    (
        "shell-fault",
        "fault page probability 10; fault page times -1; fault page task kmain; fault",
        SUCCESS,
        r"^probability +10$",
    ),
    (
        "shell-fault-wrong-knob",
        "fault page probabilty 10",
        run_status(2),
        r"^fault: there is no knob `probabilty`$",
    ),
    (
        "shell-fault-wrong-thread",
        "fault page task nobody-of-this-name",
        run_status(1),
        r"^fault: no thread is called 'nobody-of-this-name'$",
    ),
    (
        "shell-pagepoison",
        "pagepoison on; pagepoison; pagepoison off; pagepoison",
        SUCCESS,
        r"^page poison is off$",
    ),
    (
        "shell-pageowner-off",
        "pageowner",
        run_status(1),
        r"^pageowner: nothing is recorded; boot with page_owner=on$",
    ),
    (
        "shell-cpu",
        "cpu off 1; cpu on 1; cpu off 1; cpu",
        SUCCESS,
        r"^ +1 +offline +\d+\.\d+ +0 of \d+$",
    ),
    (
        "shell-cpu-boot",
        "cpu off 0",
        run_status(1),
        r"^cpu: cpu0 cannot go: ",
    ),
    (
        "shell-cpu-not-possible",
        "cpu on 7",
        run_status(1),
        r"^cpu: cpu7 is not possible: this kernel was started for CPUs 0-1$",
    ),
    (
        "shell-cpu-twice",
        "cpu on 1",
        run_status(1),
        r"^cpu: cpu1 is online already$",
    ),
    (
        "shell-cpu-fail",
        "cpu fail run; cpu off 1",
        run_status(1),
        r"^cpu: cpu1: step 'run' failed: it was made to$",
    ),
    (
        "shell-cpu-wrong-number",
        "cpu off one",
        run_status(2),
        r"^cpu: .*'one'",
    ),
    (
        "shell-poweroff",
        "poweroff; echo still here",
        SUCCESS,
        r"boot: ready",
    ),
    ("shell-reboot", "reboot", RESET, r"boot: ready"),
];

/// The scenarios.
pub fn table() -> Vec<Scenario> {
    let problems = PROBLEMS.iter().map(|&(name, cmdline, warning)| {
        quick(
            name,
            Action::Boot(boot(small(), cmdline, vec![GOOD_END, has(warning)])),
        )
    });
    let commands = COMMANDS.iter().map(|&(name, commands, status, line)| {
        let cmdline = format!(r#"run="{commands}""#);
        let mut checks = vec![Check::Status(status), has(line)];
        checks.push(Check::HasNot("^still here".into()));
        checks.push(Check::HasNot("=== REPORT".into()));
        quick(name, Action::Boot(boot(small(), &cmdline, checks)))
    });
    problems
        .chain(commands)
        .chain([
            maxcpus(),
            quiet(),
            typed(),
            page_checks(),
            page_owners(),
            page_faults(),
            slab_checks(),
            slab_quarantine(),
            slab_faults(),
        ])
        .collect()
}

/// All checks of pages from the first page on: what boots, runs and is tested then.
fn page_checks() -> Scenario {
    let checks = vec![
        GOOD_END,
        has(r"memory: owners of pages are recorded, in \d+ KiB"),
        has(r"^    ok \d+ owners_are_known$"),
        has(r"^    ok \d+ leaks_are_found$"),
        Check::HasNot("# SKIP page_owner".into()),
        Check::HasNot("=== REPORT".into()),
    ];
    let cmdline = "page_poison=on page_owner=on kunit=page_debug.*,threads.*";
    quick(
        "page-checks",
        Action::Boot(boot(with_cpus(4), cmdline, checks)),
    )
}

/// Who has pages, by name.
fn page_owners() -> Scenario {
    let checks = vec![
        GOOD_END,
        has(r"^ .*[a-z_]+.*\+0x[0-9a-f]+"),
        has(r"^nr_base_pages: \d+$"),
        has(r"^Page allocated via order \d+, mask 0x[0-9a-f]+\("),
        has(r"^\d+ pages of \d+ allocators$"),
        has(r"^page poison is on$"),
    ];
    let cmdline = r#"page_owner=on page_poison=on run="pagepoison; pageowner; pageowner --mark; pageowner --leaks; pageowner --blocks""#;
    quick("page-owners", Action::Boot(boot(small(), cmdline, checks)))
}

/// Allocations that are made to fail: told of, and survived by who wanted a thread.
fn page_faults() -> Scenario {
    let checks = vec![
        GOOD_END,
        has(r"^=== REPORT Memory\(OutOfMemory\) .*vmalloc of \d+ bytes \(RECLAIM\): no free pages"),
        has(r"^    #[01] .*vmalloc.*alloc"),
        has(r"not started: no memory for a thread"),
        // With the knobs off again.
        has(r"^    ok 1 addresses_of_no_frame$"),
        has(r"^failures +2$"),
    ];
    let case = "kunit page_debug.addresses_of_no_frame";
    let knobs = "fault page min-order 0; fault page ignore-gfp-wait off";
    let cmdline = format!(
        r#"fail_page_alloc=1,0,0,2 run="{knobs}; fault page probability 100; {case}; {case}; fault""#
    );
    quick("page-faults", Action::Boot(boot(small(), &cmdline, checks)))
}

/// All caches are debug caches, and all else that can be switched on for them is.
fn slab_checks() -> Scenario {
    let checks = vec![
        GOOD_END,
        has(r"^ +ok \d+ callers_have_names$"),
        has(r"^ +ok \d+ test_krealloc_redzone_zeroing$"),
        has(r"^ +ok \d+ the_heap_is_sound_while_others_allocate$"),
        has(r"^ +ok \d+ under_each_lock$"),
        has(r"^ +ok \d+ aliases_are_listed # SKIP slub_debug= is on"),
        Check::HasNot("=== REPORT".into()),
    ];
    let cmdline = "slub_debug=FZPU slab_freelist_hardened=on slab_freelist_random=on \
                   init_on_alloc=on init_on_free=on \
                   kunit=slub_kunit.*,slab*.*,kmalloc.*,heap_walk.*,threads.*";
    quick(
        "slab-checks",
        Action::Boot(boot(with_cpus(4), cmdline, checks)),
    )
}

/// Freed objects wait before they are reused, and none is written to.
fn slab_quarantine() -> Scenario {
    let checks = vec![
        GOOD_END,
        has(r"^ +ok \d+ freed_objects_wait_in_quarantine$"),
        has(r"^ +ok \d+ the_heap_is_sound_while_others_allocate$"),
        has(r"^ +ok \d+ a_cpu_that_goes_keeps_nothing$"),
        Check::HasNot("=== REPORT".into()),
    ];
    let cmdline = "slab_quarantine=64KiB kunit=slab*.*,kmalloc.*,heap_walk.*,threads.*,hotplug.*";
    quick(
        "slab-quarantine",
        Action::Boot(boot(with_cpus(4), cmdline, checks)),
    )
}

/// Allocations of objects that are made to fail: what the command line and the shell set.
fn slab_faults() -> Scenario {
    let checks = vec![
        GOOD_END,
        has(r"^interval +3$"),
        has(r"^times +-1$"),
        has(r"^cache-filter +on$"),
        has(r"^cache +kmalloc-64$"),
        has(r"^fault: no cache is called 'nobody'$"),
        Check::HasNot("=== REPORT".into()),
    ];
    let cmdline = r#"failslab=3,0,0,-1 run="fault slab; fault slab cache +nobody; fault slab cache-filter on; fault slab cache +kmalloc-64; fault slab""#;
    quick("slab-faults", Action::Boot(boot(small(), cmdline, checks)))
}

/// Fewer CPUs than there are.
fn maxcpus() -> Scenario {
    // The third CPU is not there or not online.
    let third = Check::HasNot(r"^ +2 +\d+ +online".into());
    let checks = vec![
        GOOD_END,
        third,
        has(r"smp: 2 of \d+ CPUs online"),
        has(r"^ +1 +0 +online"),
    ];
    quick(
        "cmdline-maxcpus",
        Action::Boot(boot(with_cpus(4), "maxcpus=2 run=cpus", checks)),
    )
}

/// A level that leaves the information out of the serial line.
fn quiet() -> Scenario {
    let checks = vec![
        GOOD_END,
        has("^seen$"),
        Check::HasNot(r"cpu\d+ (info|debug|trace):".into()),
    ];
    quick(
        "cmdline-loglevel",
        Action::Boot(boot(small(), r#"loglevel=warn run="echo seen""#, checks)),
    )
}

/// Somebody types at the prompt, with a mistake taken back.
fn typed() -> Scenario {
    let boot = Boot {
        input: "echo pear applx\u{7f}e\rpoweroff\r".into(),
        ..boot(
            small(),
            "",
            vec![GOOD_END, has("granary> "), has("^pear apple$")],
        )
    };
    quick("shell-typed", Action::Boot(boot))
}
