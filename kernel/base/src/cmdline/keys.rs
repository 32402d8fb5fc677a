//! The table of all keys.

use core::fmt;

/// A key of the command line, for `help` and the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// What stands before the `=`.
    pub name: &'static str,
    /// What the value must be.
    pub value: ValueType,
    /// What holds where the key is absent.
    pub default: &'static str,
    /// What the key does.
    pub help: &'static str,
}

/// What the value of a key must be. Prints as a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// No value.
    Flag,
    /// Any text.
    Text,
    /// A name: text that is not empty.
    Name,
    /// A glob, or several with commas between them.
    Globs,
    /// The name of a test case with its suite.
    CaseName,
    /// A number above 0, decimal or hexadecimal with `0x`.
    Count,
    /// A number between these two, and they.
    Range(u64, u64),
    /// A port number, 1 to 0xffff.
    Port,
    /// A seed, or `random`.
    Seed,
    /// A level of the log.
    Level,
    /// What to do after a panic.
    OnPanic,
    /// On or off.
    Switch,
    /// Knobs of fault injection, as Linux's `fail_page_alloc` has them.
    Faults,
    /// A number of bytes, perhaps in KiB or MiB.
    Bytes,
    /// Which slab caches are debug caches, as Linux's `slub_debug` has it.
    SlubDebug,
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Range(least, most) => return write!(f, "{least} to {most}"),
            Self::Flag => "no value",
            Self::Text => "text",
            Self::Name => "a name",
            Self::Globs => "GLOB[,GLOB]",
            Self::CaseName => "suite.case",
            Self::Count => "a number above 0",
            Self::Port => "a port, 1 to 0xffff",
            Self::Seed => "a number or random",
            Self::Level => "error|warn|info|debug|trace",
            Self::OnPanic => "halt|exit|reboot",
            Self::Switch => "on|off",
            Self::Faults => "INTERVAL,PROBABILITY,SPACE,TIMES",
            Self::Bytes => "BYTES, or a number and KiB or MiB",
            Self::SlubDebug => "LETTERS[,CACHE...][;...]",
        })
    }
}

const fn key(
    name: &'static str,
    value: ValueType,
    default: &'static str,
    help: &'static str,
) -> Key {
    Key {
        name,
        value,
        default,
        help,
    }
}

/// Every key the kernel knows, by name.
pub const KEYS: &[Key] = &[
    key(
        "bench",
        ValueType::Globs,
        "none",
        "run the benchmarks that match, by name or by what is before the first slash, then exit",
    ),
    key(
        "bench.list",
        ValueType::Flag,
        "off",
        "list the benchmarks instead of running them",
    ),
    key(
        "bench.rounds",
        ValueType::Count,
        "5",
        "rounds of each benchmark, of which the median is reported",
    ),
    key(
        "debug_exit",
        ValueType::Port,
        "none",
        "I/O port of QEMU's isa-debug-exit device, through which the machine ends with a status",
    ),
    key(
        "fail_page_alloc",
        ValueType::Faults,
        "none fails",
        "make allocations of pages fail: each INTERVAL-th, with PROBABILITY percent, after SPACE \
         pages, TIMES at most (-1: no end); as on Linux, none of single pages or that may sleep",
    ),
    key(
        "failslab",
        ValueType::Faults,
        "none fails",
        "make allocations of objects fail, like fail_page_alloc, with SPACE in bytes; as on Linux, \
         none that may sleep",
    ),
    key(
        "init_on_alloc",
        ValueType::Switch,
        "off",
        "zero objects when they are allocated, but those with a constructor, TYPESAFE_BY_RCU or \
         POISON",
    ),
    key(
        "init_on_free",
        ValueType::Switch,
        "off",
        "zero objects when they are freed, with the same exceptions",
    ),
    key(
        "kunit",
        ValueType::Globs,
        "none",
        "run the test cases that match suite.case, then exit",
    ),
    key(
        "kunit.after",
        ValueType::CaseName,
        "none",
        "skip the cases up to and including this one: to go on after a crash",
    ),
    key(
        "kunit.list",
        ValueType::Flag,
        "off",
        "list the cases instead of running them",
    ),
    key(
        "kunit.percent",
        ValueType::Count,
        "quick",
        "run long cases for this percentage of their stated length instead of briefly",
    ),
    key(
        "kunit.planted",
        ValueType::Name,
        "none",
        "switch a planted fault of the test build on: hang, hang_irqs_on, hang_asleep, \
         hang_locked, panic, fail, truncate, noplan or silent",
    ),
    key(
        "kunit.repeat",
        ValueType::Count,
        "1",
        "run every case this often",
    ),
    key(
        "kunit.shuffle",
        ValueType::Seed,
        "off",
        "run the cases in an order made from this seed; the seed is printed",
    ),
    key(
        "kunit.timeout_ms",
        ValueType::Count,
        "60000",
        "guest milliseconds a case may take before it counts as hung",
    ),
    key(
        "loglevel",
        ValueType::Level,
        "info",
        "the least important messages that are printed",
    ),
    key(
        "maxcpus",
        ValueType::Count,
        "all",
        "start at most this many CPUs",
    ),
    key(
        "page_owner",
        ValueType::Switch,
        "off",
        "record who allocates and frees pages, for reports and the shell's pageowner",
    ),
    key(
        "page_poison",
        ValueType::Switch,
        "off",
        "fill free pages, and look when they are allocated whether somebody wrote there",
    ),
    key(
        "panic",
        ValueType::OnPanic,
        "exit with debug_exit, else halt",
        "what to do after a panic has been reported",
    ),
    key(
        "rcu.blimit",
        ValueType::Range(1, 1_000_000),
        "32",
        "RCU callbacks that a CPU runs without a look at the time",
    ),
    key(
        "rcu.fanout",
        ValueType::Range(2, 64),
        "64",
        "children of a node of the RCU tree above the leaves",
    ),
    key(
        "rcu.fanout_leaf",
        ValueType::Range(2, 64),
        "16",
        "CPUs of a leaf of the RCU tree",
    ),
    key(
        "rcu.jiffies_till_first_fqs",
        ValueType::Range(0, 250),
        "0",
        "ticks of 4 ms from the start of a grace period to the first look for idle CPUs",
    ),
    key(
        "rcu.jiffies_till_next_fqs",
        ValueType::Range(1, 250),
        "1",
        "ticks from one look for idle CPUs to the next",
    ),
    key(
        "rcu.jiffies_till_sched_qs",
        ValueType::Range(0, 2500),
        "2",
        "ticks after which a grace period interrupts the CPUs that hold it up",
    ),
    key(
        "rcu.min_interval_us",
        ValueType::Range(0, 1_000_000),
        "1000",
        "microseconds between the starts of grace periods that only callbacks wait for",
    ),
    key(
        "rcu.qhimark",
        ValueType::Range(1, 1_000_000_000),
        "10000",
        "RCU callbacks of a CPU above which there is a hurry",
    ),
    key(
        "rcu.stall_timeout_ms",
        ValueType::Range(10, 300_000),
        "21000",
        "milliseconds after which a grace period that does not end is reported",
    ),
    key(
        "rcutorture",
        ValueType::Count,
        "none",
        "torture RCU for so many seconds, then exit",
    ),
    key(
        "rcutorture.fault",
        ValueType::Name,
        "none",
        "in checked builds, the fault that is switched on meanwhile: skip_cpu, early_segment, \
         lose_qs, still_idle or drop_on_hotplug",
    ),
    key(
        "rcutorture.overlong",
        ValueType::Flag,
        "off",
        "hold a section for longer than the stall time meanwhile, which must be reported",
    ),
    key(
        "rcutorture.seed",
        ValueType::Count,
        "1",
        "what decides all that is decided at random in the torture",
    ),
    key(
        "run",
        ValueType::Text,
        "none",
        "shell commands to run; then exit with their status",
    ),
    key(
        "schedule",
        ValueType::Count,
        "off",
        "in checked builds, a seed by which locks and calls between CPUs yield, wait or are \
         interrupted",
    ),
    key(
        "slab_freelist_hardened",
        ValueType::Switch,
        "off",
        "mix the links between free objects with a secret of their cache",
    ),
    key(
        "slab_freelist_random",
        ValueType::Switch,
        "off",
        "link the objects of fresh slabs in a random order",
    ),
    key(
        "slab_quarantine",
        ValueType::Bytes,
        "0",
        "keep up to so many bytes of freed objects of each CPU from reuse, filled with poison, and \
         report those that were written to meanwhile; 0 is off",
    ),
    key(
        "slub_debug",
        ValueType::SlubDebug,
        "none",
        "make slab caches debug caches, those called CACHE (which may end with *) or else all: F \
         checks, Z has red zones, P poisons, U keeps who allocated and freed, - nothing; no letter \
         is FZPU",
    ),
    key(
        "tsc_khz",
        ValueType::Count,
        "calibrated",
        "frequency of the time stamp counter in kHz, to be trusted as it is",
    ),
];
