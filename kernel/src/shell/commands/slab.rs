//! Commands that look at the slab allocator.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write};

use arrayvec::ArrayString;
use mm::PAGE_SIZE;
use mm::slab::{
    Caches, Flags, KmemCache,
    layout::ObjectLayout,
    text::{Destroys, OneCache, Snapshot, Usage},
    whatis::{InSlab, What},
};
use platform::wait::Mutex;

use crate::console;
use crate::machine::Kernel;
use crate::memory::heap_walk;
use crate::memory::slab::slabs;
use crate::shell::{Args, Status, bad_argument, keys::Decoder, shell_command};
use crate::symbols::Stack;
use crate::{hotplug, standstill, time};

/// What is shown of a cache.
struct Row {
    name: String,
    aliases: usize,
    layout: ObjectLayout,
    flags: Flags,
    usage: Usage,
}

impl Row {
    fn of(caches: &Caches<'_, Kernel>, cache: &KmemCache<Kernel>) -> Self {
        Self {
            name: cache.title().to_string(),
            aliases: caches.aliases(cache).count(),
            layout: *cache.layout(),
            flags: cache.flags(),
            usage: cache.usage(),
        }
    }

    /// Bytes of all slabs, as if each had the usual order.
    fn bytes(&self) -> u64 {
        self.usage.slabs * (PAGE_SIZE << self.layout.order)
    }
}

/// Rows of all caches.
fn rows() -> Vec<Row> {
    let caches = slabs().caches();
    caches.iter().map(|cache| Row::of(&caches, cache)).collect()
}

/// In whole per cent; what `part` is of nothing is `all`.
fn percent(part: u64, whole: u64, of_nothing: u64) -> u64 {
    (part * 100).checked_div(whole).unwrap_or(of_nothing)
}

/// Offers the names of all caches.
fn cache_names(offer: &mut dyn FnMut(&str)) {
    // A list first: what is offered is kept, which takes memory.
    for row in rows() {
        offer(&row.name);
    }
}

shell_command! {
    name: "slabinfo",
    usage: "[-a|CACHE]",
    summary: "show slab caches, or all of one",
    details: "Columns as those of Linux's tool of that name: objects in use, their size, the memory \
of the slabs,\nhow many are full, partial and a CPU's own (here none is); objects of a slab, its \
order, the share of\npartial slabs and of memory that objects use. Flags: * has other names (-a \
shows them), A aligned to\ncache lines, P poisoned, a reclaimable, Z red zones, F checked, U \
tracked.\nCACHE: how its objects lie, what every CPU and every node has of it, how\nmany wait for grace periods, and its partial slabs.",
    arguments: (0, 1),
    complete: cache_names,
    run: slabinfo,
}

fn slabinfo(arguments: Args<'_>) -> Status {
    match arguments.first().map(String::as_str) {
        None => table(),
        Some("-a") => aliases(),
        Some(name) => return one(name),
    }
    Status::SUCCESS
}

fn table() {
    crate::println!(
        "Name                   Objects Objsize           Space Slabs/Part/Cpu  O/S O %Fr %Ef Flg"
    );
    let mut rows = rows();
    rows.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    for row in &rows {
        let Row { layout, usage, .. } = row;
        let flags: String = [
            ('*', row.aliases > 0),
            ('A', row.flags.contains(Flags::HWCACHE_ALIGN)),
            ('P', row.flags.contains(Flags::POISON)),
            ('a', row.flags.contains(Flags::RECLAIM_ACCOUNT)),
            ('Z', row.flags.contains(Flags::RED_ZONE)),
            ('F', row.flags.contains(Flags::CONSISTENCY_CHECKS)),
            ('U', row.flags.contains(Flags::STORE_USER)),
        ]
        .into_iter()
        .filter_map(|(letter, is)| is.then_some(letter))
        .collect();
        let used = usage.active() * u64::from(layout.object_size);
        let line = alloc::format!(
            "{:<21} {:>8} {:>7} {:>15} {:>14} {:>4} {} {:>3} {:>3} {flags}",
            row.name,
            usage.active(),
            layout.object_size,
            size(row.bytes()),
            alloc::format!("{}/{}/0", usage.slabs, usage.partial),
            layout.objects,
            layout.order,
            percent(usage.partial, usage.slabs, 100),
            percent(used, row.bytes(), 100),
        );
        crate::println!("{}", line.trim_end());
    }
}

/// Bytes with a letter, and a decimal.
fn size(bytes: u64) -> String {
    let (unit, letter) = match bytes {
        0..1_000 => return alloc::format!("{bytes}"),
        1_000..1_000_000 => (1_000, 'K'),
        1_000_000..1_000_000_000 => (1_000_000, 'M'),
        _ => (1_000_000_000, 'G'),
    };
    alloc::format!("{}.{}{letter}", bytes / unit, bytes % unit * 10 / unit)
}

fn aliases() {
    let caches = slabs().caches();
    for cache in caches.iter() {
        let mut names = caches.aliases(cache).peekable();
        if names.peek().is_some() {
            crate::print!("{:<21} <-", cache.title());
            names.for_each(|alias| crate::print!(" {}", alias.name));
            crate::println!();
        }
    }
}

fn one(name: &str) -> Status {
    let online = hotplug::read_lock();
    let caches = slabs().caches();
    let Some(cache) = caches.find(name) else {
        return bad_argument("slabinfo", name, "-a or the name of a cache");
    };
    let mut room = ROOM.lock();
    let Room { now, text } = &mut *room;
    // SAFETY: nobody else runs, and interrupts are off.
    let Some(()) = standstill::with(&online, || unsafe { now.take(cache) }) else {
        crate::println!("slabinfo: a CPU does not stop");
        return Status::FAILURE;
    };
    text.clear();
    // What does not fit is left out.
    let _ = write!(text, "{}", OneCache(&caches, cache, now));
    show(text);
    Status::SUCCESS
}

/// Room for what is shown of one cache: not the heap's, and too much for a stack.
pub(super) struct Room {
    pub(super) now: Snapshot,
    pub(super) text: ArrayString<{ 12 << 10 }>,
}

platform::lock_class! {
    /// Room for what is shown of one cache.
    pub struct SlabRoom = ("slab room", 8);
}

pub(super) static ROOM: Mutex<Room, Kernel, SlabRoom> = Mutex::new(Room {
    now: Snapshot::new(),
    text: ArrayString::new_const(),
});

/// A short text in no memory of the heap's. What does not fit is left out.
pub(super) fn text(text: fmt::Arguments<'_>) -> ArrayString<2048> {
    let mut room = ArrayString::new();
    let _ = room.write_fmt(text);
    room
}

/// Prints a text about the heap. Until then the heap is as it says, so a test stops GDB here and
/// has it say the same (`kernel/gdb/heap/same.py`).
#[inline(never)]
pub(super) fn show(text: &str) {
    crate::print!("{text}");
}

shell_command! {
    name: "slabtop",
    usage: "[-o] [-s KEY]",
    summary: "show slab caches by size, again and again until a key is pressed",
    details: "-o: once. -s: sorted by a (active objects), b (objects in a slab), c (memory), l (slabs), \
n (name),\no (objects; the usual one), p (pages of a slab), s (size of objects), u (share in use).",
    arguments: (0, 3),
    complete: |offer| ["-o", "-s"].into_iter().for_each(offer),
    run: slabtop,
}

/// What rows are sorted by: greater ones first.
type Key = fn(&Row) -> u64;

/// Ways to sort, by letter; `n` is by name.
const KEYS: [(&str, Key); 9] = [
    ("a", |row| row.usage.active()),
    ("b", |row| row.layout.objects.into()),
    ("c", Row::bytes),
    ("l", |row| row.usage.slabs),
    ("n", |_| 0),
    ("o", |row| row.usage.objects),
    ("p", |row| 1 << row.layout.order),
    ("s", |row| row.layout.size.into()),
    ("u", |row| percent(row.usage.active(), row.usage.objects, 0)),
];

/// How often `slabtop` looks.
const EVERY_NS: u64 = 1_000_000_000;
/// In which time the next byte of a key comes.
const KEY_NS: u64 = 20_000_000;
/// Lines that fit on a screen, under those at its top.
const ROWS: usize = 16;

fn slabtop(arguments: Args<'_>) -> Status {
    let (mut once, mut key): (bool, Key) = (false, |row| row.usage.objects);
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "-o" => once = true,
            "-s" => {
                let Some(letter) = words.next() else {
                    crate::println!("slabtop: -s needs one of a b c l n o p s u");
                    return Status::USAGE;
                };
                match KEYS.iter().find(|(name, _)| *name == letter) {
                    Some((_, chosen)) => key = *chosen,
                    None => return bad_argument("slabtop", letter, "one of a b c l n o p s u"),
                }
            }
            other => return bad_argument("slabtop", other, "-o or -s"),
        }
    }
    loop {
        let mut rows = rows();
        rows.sort_by(|one, other| one.name.cmp(&other.name));
        rows.sort_by_key(|row| core::cmp::Reverse(key(row)));
        if !once {
            crate::print!("\x1b[2J\x1b[H");
        }
        summary(&rows);
        crate::println!("  OBJS ACTIVE  USE OBJ SIZE  SLABS OBJ/SLAB CACHE SIZE NAME");
        let shown = if once { rows.len() } else { ROWS };
        for row in rows.iter().take(shown) {
            let Row { layout, usage, .. } = row;
            crate::println!(
                "{:>6} {:>6} {:>3}% {:>8} {:>6} {:>8} {:>9}K {}",
                usage.objects,
                usage.active(),
                percent(usage.active(), usage.objects, 0),
                kib(layout.size.into()),
                usage.slabs,
                layout.objects,
                row.bytes() >> 10,
                row.name
            );
        }
        if once || key_is_pressed() {
            return Status::SUCCESS;
        }
    }
}

/// Whether a key is pressed before it is time for the next look. All bytes of it are taken.
fn key_is_pressed() -> bool {
    let mut keys = Decoder::new();
    let Some(mut byte) = console::wait_byte_until(time::now_ns() + EVERY_NS) else {
        return false;
    };
    while keys.push(byte).is_none() {
        match console::wait_byte_until(time::now_ns() + KEY_NS) {
            Some(next) => byte = next,
            None => break,
        }
    }
    true
}

/// Bytes in KiB, with two decimals.
fn kib(bytes: u64) -> String {
    alloc::format!("{}.{:02}K", bytes >> 10, ((bytes & 1023) * 100) >> 10)
}

fn summary(rows: &[Row]) {
    let sum = |part: fn(&Row) -> u64| rows.iter().map(part).sum::<u64>();
    let line = |title: &str, active: u64, total: u64, unit: fn(u64) -> String| {
        let permille = (active * 1_000).checked_div(total).unwrap_or(1_000);
        crate::println!(
            " {title:<35}: {} / {} ({}.{}%)",
            unit(active),
            unit(total),
            permille / 10,
            permille % 10
        );
    };
    let plain: fn(u64) -> String = |number| alloc::format!("{number}");
    let (active, objects) = (sum(|row| row.usage.active()), sum(|row| row.usage.objects));
    line("Active / Total Objects (% used)", active, objects, plain);
    let slabs = sum(|row| row.usage.slabs);
    line("Active / Total Slabs (% used)", slabs, slabs, plain);
    let caches = sum(|row| u64::from(row.usage.objects > 0));
    line(
        "Active / Total Caches (% used)",
        caches,
        rows.len() as u64,
        plain,
    );
    let used = sum(|row| row.usage.active() * u64::from(row.layout.size));
    line("Active / Total Size (% used)", used, sum(Row::bytes), kib);
    let sizes = || rows.iter().map(|row| u64::from(row.layout.size));
    let bytes = sum(|row| row.usage.objects * u64::from(row.layout.size));
    crate::println!(
        " {:<35}: {} / {} / {}\n",
        "Minimum / Average / Maximum Object",
        kib(sizes().min().unwrap_or(0)),
        kib(bytes.checked_div(objects).unwrap_or(0)),
        kib(sizes().max().unwrap_or(0))
    );
}

shell_command! {
    name: "destroy",
    usage: "[reset]",
    summary: "show how long it took to destroy slab caches, and who did",
    details: "How many were destroyed, how long that took (a histogram: waited for, and in the \
background), by caller\nhow long that was kept, and the last ones with what each had to wait for. A \
grace period or a call that\nserves several caches in the background is with the first that needs it.\n\
reset: forgets all of it.",
    arguments: (0, 1),
    complete: |offer| offer("reset"),
    run: destroyed,
}

fn destroyed(arguments: Args<'_>) -> Status {
    match arguments.first().map(String::as_str) {
        // Piece by piece: the console is not locked for all of it.
        None => {
            let stack =
                |callers: &[usize], f: &mut fmt::Formatter<'_>| write!(f, "{}", Stack(callers));
            let _ = write!(console::Writer, "{}", Destroys(slabs(), stack));
        }
        Some("reset") => slabs().reset_destroys(),
        Some(other) => return bad_argument("destroy", other, "reset or nothing"),
    }
    Status::SUCCESS
}

shell_command! {
    name: "kmem",
    usage: "ADDRESS|here|walk",
    summary: "show whose an address is, or check the whole heap",
    details: "ADDRESS: page, cache, slab, object, and whether that is allocated or where it lies \
free, and in caches\nthat keep it who allocated and freed it last; 'here' is the address of the word \
itself, 'here+0x40' 64\nbytes further on. walk: every page and every object is in exactly one place, \
and all counts are right;\nelse the first thing that is not.",
    arguments: (1, 1),
    complete: |offer| ["here", "walk"].into_iter().for_each(offer),
    run: kmem,
}

fn kmem(arguments: Args<'_>) -> Status {
    let what = arguments.first().map_or("", String::as_str);
    if what == "walk" {
        return walk();
    }
    whatis("kmem", what, "walk, here or an address (0x...)")
}

shell_command! {
    name: "whatis",
    usage: "ADDRESS",
    summary: "show whose an address is: page, cache, slab, object",
    arguments: (1, 1),
    run: |arguments| {
        let what = arguments.first().map_or("", String::as_str);
        whatis("whatis", what, "an address (0x...)")
    },
}

fn walk() -> Status {
    match heap_walk::walk() {
        Ok(tally) => {
            show(&text(format_args!("{tally}\nthe heap is sound\n")));
            Status::SUCCESS
        }
        Err(error) => {
            crate::println!("kmem: {error}");
            Status::FAILURE
        }
    }
}

fn whatis(command: &str, address: &str, expected: &str) -> Status {
    // The word lies in the heap.
    let (base, digits) = match address.strip_prefix("here") {
        Some("") => (address.as_ptr().addr(), "0"),
        Some(rest) => (
            address.as_ptr().addr(),
            rest.strip_prefix("+0x").unwrap_or_default(),
        ),
        None => (0, address.strip_prefix("0x").unwrap_or_default()),
    };
    // `from_str_radix` alone would take a sign.
    let digits = if digits.starts_with('+') { "" } else { digits };
    let number = usize::from_str_radix(digits, 16).ok();
    let Some(number) = number.and_then(|number| base.checked_add(number)) else {
        return bad_argument(command, address, expected);
    };
    let Some(what) = heap_walk::whatis(number) else {
        crate::println!("{command}: a CPU does not stop");
        return Status::FAILURE;
    };
    show(&text(format_args!("{number:#x}: {what}\n")));
    if let What::Slab(InSlab {
        object: Some(object),
        ..
    }) = what
        && let Some(tracks) = object.tracks
    {
        for (track, name) in tracks.iter().zip(["allocated", "freed"]) {
            if let Ok(Some(track)) = track {
                crate::print!("  {name} by:\n{}", Stack(track.event.callers()));
            }
        }
    }
    Status::SUCCESS
}
