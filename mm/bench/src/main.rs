//! Figures of the portable allocators on the host, as lines of [`kernel_base::bench`]; run by
//! `cargo xtask bench --machine host`.
//!
//!     cargo run --release -- 5 'pair/*,batch/256/256*'
//!
//! - [`pages`]: the page allocator, on a hosted machine of one CPU without chance
//! - [`slab`]: caches and kmalloc, on [`lone`], a machine of one CPU that costs what a kernel's
//!   does: one instruction to turn preemption off, one to find what is the CPU's own
//! - [`others`]: the same loops on the host's allocator, and (feature `others`) on mimalloc
//!   and snmalloc
//! - [`count`]: how many instructions an operation takes

mod count;
mod lone;
mod others;
mod pages;
mod slab;

use std::process::ExitCode;

use kernel_base::bench::{Figures, Said, Tenths, Value, matches, median};

use count::Clock;

/// What goes wrong.
type Failure = &'static str;

/// Does so many operations, of which the clock measures the part that counts.
type Work = Box<dyn Fn(&Clock, u64) -> Result<(), Failure>>;

/// A workload.
struct Row {
    name: String,
    /// Operations in a round.
    ops: u64,
    /// Operations whose instructions are counted; `None`: they are not.
    counted: Option<u64>,
    work: Work,
}

impl Row {
    fn new(
        name: impl Into<String>,
        ops: u64,
        counted: Option<u64>,
        work: impl Fn(&Clock, u64) -> Result<(), Failure> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            ops,
            counted,
            work: Box::new(work),
        }
    }
}

fn rows() -> Vec<Row> {
    let mut rows = pages::rows();
    rows.extend(slab::rows());
    rows.extend(others::rows());
    rows
}

/// Warms up, measures `rounds` rounds, and counts.
fn figures<'a>(row: &'a Row, rounds: u32, counts: bool) -> Result<Figures<'a>, String> {
    let clock = Clock::watch();
    (row.work)(&clock, (row.ops / 10).max(1))?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let clock = Clock::watch();
        (row.work)(&clock, row.ops)?;
        let took = clock.took().as_nanos() as u64;
        times.push(Tenths::per_op(took, 1, row.ops));
    }
    let (&figure, min, max) = median(&mut times, |time| *time).ok_or("no rounds")?;
    let figures = Figures::new(&row.name, 1, row.ops, figure)
        .and_then(|figures| figures.with_range(min, max))
        .map_err(|error| error.to_string())?;
    let Some(ops) = row.counted.filter(|_| counts) else {
        return Ok(figures);
    };
    let instructions = count::per_op(&row.name, ops)?;
    figures
        .with_key("instructions", Value::Tenths(instructions))
        .map_err(|error| error.to_string())
}

/// Runs what `patterns` mean. Whether all went well.
fn run(patterns: &[&str], rounds: u32) -> bool {
    let say = |said: &Said<'_>| println!("{said}");
    say(&Said::Begin {
        checked: cfg!(debug_assertions),
        rounds,
        cpus: 1,
    });
    let counts = match count::can() {
        Ok(()) => true,
        Err(reason) => {
            eprintln!("instructions are not counted: {reason}");
            false
        }
    };
    let rows = rows();
    let (mut measured, mut failed) = (0, 0);
    for pattern in patterns {
        if !rows.iter().any(|row| matches(pattern, &row.name)) {
            say(&Said::NoMatch(pattern));
            failed += 1;
        }
    }
    for row in &rows {
        let name = &*row.name;
        if !patterns.iter().any(|pattern| matches(pattern, name)) {
            continue;
        }
        say(&Said::Run(name));
        match figures(row, rounds, counts) {
            Ok(figures) => {
                measured += 1;
                say(&Said::Figures(figures));
            }
            Err(reason) => {
                failed += 1;
                say(&Said::Fail {
                    name,
                    reason: &reason,
                });
            }
        }
    }
    say(&Said::End {
        measured,
        skipped: 0,
        failed,
    });
    failed == 0
}

/// The child whose instructions are counted: one workload, once to warm up and once more.
fn counted(name: &str, ops: &str) -> Result<(), Failure> {
    let ops: u64 = ops.parse().map_err(|_| "no number of operations")?;
    let rows = rows();
    let row = rows.iter().find(|row| row.name == name);
    let row = row.ok_or("no such workload")?;
    (row.work)(&Clock::watch(), ops)?;
    (row.work)(&Clock::stops(), ops)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let good = match words[..] {
        [count::CHILD, name, ops] => counted(name, ops).is_ok(),
        [] => run(&["*"], 5),
        [rounds, ref patterns @ ..] if patterns.len() < 2 => {
            let Ok(rounds) = rounds.parse() else {
                return usage();
            };
            let patterns = patterns.first().unwrap_or(&"*");
            run(&patterns.split(',').collect::<Vec<_>>(), rounds)
        }
        _ => return usage(),
    };
    ExitCode::from(u8::from(!good))
}

fn usage() -> ExitCode {
    eprintln!("usage: granary-mm-bench [ROUNDS [GLOB,GLOB...]]");
    ExitCode::from(2)
}
