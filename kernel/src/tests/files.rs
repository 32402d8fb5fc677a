//! The files that the shell shows.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::files::{self, Error, FILES, Kind};
use crate::kunit::{Ctx, Outcome, Stop, kassert, kassert_eq, kassert_ok, kunit_suite};
use crate::memory;

kunit_suite! {
    name: "files",
    cases: [
        names_are_in_order,
        folders_are_listed,
        paths_are_completed,
        every_file_has_text,
        buddyinfo_is_what_is_free,
        meminfo_is_what_mem_says,
        zoneinfo_has_every_zone,
    ],
}

/// A file's text.
pub fn text_of(path: &str) -> Result<String, Stop> {
    let mut text = String::new();
    kassert_eq!(files::show(path, &mut text), Ok(()), "{path}");
    Ok(text)
}

/// The names in a folder, folders with a `/`.
pub fn names_in(path: &str) -> Result<Vec<String>, Stop> {
    let mut names = Vec::new();
    let listed = files::list(path, &mut |entry| {
        let end = if entry.kind == Kind::Folder { "/" } else { "" };
        names.push(format!("{}{end}", entry.name));
    });
    kassert_eq!(listed, Ok(()), "{path}");
    Ok(names)
}

fn names_are_in_order(_: &mut Ctx) -> Outcome {
    for pair in FILES.windows(2) {
        kassert!(pair[0].path < pair[1].path, "{}", pair[1].path);
    }
    kassert!(FILES.iter().all(|file| file.path.starts_with('/')));
    for folder in ["/", "/proc", "/sys", "/sys/kernel", "/sys/kernel/slab"] {
        let names = names_in(folder)?;
        kassert!(names.len() > 1 || folder == "/sys", "{folder}");
        kassert!(names.is_sorted(), "{folder}: {names:?}");
    }
    Ok(())
}

fn folders_are_listed(_: &mut Ctx) -> Outcome {
    let has = |names: Vec<String>, name: &str| names.iter().any(|other| other == name);
    kassert!(has(names_in("/")?, "proc/"));
    kassert!(has(names_in("/sys/kernel")?, "slab/"));
    for path in ["/proc", "proc", "/proc/"] {
        kassert!(has(names_in(path)?, "buddyinfo"), "{path}");
        let shown = files::show(path, &mut String::new());
        kassert_eq!(shown, Err(Error::IsFolder), "{path}");
    }
    let list = |path| files::list(path, &mut |_| ());
    kassert_eq!(list("/proc/buddyinfo"), Err(Error::NotFolder));
    for path in ["/pro", "/proc/buddy", "/proc/nothing", "/sys/kernel/slabs"] {
        kassert_eq!(list(path), Err(Error::Missing), "{path}");
        let shown = files::show(path, &mut String::new());
        kassert_eq!(shown, Err(Error::Missing), "{path}");
        kassert_eq!(files::store(path, "1"), Err(Error::Missing), "{path}");
    }
    kassert_eq!(files::store("/proc/meminfo", "1"), Err(Error::ReadOnly));
    kassert_eq!(files::store("/proc", "1"), Err(Error::IsFolder));
    Ok(())
}

fn paths_are_completed(_: &mut Ctx) -> Outcome {
    let offered = |word: &str| {
        let mut paths = Vec::new();
        files::complete(word, &mut |path| paths.push(String::from(path)));
        paths
    };
    kassert_eq!(offered(""), ["/proc/", "/sys/"]);
    kassert!(offered("/proc/b").contains(&String::from("/proc/buddyinfo")));
    kassert!(offered("/sys/").contains(&String::from("/sys/kernel/")));
    kassert!(offered("/nowhere/").is_empty());
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
