//! A finding as text.

use core::{fmt, panic::Location};

use super::{
    Checker, Now,
    classes::ClassId,
    entry::{HeldLock, context_name},
    finding::Finding,
    held::Held,
    usage::Irq,
};

/// A finding and all that belongs to it: shown, it gives what is held, what is wanted, and
/// what that contradicts, with places.
///
/// Made while the lock is not yet taken or released. Whoever shows it may take locks, and
/// the checker looks at them as ever; but a lock that is held already (see
/// [`Held::holds`]) cannot be taken for it.
#[derive(Debug)]
pub struct Report<'a> {
    /// What was found.
    pub finding: Finding,
    /// The lock being taken, if it is about that.
    pub wanted: Option<HeldLock>,
    /// What runs.
    pub now: Now,
    /// What is held.
    pub held: &'a Held,
    /// What is taken to show the report, later than this, is no part of it.
    pub(super) serial: u32,
    pub(super) checker: &'a Checker,
}

struct Name(ClassId);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.class() {
            Some(class) => write!(f, "\"{}\"", class.name),
            None => write!(f, "class {}", self.0.number()),
        }
    }
}

/// A place that may be unknown.
struct At(Option<&'static Location<'static>>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(place) => write!(f, "at {place}"),
            None => f.write_str("at a place not noted"),
        }
    }
}

impl Report<'_> {
    fn headline(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Findings that need a wanted lock have one; the name only guards the text.
        let wanted = self.wanted.map_or("?", |lock| lock.class.name);
        let context = context_name(self.now.context);
        match &self.finding {
            Finding::Level { held } => write!(
                f,
                "lock level: \"{wanted}\" (level {}) is taken while \"{}\" (level {}) is held",
                self.wanted.map_or(0, |lock| lock.class.level),
                held.class.name,
                held.class.level
            ),
            Finding::Cycle { held, path } if path.len() <= 2 => write!(
                f,
                "lock order: AB-BA of \"{}\" and \"{wanted}\"",
                held.class.name
            ),
            Finding::Cycle { path, .. } => {
                write!(f, "lock order: cycle of {} classes:", path.len())?;
                for class in path.classes() {
                    write!(f, " {} ->", Name(class))?;
                }
                write!(f, " \"{wanted}\"")
            }
            Finding::Recursion { .. } => {
                write!(f, "recursion: \"{wanted}\" is waited for by who holds it")
            }
            Finding::SameClass { held } => write!(
                f,
                "two locks of class \"{wanted}\" in no certain order (nesting {} after {})",
                self.wanted.map_or(0, |lock| lock.nesting),
                held.nesting
            ),
            Finding::IrqUsage { class, irq, .. } => write!(
                f,
                "irq-unsafe: {} is {} and {}",
                Name(*class),
                irq.inside().text(),
                irq.enabled().text()
            ),
            Finding::IrqDependency { irq, path, .. } => {
                let mut classes = path.classes();
                if let (Some(safe), Some(other)) = (classes.next(), classes.next_back()) {
                    write!(
                        f,
                        "irq order: {} is {}, and under it {} is taken, which is {}",
                        Name(safe),
                        irq.inside().text(),
                        Name(other),
                        irq.enabled().text()
                    )?;
                }
                Ok(())
            }
            Finding::SleepUnderLock { held, .. } => {
                write!(f, "sleeping while \"{}\" is held", held.class.name)
            }
            Finding::SleepInAtomic { .. } => write!(f, "sleeping in atomic: {}", self.atomic()),
            Finding::SleepingLockInInterrupt => {
                write!(f, "sleeping lock \"{wanted}\" is waited for in {context}")
            }
            Finding::WaitInNmi => write!(f, "\"{wanted}\" is waited for in nmi"),
            Finding::ReleasedElsewhere { held } => write!(
                f,
                "\"{}\", taken on cpu{} in {}, is released on cpu{} in {context}",
                held.class.name,
                held.cpu,
                context_name(held.context),
                self.now.cpu
            ),
            Finding::NotHeld { class, lock, .. } => write!(
                f,
                "\"{}\" {lock:#x} is released by who does not hold it",
                class.name
            ),
            Finding::StillHeld { held } => {
                write!(f, "\"{}\" is still held at the end", held.class.name)
            }
            Finding::TooManyHeld => {
                write!(f, "lock checker: more locks are held than it follows")
            }
            Finding::TooManyClasses => {
                write!(f, "lock checker: no number left for \"{wanted}\"")
            }
        }
    }

    /// Why what runs may not sleep.
    fn atomic(&self) -> &'static str {
        match self.now.context {
            crate::Context::Task if !self.now.irqs_on => "interrupts are off",
            crate::Context::Task => "preemption is off",
            context => context_name(context),
        }
    }

    /// Edges, each with where it was seen first.
    fn edges(
        &self,
        f: &mut fmt::Formatter<'_>,
        edges: impl Iterator<Item = (ClassId, ClassId)>,
    ) -> fmt::Result {
        for (from, to) in edges {
            write!(f, "  {} -> {}: ", Name(from), Name(to))?;
            match self.checker.sites.get(from, to) {
                Some(site) => writeln!(
                    f,
                    "{} taken at {}, then {} at {} (cpu{}, {})",
                    Name(from),
                    site.held_at,
                    Name(to),
                    site.wanted_at,
                    site.cpu,
                    context_name(site.context)
                )?,
                None => writeln!(f, "at a place not noted")?,
            }
        }
        Ok(())
    }

    /// How a class was used, in and outside of interrupts.
    fn uses(
        &self,
        f: &mut fmt::Formatter<'_>,
        class: ClassId,
        irq: Irq,
        both: bool,
    ) -> fmt::Result {
        let place = |what| At(self.checker.usage.place(class, what));
        if both {
            let (text, at) = (irq.inside().text(), place(irq.inside()));
            writeln!(f, "  {} {text} {at}", Name(class))?;
        }
        let (text, at) = (irq.enabled().text(), place(irq.enabled()));
        writeln!(f, "  {} {text} {at}", Name(class))
    }

    /// What the finding contradicts.
    fn earlier(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.finding {
            Finding::Level { .. } => writeln!(f, " but levels must grow"),
            Finding::Cycle { path, .. } => {
                writeln!(f, " but earlier:")?;
                self.edges(f, path.edges())
            }
            Finding::Recursion { held } | Finding::SameClass { held } => {
                writeln!(f, " but already:\n  {held}")
            }
            Finding::IrqUsage {
                class,
                irq,
                new,
                at,
            } => {
                writeln!(f, " {} {} now at {at}; first:", Name(*class), new.text())?;
                self.uses(f, *class, *irq, true)
            }
            Finding::IrqDependency { irq, path, by_use } => {
                let mut classes = path.classes();
                if let (Some(safe), Some(other)) = (classes.next(), classes.next_back()) {
                    let (text, at) = (irq.inside().text(), irq.inside());
                    let at = At(self.checker.usage.place(safe, at));
                    writeln!(f, " in interrupts:\n  {} {text} {at}", Name(safe))?;
                    writeln!(f, " outside:")?;
                    self.uses(f, other, *irq, false)?;
                }
                if let Some((class, what)) = by_use {
                    writeln!(f, " new is that {} is {}", Name(*class), what.text())?;
                }
                writeln!(f, " the order between:")?;
                self.edges(f, path.edges())
            }
            Finding::ReleasedElsewhere { held } => writeln!(f, " taken as:\n  {held}"),
            Finding::NotHeld { id, .. } => {
                let taken = super::Use::Taken;
                let at = At(id.and_then(|id| self.checker.usage.place(id, taken)));
                writeln!(f, " locks of the class were first taken {at}")
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.headline(f)?;
        writeln!(
            f,
            "\n on cpu{}, in {}, irqs {}",
            self.now.cpu,
            context_name(self.now.context),
            if self.now.irqs_on { "on" } else { "off" }
        )?;
        if let Finding::SleepUnderLock { at, .. } | Finding::SleepInAtomic { at } = &self.finding {
            writeln!(f, " sleeps at {at}")?;
        }
        if let Some(wanted) = &self.wanted {
            writeln!(f, " wants:\n  {wanted}")?;
        }
        let mut locks = self.held.locks_as_of(self.serial).peekable();
        match locks.peek() {
            None => writeln!(f, " holds nothing")?,
            Some(_) => writeln!(f, " holds:")?,
        }
        for lock in locks {
            writeln!(f, "  {lock}")?;
        }
        match self.held.beyond() {
            0 => {}
            beyond => writeln!(f, "  and {beyond} more")?,
        }
        self.earlier(f)
    }
}
