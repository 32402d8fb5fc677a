//! The typed command line.

use arrayvec::ArrayVec;
use log::LevelFilter;

use super::token::Tokens;
use super::{KEYS, MAX_PROBLEMS, Problem, ProblemKind, Text, Token, ValueType};

/// How long a test case may take where `kunit.timeout_ms` is absent, in
/// milliseconds of guest time.
pub const DEFAULT_CASE_TIMEOUT_MS: u64 = 60_000;

/// How many rounds of a benchmark there are where `bench.rounds` is absent.
pub const DEFAULT_ROUNDS: u64 = 5;

/// The order of test cases that `kunit.shuffle` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    /// By a seed that the kernel picks and prints.
    Random,
    /// By this seed.
    Seed(u64),
}

/// What happens after a panic has been reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPanic {
    /// Stop all CPUs.
    Halt,
    /// End QEMU with the status for a panic.
    Exit,
    /// Restart the machine.
    Reboot,
}

/// Knobs of fault injection; see `mm::fault` for their meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Each n-th may fail.
    pub interval: u32,
    /// In percent, at most 100.
    pub probability: u32,
    /// What passes before any fails.
    pub space: u32,
    /// How many fail; none: no end.
    pub times: Option<u32>,
}

/// Knobs of RCU that were given; see [`KEYS`] for their meanings, units and bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rcu {
    /// `rcu.blimit=`
    pub blimit: Option<u64>,
    /// `rcu.fanout=`
    pub fanout: Option<u64>,
    /// `rcu.fanout_leaf=`
    pub fanout_leaf: Option<u64>,
    /// `rcu.jiffies_till_first_fqs=`, in ticks
    pub jiffies_till_first_fqs: Option<u64>,
    /// `rcu.jiffies_till_next_fqs=`, in ticks
    pub jiffies_till_next_fqs: Option<u64>,
    /// `rcu.jiffies_till_sched_qs=`, in ticks
    pub jiffies_till_sched_qs: Option<u64>,
    /// `rcu.min_interval_us=`
    pub min_interval_us: Option<u64>,
    /// `rcu.qhimark=`
    pub qhimark: Option<u64>,
    /// `rcu.stall_timeout_ms=`
    pub stall_timeout_ms: Option<u64>,
}

impl Rcu {
    /// All absent.
    const NONE: Self = Self {
        blimit: None,
        fanout: None,
        fanout_leaf: None,
        jiffies_till_first_fqs: None,
        jiffies_till_next_fqs: None,
        jiffies_till_sched_qs: None,
        min_interval_us: None,
        qhimark: None,
        stall_timeout_ms: None,
    };

    /// The knob of that name, without `rcu.` before it.
    fn knob(&mut self, name: &str) -> Option<&mut Option<u64>> {
        Some(match name {
            "blimit" => &mut self.blimit,
            "fanout" => &mut self.fanout,
            "fanout_leaf" => &mut self.fanout_leaf,
            "jiffies_till_first_fqs" => &mut self.jiffies_till_first_fqs,
            "jiffies_till_next_fqs" => &mut self.jiffies_till_next_fqs,
            "jiffies_till_sched_qs" => &mut self.jiffies_till_sched_qs,
            "min_interval_us" => &mut self.min_interval_us,
            "qhimark" => &mut self.qhimark,
            "stall_timeout_ms" => &mut self.stall_timeout_ms,
            _ => return None,
        })
    }

    /// What was given for the key of [`KEYS`] called `key`.
    pub fn given(mut self, key: &str) -> Option<u64> {
        *self.knob(key.strip_prefix("rcu.")?)?
    }
}

/// What was given for slab caches; see [`KEYS`] for the meanings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slab<'a> {
    /// `slub_debug=`, not looked at yet.
    pub debug: Option<&'a str>,
    /// `failslab=`: which allocations of objects fail.
    pub faults: Option<Faults>,
    /// `init_on_alloc=`
    pub init_on_alloc: bool,
    /// `init_on_free=`
    pub init_on_free: bool,
    /// `slab_freelist_hardened=`
    pub hardened: bool,
    /// `slab_freelist_random=`
    pub random: bool,
    /// `slab_quarantine=`: bytes for each CPU; 0: off.
    pub quarantine: u64,
}

impl Slab<'_> {
    /// All absent.
    const NONE: Self = Self {
        debug: None,
        faults: None,
        init_on_alloc: false,
        init_on_free: false,
        hardened: false,
        random: false,
        quarantine: 0,
    };
}

/// What the command line says, key by key; see [`KEYS`] for their meanings.
#[derive(Clone, Debug)]
pub struct CommandLine<'a> {
    /// `run=`: shell commands to run before exiting.
    pub run: Option<Text<'a>>,
    /// `bench=`: globs of the benchmarks to run, with commas between them.
    pub bench: Option<Text<'a>>,
    /// `bench.list`: only list the benchmarks.
    pub bench_list: bool,
    /// `bench.rounds=`: rounds of each benchmark; at least 1.
    pub bench_rounds: u64,
    /// `fail_page_alloc=`: which allocations of pages fail.
    pub fail_page_alloc: Option<Faults>,
    /// `page_owner=`: record who allocates pages.
    pub page_owner: bool,
    /// `page_poison=`: fill and check free pages.
    pub page_poison: bool,
    /// `kunit=`: globs of the cases to run, with commas between them.
    pub kunit: Option<Text<'a>>,
    /// `kunit.list`: only list the cases.
    pub kunit_list: bool,
    /// `kunit.shuffle=`: the order of cases.
    pub kunit_shuffle: Option<Shuffle>,
    /// `kunit.repeat=`: how often to run each case; at least 1, which is the default.
    pub kunit_repeat: u64,
    /// `kunit.after=`: the last case to skip, as `suite.case`.
    pub kunit_after: Option<Text<'a>>,
    /// `kunit.timeout_ms=`: how long a case may take, in guest milliseconds.
    pub kunit_timeout_ms: u64,
    /// `kunit.percent=`: how long long cases run, of their stated length; none: briefly.
    pub kunit_percent: Option<u64>,
    /// `kunit.planted=`: the planted fault to switch on.
    pub kunit_planted: Option<Text<'a>>,
    /// `rcu.*=`: knobs of RCU.
    pub rcu: Rcu,
    /// What is checked and switched on in slab caches.
    pub slab: Slab<'a>,
    /// `rcutorture=`: for how many seconds to torture RCU.
    pub rcutorture: Option<u64>,
    /// `rcutorture.fault=`: the fault to switch on meanwhile.
    pub rcutorture_fault: Option<Text<'a>>,
    /// `rcutorture.overlong`: hold a section for too long meanwhile.
    pub rcutorture_overlong: bool,
    /// `rcutorture.seed=`: the seed of the torture.
    pub rcutorture_seed: Option<u64>,
    /// `schedule=`: the seed of schedules.
    pub schedule: Option<u64>,
    /// `tsc_khz=`: frequency of the time stamp counter in kHz.
    pub tsc_khz: Option<u64>,
    /// `loglevel=`: what is printed.
    pub loglevel: LevelFilter,
    /// `debug_exit=`: port of the device that ends QEMU.
    pub debug_exit: Option<u16>,
    /// `maxcpus=`: the number of CPUs to start, at least 1.
    pub maxcpus: Option<u64>,
    /// `panic=`: what was asked for; [`CommandLine::on_panic`] has the default.
    pub panic: Option<OnPanic>,
    problems: ArrayVec<Problem<'a>, MAX_PROBLEMS>,
    problems_dropped: usize,
}

impl Default for CommandLine<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> CommandLine<'a> {
    /// An empty command line: every default.
    pub const fn new() -> Self {
        Self {
            run: None,
            bench: None,
            bench_list: false,
            bench_rounds: DEFAULT_ROUNDS,
            fail_page_alloc: None,
            page_owner: false,
            page_poison: false,
            kunit: None,
            kunit_list: false,
            kunit_shuffle: None,
            kunit_repeat: 1,
            kunit_after: None,
            kunit_timeout_ms: DEFAULT_CASE_TIMEOUT_MS,
            kunit_percent: None,
            kunit_planted: None,
            rcu: Rcu::NONE,
            slab: Slab::NONE,
            rcutorture: None,
            rcutorture_fault: None,
            rcutorture_overlong: false,
            rcutorture_seed: None,
            schedule: None,
            tsc_khz: None,
            loglevel: LevelFilter::Info,
            debug_exit: None,
            maxcpus: None,
            panic: None,
            problems: ArrayVec::new_const(),
            problems_dropped: 0,
        }
    }

    /// Reads `line`. Never fails: see [`problems`](Self::problems).
    pub fn parse(line: &'a str) -> Self {
        let mut this = Self::new();
        let mut seen = 0u64;
        for token in Tokens::new(line) {
            this.take(token, &mut seen);
        }
        this
    }

    /// Reads a line as it comes from the firmware or a file: up to the first
    /// byte that is not UTF-8.
    pub fn parse_bytes(line: &'a [u8]) -> Self {
        match core::str::from_utf8(line) {
            Ok(line) => Self::parse(line),
            Err(error) => {
                let position = error.valid_up_to();
                let mut this = Self::parse(core::str::from_utf8(&line[..position]).unwrap_or(""));
                this.report(position, ProblemKind::NotUtf8);
                this
            }
        }
    }

    /// What is wrong with the line, in the order of the line; at most
    /// [`MAX_PROBLEMS`].
    pub fn problems(&self) -> &[Problem<'a>] {
        &self.problems
    }

    /// How many problems there were beyond those kept.
    pub fn problems_dropped(&self) -> usize {
        self.problems_dropped
    }

    /// What to do after a panic: what `panic=` says; without it exit if
    /// `debug_exit=` gives the means, and halt otherwise.
    pub fn on_panic(&self) -> OnPanic {
        match (self.panic, self.debug_exit) {
            (Some(wanted), _) => wanted,
            (None, Some(_)) => OnPanic::Exit,
            (None, None) => OnPanic::Halt,
        }
    }

    fn report(&mut self, position: usize, kind: ProblemKind<'a>) {
        if self.problems.try_push(Problem { position, kind }).is_err() {
            self.problems_dropped += 1;
        }
    }

    /// Takes one token in. `seen` has a bit for each of [`KEYS`].
    fn take(&mut self, token: Token<'a>, seen: &mut u64) {
        let Token {
            position,
            key,
            value,
            problem,
        } = token;
        if let Some(problem) = problem {
            self.report(position, problem);
        }
        let Some(index) = KEYS.iter().position(|known| known.name == key) else {
            return self.report(position, ProblemKind::UnknownKey { key });
        };
        if *seen & 1 << index != 0 {
            self.report(position, ProblemKind::Duplicate { key });
        }
        *seen |= 1 << index;
        let expected = KEYS[index].value;
        match value {
            None if expected == ValueType::Flag => self.switch_on(key),
            None => self.report(position, ProblemKind::MissingValue { key, expected }),
            Some(_) if expected == ValueType::Flag => {
                self.report(position, ProblemKind::UnexpectedValue { key });
            }
            Some(value) => {
                if self.assign(key, expected, value).is_none() {
                    self.report(
                        position,
                        ProblemKind::BadValue {
                            key,
                            value,
                            expected,
                        },
                    );
                }
            }
        }
    }

    /// Switches `key`, one of [`KEYS`] without a value, on.
    fn switch_on(&mut self, key: &str) {
        match key {
            "bench.list" => self.bench_list = true,
            "kunit.list" => self.kunit_list = true,
            "rcutorture.overlong" => self.rcutorture_overlong = true,
            _ => {}
        }
    }

    /// Gives `key`, one of [`KEYS`], which takes what is `expected`, a value; `None` if the value is malformed.
    fn assign(&mut self, key: &str, expected: ValueType, value: Text<'a>) -> Option<()> {
        if let ValueType::Range(least, most) = expected {
            let knob = self.rcu.knob(key.strip_prefix("rcu.")?)?;
            *knob = Some(number(value).filter(|given| (least..=most).contains(given))?);
            return Some(());
        }
        match key {
            "run" => self.run = Some(value),
            "bench" => self.bench = Some(not_empty(value)?),
            "bench.rounds" => self.bench_rounds = count(value)?,
            "fail_page_alloc" => self.fail_page_alloc = Some(faults(value)?),
            "page_owner" => self.page_owner = switch(value)?,
            "page_poison" => self.page_poison = switch(value)?,
            "failslab" => self.slab.faults = Some(faults(value)?),
            "init_on_alloc" => self.slab.init_on_alloc = switch(value)?,
            "init_on_free" => self.slab.init_on_free = switch(value)?,
            "slab_freelist_hardened" => self.slab.hardened = switch(value)?,
            "slab_freelist_random" => self.slab.random = switch(value)?,
            "slab_quarantine" => self.slab.quarantine = bytes(value)?,
            "slub_debug" => self.slab.debug = Some(value.as_plain()?),
            "kunit" => self.kunit = Some(not_empty(value)?),
            "kunit.shuffle" => self.kunit_shuffle = Some(shuffle(value)?),
            "kunit.repeat" => self.kunit_repeat = count(value)?,
            "kunit.after" => self.kunit_after = Some(case_name(value)?),
            "kunit.timeout_ms" => self.kunit_timeout_ms = count(value)?,
            "kunit.percent" => self.kunit_percent = Some(count(value)?),
            "kunit.planted" => self.kunit_planted = Some(not_empty(value)?),
            "rcutorture" => self.rcutorture = Some(count(value)?),
            "rcutorture.fault" => self.rcutorture_fault = Some(not_empty(value)?),
            "rcutorture.seed" => self.rcutorture_seed = Some(count(value)?),
            "schedule" => self.schedule = Some(count(value)?),
            "tsc_khz" => self.tsc_khz = Some(count(value)?),
            "loglevel" => self.loglevel = level(value)?,
            "debug_exit" => self.debug_exit = Some(u16::try_from(count(value)?).ok()?),
            "maxcpus" => self.maxcpus = Some(count(value)?),
            "panic" => self.panic = Some(on_panic(value)?),
            _ => return None,
        }
        Some(())
    }
}

fn not_empty(value: Text<'_>) -> Option<Text<'_>> {
    (!value.is_empty()).then_some(value)
}

fn case_name(value: Text<'_>) -> Option<Text<'_>> {
    let (suite, case) = value.as_plain()?.split_once('.')?;
    (!suite.is_empty() && !case.is_empty()).then_some(value)
}

fn number(value: Text<'_>) -> Option<u64> {
    let text = value.as_plain()?;
    let (digits, radix) = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // `from_str_radix` alone would take a sign.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

fn count(value: Text<'_>) -> Option<u64> {
    number(value).filter(|&n| n > 0)
}

fn bytes(value: Text<'_>) -> Option<u64> {
    let text = value.as_plain()?;
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (digits, unit) = text.split_at(end.unwrap_or(text.len()));
    let shift = match unit {
        "" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn shuffle(value: Text<'_>) -> Option<Shuffle> {
    if value == "random" {
        Some(Shuffle::Random)
    } else {
        number(value).map(Shuffle::Seed)
    }
}

fn level(value: Text<'_>) -> Option<LevelFilter> {
    match value.as_plain()? {
        "error" => Some(LevelFilter::Error),
        "warn" => Some(LevelFilter::Warn),
        "info" => Some(LevelFilter::Info),
        "debug" => Some(LevelFilter::Debug),
        "trace" => Some(LevelFilter::Trace),
        _ => None,
    }
}

fn switch(value: Text<'_>) -> Option<bool> {
    match value.as_plain()? {
        "on" | "1" => Some(true),
        "off" | "0" => Some(false),
        _ => None,
    }
}

fn faults(value: Text<'_>) -> Option<Faults> {
    let mut fields = value.as_plain()?.split(',');
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| digits(text));
    let [interval, probability, space] = [fields.next()?, fields.next()?, fields.next()?];
    let times = match fields.next()? {
        "-1" => None,
        times => Some(number(times).filter(|times| *times <= i32::MAX as u32)?),
    };
    let faults = Faults {
        interval: number(interval)?,
        probability: number(probability).filter(|percent| *percent <= 100)?,
        space: number(space)?,
        times,
    };
    fields.next().is_none().then_some(faults)
}

fn on_panic(value: Text<'_>) -> Option<OnPanic> {
    match value.as_plain()? {
        "halt" => Some(OnPanic::Halt),
        "exit" => Some(OnPanic::Exit),
        "reboot" => Some(OnPanic::Reboot),
        _ => None,
    }
}

/// `seen` of [`CommandLine::take`] has room for every key.
const _: () = assert!(KEYS.len() <= u64::BITS as usize);
