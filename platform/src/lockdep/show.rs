//! What was learned, for people.

use core::{fmt, sync::atomic::Ordering};

use super::{Checker, Statistics, classes::ClassId, usage::USES};

impl Checker {
    /// Numbers of what was seen.
    pub fn statistics(&self) -> Statistics {
        let classes = || ClassId::all().map(|(id, _)| id);
        let under = |from| {
            classes()
                .filter(move |to| self.graph.has(from, *to))
                .count()
        };
        let (reported, suppressed) = self.once.counts();
        Statistics {
            classes: classes().count(),
            edges: classes().map(under).sum(),
            acquisitions: self
                .acquisitions
                .iter()
                .map(|count| count.0.load(Ordering::Relaxed))
                .sum(),
            deepest: self.deepest.load(Ordering::Relaxed),
            reported,
            suppressed,
        }
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} classes, {} edges, {} acquisitions, at most {} held, {} findings ({} repeated)",
            self.classes,
            self.edges,
            self.acquisitions,
            self.deepest,
            self.reported,
            self.suppressed
        )
    }
}

/// The classes that this checker has met, each with its level, its uses, and the classes
/// taken under it with the places where that was seen first.
impl fmt::Display for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, class) in ClassId::all() {
            if !USES.into_iter().any(|what| self.usage.has(id, what)) {
                continue;
            }
            write!(f, "\"{}\" level {}", class.name, class.level)?;
            if class.nests {
                write!(f, " nests")?;
            }
            let mut separator = ": ";
            for what in USES {
                if self.usage.has(id, what) {
                    write!(f, "{separator}{}", what.text())?;
                    separator = ", ";
                }
            }
            writeln!(f)?;
            for (under, inner) in ClassId::all() {
                if !self.graph.has(id, under) {
                    continue;
                }
                write!(f, "  -> \"{}\"", inner.name)?;
                if let Some(site) = self.sites.get(id, under) {
                    write!(f, " at {} after {}", site.wanted_at, site.held_at)?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}
