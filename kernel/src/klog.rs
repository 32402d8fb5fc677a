//! The kernel log: levels, time and CPU on every line, on the console and in a ring for
//! `dmesg`. Written through the macros of the crate `log`.

use core::fmt::Write;

use arrayvec::ArrayString;
use kernel_base::log_ring::{LogRing, MAX_TEXT, Meta};
use log::{LevelFilter, Log, Metadata, Record};

use crate::{
    console, smp,
    sync::{self, IrqLock},
    time,
};

/// Bytes of the ring.
const RING: usize = 64 * 1024;

static RECORDS: IrqLock<LogRing<RING>, sync::Log> = IrqLock::new(LogRing::new());
static LOGGER: Logger = Logger;

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let meta = Meta {
            time_ns: time::now_ns(),
            cpu: smp::this_cpu(),
            level: record.level(),
        };
        let mut text = ArrayString::<MAX_TEXT>::new();
        // What does not fit is cut: a log line of a thousand bytes has said enough.
        let _ = text.write_fmt(*record.args());
        RECORDS.lock().push(meta, &text);
        console::write(format_args!("{meta}{text}\n"));
    }

    fn flush(&self) {}
}

/// Starts logging. Lines above `level` are dropped.
pub fn init(level: LevelFilter) {
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(level);
    }
}

/// Writes the ring, oldest line first.
pub fn dump(out: &mut dyn Write) {
    // Line by line, so that the console never waits for the ring nor the reverse.
    let (mut shown, mut line) = (0, ArrayString::<{ MAX_TEXT + 64 }>::new());
    loop {
        line.clear();
        let dropped = {
            let records = RECORDS.lock();
            let Some(record) = records.iter().nth(shown) else {
                return;
            };
            let _ = write!(line, "{record}");
            records.dropped()
        };
        if shown == 0 && dropped > 0 {
            let _ = writeln!(out, "({dropped} older lines were overwritten)");
        }
        let _ = writeln!(out, "{line}");
        shown += 1;
    }
}
