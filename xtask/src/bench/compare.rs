//! What got worse since the baseline.

use std::fmt;

use kernel_base::bench::Tenths;

use super::{BenchMachine, Filter, Ran, Report, Row};

/// When a figure counts as worse than its baseline (or better, the other way round).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Instructions were counted: more than 2 per operation, and more than 1 %.
    Exact,
    /// Wall time on a host that does other things as well: more than 50 % and 20 ns, and no
    /// round as good as the other's worst.
    Wall,
}

impl Rule {
    /// The rule for a machine.
    pub fn of(machine: BenchMachine) -> Self {
        if machine.is_exact() {
            Self::Exact
        } else {
            Self::Wall
        }
    }

    /// Whether `now` is worse than `base`.
    fn is_worse(self, base: &Row, now: &Row) -> bool {
        let (slower, than) = (now.ns_per_op.0.get(), base.ns_per_op.0.get());
        let beyond = |least: u64, percent: u64| {
            slower.checked_sub(than).is_some_and(|by| {
                by > least && u128::from(by) * 100 > u128::from(than) * u128::from(percent)
            })
        };
        match self {
            Self::Exact => beyond(20, 1),
            Self::Wall => beyond(200, 50) && now.range().0 > base.range().1,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "by more than 2 instructions and 1 %",
            Self::Wall => {
                "by more than 50 % and 20 ns, with no round as good as the baseline's worst"
            }
        })
    }
}

/// What is to be said of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The workload.
    pub name: String,
    /// How it compares.
    pub verdict: Verdict,
}

/// How a workload compares with its baseline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// About the same.
    Same {
        /// Its figure in the baseline.
        base: Tenths,
        /// Its figure now.
        now: Tenths,
    },
    /// Worse.
    Worse {
        /// Its figure in the baseline.
        base: Tenths,
        /// Its figure now.
        now: Tenths,
    },
    /// Better.
    Better {
        /// Its figure in the baseline.
        base: Tenths,
        /// Its figure now.
        now: Tenths,
    },
    /// It was measured then and cannot run now.
    NoLongerRuns(String),
    /// The workload itself has changed.
    Changed(String),
    /// Only the baseline has it.
    OnlyThere,
    /// The baseline lacks it.
    OnlyHere,
}

impl Finding {
    /// Whether it makes the run fail.
    pub fn is_failure(&self) -> bool {
        matches!(
            self.verdict,
            Verdict::Worse { .. } | Verdict::NoLongerRuns(_)
        )
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        match &self.verdict {
            Verdict::Same { base, now } => write!(f, "same, {}", Step(*base, *now)),
            Verdict::Worse { base, now } => write!(f, "WORSE, {}", Step(*base, *now)),
            Verdict::Better { base, now } => write!(f, "better, {}", Step(*base, *now)),
            Verdict::NoLongerRuns(reason) => {
                write!(f, "CANNOT RUN any more, the baseline has it: {reason}")
            }
            Verdict::Changed(how) => write!(f, "not compared, the workload has changed: {how}"),
            Verdict::OnlyThere => f.write_str("only in the baseline, this kernel has no such one"),
            Verdict::OnlyHere => f.write_str("new, the baseline lacks it"),
        }
    }
}

/// From one figure to another.
struct Step(Tenths, Tenths);

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(base, now) = self;
        let sign = if now < base { '-' } else { '+' };
        let by = now.get().abs_diff(base.get());
        write!(f, "{base} -> {now} ns per op")?;
        if by > 0 {
            write!(f, " ({sign}{}", Tenths::new(by))?;
            if base.get() > 0 {
                let percent = by as f64 * 100.0 / base.get() as f64;
                write!(f, ", {sign}{percent:.1} %")?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

/// Compares `now` with `base`, as far as `filter` reaches: first what was measured, in its
/// order, then what only the baseline has. What went wrong now is not compared, and nothing
/// is missed in a run that did not come to its end.
pub fn compare(base: &Report, now: &Ran, filter: &Filter, rule: Rule) -> Vec<Finding> {
    let ran = now.rows.iter().map(|row| Finding {
        name: row.name.clone(),
        verdict: base
            .row(&row.name)
            .map_or(Verdict::OnlyHere, |base| row_verdict(base, row, rule)),
    });
    let is_missing = |name: &str| {
        now.complete
            && filter.means(name)
            && !now.rows.iter().any(|row| row.name == name)
            && !now.failed.iter().any(|failed| failed.name == name)
    };
    let missing = base.rows.iter().filter(|row| is_missing(&row.name));
    let missing = missing.map(|row| Finding {
        name: row.name.clone(),
        verdict: missing_verdict(now, &row.name),
    });
    ran.chain(missing).collect()
}

fn row_verdict(base: &Row, now: &Row, rule: Rule) -> Verdict {
    if (base.cpus, base.ops) != (now.cpus, now.ops) {
        return Verdict::Changed(format!(
            "{} operations on {} CPUs then, {} on {} now",
            base.ops, base.cpus, now.ops, now.cpus
        ));
    }
    let (base_ns, now_ns) = (base.ns_per_op.0, now.ns_per_op.0);
    if rule.is_worse(base, now) {
        Verdict::Worse {
            base: base_ns,
            now: now_ns,
        }
    } else if rule.is_worse(now, base) {
        Verdict::Better {
            base: base_ns,
            now: now_ns,
        }
    } else {
        Verdict::Same {
            base: base_ns,
            now: now_ns,
        }
    }
}

fn missing_verdict(now: &Ran, name: &str) -> Verdict {
    match now.skipped.iter().find(|skipped| skipped.name == name) {
        Some(skipped) => Verdict::NoLongerRuns(skipped.reason.clone()),
        None => Verdict::OnlyThere,
    }
}

#[cfg(test)]
mod tests;
