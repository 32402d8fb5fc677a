//! The kernel log and its ring.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use kernel_base::log_ring::{LogRing, MAX_TEXT, Meta};
use log::Level;
use platform::CpuId;

use crate::kunit::{
    Ctx, OnlineCpus, Outcome, Stop, kassert, kassert_eq, kassert_ok, kskip, kunit_suite,
};
use crate::{klog, smp};

kunit_suite! {
    name: "log",
    setup: needs_info,
    cases: [
        each_cpu_is_named => { over: OnlineCpus },
        order,
        level_is_kept,
        long_line,
        all_cpus_at_once,
        oldest_go_first,
        any_size_fits,
    ],
}

/// The test lines are information, which `loglevel=` may leave out.
fn needs_info(_: &mut Ctx) -> Outcome {
    if log::max_level() < log::LevelFilter::Info {
        kskip!("loglevel= leaves the test lines out");
    }
    Ok(())
}

/// What `dmesg` shows.
fn dmesg() -> String {
    let mut text = String::new();
    klog::dump(&mut text);
    text
}

/// A mark that no earlier line has, even when cases are repeated.
fn mark(ctx: &mut Ctx) -> String {
    format!("{:016x}{:x}", ctx.rng().next_u64(), crate::time::now_ns())
}

/// The one line with `mark`.
fn line_with(text: &str, mark: &str) -> Result<String, Stop> {
    let mut lines = text.lines().filter(|line| line.contains(mark));
    let line = kassert_ok!(lines.next(), "no line has {mark}");
    kassert_eq!(lines.next(), None, "a second line has {mark}");
    Ok(String::from(line))
}

/// A line begins with time, CPU and level.
fn each_cpu_is_named(ctx: &mut Ctx, cpu: CpuId) -> Outcome {
    let mark = mark(ctx);
    smp::call_on(cpu, &|| log::info!("test line {mark}"));
    let line = line_with(&dmesg(), &mark)?;
    kassert!(line.starts_with('['), "{line}");
    kassert!(
        line.ends_with(&format!("] cpu{cpu} info: test line {mark}")),
        "{line}"
    );
    Ok(())
}

fn order(ctx: &mut Ctx) -> Outcome {
    let mark = mark(ctx);
    for number in 0..5 {
        log::info!("test line {number} of {mark}");
    }
    let text = dmesg();
    let numbers: String = text
        .lines()
        .filter(|line| line.ends_with(&mark))
        .filter_map(|line| line.split("test line ").nth(1)?.chars().next())
        .collect();
    kassert_eq!(numbers, "01234");
    Ok(())
}

/// Lines above the level of this boot are not kept, others are.
fn level_is_kept(ctx: &mut Ctx) -> Outcome {
    let mark = mark(ctx);
    log::warn!("test line, no reason to worry, {mark}");
    log::trace!("test line {mark} of no importance");
    let text = dmesg();
    let lines = text.lines().filter(|line| line.contains(&mark)).count();
    kassert_eq!(
        lines,
        1 + usize::from(log::max_level() >= log::LevelFilter::Trace)
    );
    kassert!(text.contains(&format!("warn: test line, no reason to worry, {mark}")));
    Ok(())
}

/// Cut, not lost.
fn long_line(ctx: &mut Ctx) -> Outcome {
    let mark = mark(ctx);
    log::info!("{mark} {:.<1$}", "", 2 * MAX_TEXT);
    let line = line_with(&dmesg(), &mark)?;
    let text = kassert_ok!(line.split(" info: ").nth(1));
    kassert!(
        text.len() <= MAX_TEXT && text.len() > MAX_TEXT / 2,
        "{} bytes",
        text.len()
    );
    Ok(())
}

fn all_cpus_at_once(ctx: &mut Ctx) -> Outcome {
    let mark = mark(ctx);
    smp::call_all(&|| log::info!("test line of all {mark}"));
    let text = dmesg();
    for cpu in smp::online() {
        let start = format!("cpu{cpu} info: test line of all {mark}");
        kassert_eq!(
            text.lines().filter(|line| line.ends_with(&start)).count(),
            1,
            "{cpu:?}"
        );
    }
    Ok(())
}

const META: Meta = Meta {
    time_ns: 0,
    cpu: CpuId::BOOT,
    level: Level::Info,
};

/// What has to make room is counted. (A ring of our own: the kernel's holds what others
/// may want to see.)
fn oldest_go_first(_: &mut Ctx) -> Outcome {
    let mut ring = Box::new(LogRing::<4096>::new());
    for number in 0..1_000 {
        ring.push_fmt(META, format_args!("record {number}"));
    }
    kassert_eq!(ring.len() as u64 + ring.dropped(), 1_000);
    kassert!(ring.dropped() > 0 && !ring.is_empty());
    for (record, number) in ring.iter().zip(ring.dropped()..) {
        kassert_eq!(format!("{}", record.text), format!("record {number}"));
    }
    kassert_eq!(ring.iter().count(), ring.len());
    Ok(())
}

fn any_size_fits(ctx: &mut Ctx) -> Outcome {
    let mut ring = Box::new(LogRing::<2048>::new());
    for _ in 0..500 {
        let length = ctx.rng().below(MAX_TEXT as u64 * 3 / 2) as usize;
        let text = "x".repeat(length);
        ring.push(META, &text);
        let last = kassert_ok!(ring.iter().last());
        kassert_eq!(last.text.len(), length.min(MAX_TEXT));
    }
    Ok(())
}
