//! The command for fault injection.

use alloc::string::String;
use alloc::vec::Vec;

use mm::fault::KnobError;

use crate::memory::mm;
use crate::memory::slab::slabs;
use crate::sched::table;
use crate::shell::{Args, Status, bad_argument, shell_command};

shell_command! {
    name: "fault",
    usage: "[page|slab [KNOB VALUE]]",
    summary: "show or set which allocations of pages or of objects fail on purpose",
    details: "KNOB is one of those shown, with the meanings that Linux gives them: of the points \
that min-order,\nignore-gfp-wait and cache-filter leave, and of marked threads only if task marks \
some (NAME, NUMBER,\n+NUMBER, -NUMBER, off), those beyond space pages or bytes fail with probability \
percent, each\ninterval-th, times times (-1: no end). nth makes exactly the n-th from now fail. \
verbose 1 or 2 tells\nof each. 'fault slab cache +NAME' or '-NAME' says which caches cache-filter leaves.",
    arguments: (0, 3),
    complete: |offer| {
        for word in [
            "page", "slab", "probability", "interval", "times", "space", "verbose", "nth", "seed",
            "task", "min-order", "ignore-gfp-wait", "cache-filter", "cache",
        ] {
            offer(word);
        }
    },
    run: fault,
}

/// What fails.
#[derive(Clone, Copy)]
enum Points {
    Page,
    Slab,
}

impl Points {
    fn named(name: &str) -> Option<Self> {
        match name {
            "page" => Some(Self::Page),
            "slab" => Some(Self::Slab),
            _ => None,
        }
    }

    /// The knobs as text.
    fn text(self) -> String {
        // Copied out: the knobs are not used while the console is waited for.
        match self {
            Self::Page => mm().debug().faults(|page| alloc::format!("{page}")),
            Self::Slab => {
                let mut text = slabs().faults(|slab| alloc::format!("{slab}"));
                for cache in slabs().caches().iter().filter(|cache| cache.failslab()) {
                    text.push_str(&alloc::format!("{:<16} {}\n", "cache", cache.title()));
                }
                text
            }
        }
    }

    fn set<'a>(self, knob: &'a str, value: &'a str) -> Result<(), KnobError<'a>> {
        match self {
            Self::Page => mm().debug().faults(|page| page.set(knob, value)),
            Self::Slab => slabs().faults(|slab| slab.set(knob, value)),
        }
    }
}

fn fault(arguments: Args<'_>) -> Status {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (points, words) = match words[..] {
        [] => (Points::Page, &words[..]),
        [name, ref rest @ ..] => match Points::named(name) {
            Some(points) => (points, rest),
            None => return bad_argument("fault", name, "page or slab"),
        },
    };
    match (points, words) {
        (_, []) => {
            crate::print!("{}", points.text());
            Status::SUCCESS
        }
        (_, ["task", who]) => set_task(points, who),
        (Points::Slab, ["cache", which]) => choose(which),
        (_, [knob, value]) => set(points, knob, value),
        (_, [knob, ..]) => {
            crate::println!("fault: '{}' needs a value", knob.escape_debug());
            Status::USAGE
        }
    }
}

fn set(points: Points, knob: &str, value: &str) -> Status {
    match points.set(knob, value) {
        Ok(()) => Status::SUCCESS,
        Err(error) => {
            crate::println!("fault: {error}");
            Status::USAGE
        }
    }
}

/// Marks threads: by number as the knob has it, or all of a name.
fn set_task(points: Points, who: &str) -> Status {
    let is_knob = |text: &str| {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        text == "off" || digits.starts_with(|c: char| c.is_ascii_digit())
    };
    if is_knob(who) {
        return set(points, "task", who);
    }
    let mut found = false;
    for thread in table::all().iter().filter(|thread| *thread.name == *who) {
        let sign = if found { "+" } else { "" };
        let status = set(points, "task", &alloc::format!("{sign}{}", thread.id));
        if status != Status::SUCCESS {
            return status;
        }
        found = true;
    }
    if !found {
        crate::println!("fault: no thread is called '{}'", who.escape_debug());
    }
    Status::from_bool(found)
}

/// Says which caches `cache-filter` leaves.
fn choose(which: &str) -> Status {
    let (name, on) = match (which.strip_prefix('+'), which.strip_prefix('-')) {
        (Some(name), _) => (name, true),
        (_, Some(name)) => (name, false),
        _ => return bad_argument("fault", which, "+NAME or -NAME"),
    };
    if slabs().set_failslab(name, on) {
        return Status::SUCCESS;
    }
    crate::println!("fault: no cache is called '{}'", name.escape_debug());
    Status::FAILURE
}
