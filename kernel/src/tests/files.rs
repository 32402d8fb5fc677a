//! The files that the shell shows.

use alloc::string::String;
use alloc::vec::Vec;

use crate::files::{self, FILES, Found};
use crate::kunit::{Ctx, Outcome, Stop, kassert, kassert_eq, kassert_ok, kfail, kunit_suite};
use crate::memory;

kunit_suite! {
    name: "files",
    cases: [
        names_are_in_order,
        folders_are_listed,
        every_file_has_text,
        buddyinfo_is_what_is_free,
        meminfo_is_what_mem_says,
        zoneinfo_has_every_zone,
    ],
}

fn text_of(path: &str) -> Result<String, Stop> {
    let Some(Found::File(file)) = files::find(path) else {
        kfail!("{path} is no file");
    };
    let mut text = String::new();
    kassert_eq!((file.write)(&mut text), Ok(()), "{path}");
    Ok(text)
}

fn names_are_in_order(_: &mut Ctx) -> Outcome {
    for pair in FILES.windows(2) {
        kassert!(pair[0].path < pair[1].path, "{}", pair[1].path);
    }
    kassert!(FILES.iter().all(|file| file.path.starts_with('/')));
    Ok(())
}

fn folders_are_listed(_: &mut Ctx) -> Outcome {
    let list = |path| files::entries(path).collect::<Vec<_>>();
    kassert!(list("/").contains(&"proc/"));
    for path in ["/proc", "proc", "/proc/"] {
        kassert!(list(path).contains(&"buddyinfo"), "{path}");
        kassert!(matches!(files::find(path), Some(Found::Folder)), "{path}");
    }
    for path in ["/proc/buddyinfo", "/pro", "/proc/buddy"] {
        kassert!(list(path).is_empty(), "{path}");
    }
    kassert!(files::find("/pro").is_none() && files::find("/proc/nothing").is_none());
    Ok(())
}

fn every_file_has_text(_: &mut Ctx) -> Outcome {
    for file in FILES {
        let text = text_of(file.path)?;
        kassert!(text.ends_with('\n') && text.len() > 1, "{}", file.path);
    }
    Ok(())
}

/// The number behind a name and a colon.
fn value(text: &str, name: &str) -> Result<u64, Stop> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let line = kassert_ok!(line, "no {name} in:\n{text}");
    Ok(kassert_ok!(
        line.trim().trim_end_matches(" kB").parse(),
        "{name}:{line}"
    ))
}

fn buddyinfo_is_what_is_free(_: &mut Ctx) -> Outcome {
    /// Other threads may allocate meanwhile.
    const TRIES: usize = 5;
    let mut tries = 0;
    loop {
        let text = text_of("/proc/buddyinfo")?;
        let mut pages = 0;
        for line in text.lines() {
            let numbers = line.split_whitespace().skip(4);
            for (order, count) in numbers.enumerate() {
                let count: u64 = kassert_ok!(count.parse(), "{line}");
                pages += count << order;
            }
        }
        let free = memory::mm().counts().free;
        tries += 1;
        if pages == free || tries == TRIES {
            kassert_eq!(pages, free, "{text}");
            kassert_eq!(text.lines().count(), memory::mm().zones().count());
            return Ok(());
        }
    }
}

fn meminfo_is_what_mem_says(_: &mut Ctx) -> Outcome {
    let text = text_of("/proc/meminfo")?;
    let shares = memory::Shares::now();
    let managed = memory::mm().counts().managed;
    kassert_eq!(value(&text, "MemTotal")?, managed * 4);
    kassert!(value(&text, "MemFree")? <= value(&text, "MemTotal")?);
    kassert!(value(&text, "MemAvailable")? > 0);
    // Stacks of threads that come and go.
    let stacks = value(&text, "KernelStack")?;
    kassert!(stacks > 0 && stacks < 64 << 10, "{text}");
    kassert_eq!(value(&text, "HardwareCorrupted")?, shares.bad >> 10);
    Ok(())
}

fn zoneinfo_has_every_zone(_: &mut Ctx) -> Outcome {
    let text = text_of("/proc/zoneinfo")?;
    for zone in memory::mm().zones() {
        let title = alloc::format!("Node {}, zone {:>8}\n", zone.node(), zone.kind());
        kassert!(text.contains(&title), "no {title} in:\n{text}");
        let managed = alloc::format!("\n        managed  {}\n", zone.managed());
        kassert!(text.contains(&managed), "no {managed} in:\n{text}");
    }
    kassert_eq!(
        text.matches("    cpu: ").count(),
        crate::smp::online().count()
    );
    Ok(())
}
