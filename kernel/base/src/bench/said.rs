//! Any line of a run.

use core::fmt;

use super::number::whole_number;
use super::{Figures, Malformed, is_name};

const RELEASE: &str = "release build, no debug checks";
const CHECKED: &str =
    "CHECKED BUILD with debug checks: THESE FIGURES COMPARE WITH NOTHING (build with --release)";

/// A line of a benchmark run; prints as it is, without newline.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, on the stack; a box would need the heap"
)]
pub enum Said<'a> {
    /// The first line.
    Begin {
        /// Debug assertions and overflow checks are compiled in.
        checked: bool,
        /// Rounds of each workload.
        rounds: u32,
        /// CPUs that are online.
        cpus: u32,
    },
    /// This workload starts: what it is that hangs or crashes, if nothing follows.
    Run(&'a str),
    /// What was measured.
    Figures(Figures<'a>),
    /// A workload cannot run on this machine.
    Skip {
        /// The workload.
        name: &'a str,
        /// Why, in one line.
        reason: &'a str,
    },
    /// A workload went wrong.
    Fail {
        /// The workload.
        name: &'a str,
        /// Why, in one line.
        reason: &'a str,
    },
    /// A pattern means no workload.
    NoMatch(&'a str),
    /// The last line: how many workloads ended how.
    End {
        /// Have figures.
        measured: u32,
        /// Cannot run here.
        skipped: u32,
        /// Went wrong, or patterns that mean nothing.
        failed: u32,
    },
}

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin {
                checked,
                rounds,
                cpus,
            } => {
                let build = if *checked { CHECKED } else { RELEASE };
                write!(f, "# bench: {build}; rounds={rounds} cpus={cpus}")
            }
            Self::Run(name) => write!(f, "# run: {name}"),
            Self::Figures(figures) => figures.fmt(f),
            Self::Skip { name, reason } => write!(f, "# SKIP {name}: {}", one_line(reason)),
            Self::Fail { name, reason } => write!(f, "# FAIL {name}: {}", one_line(reason)),
            Self::NoMatch(pattern) => {
                write!(f, "# bench: no workload matches {}", one_line(pattern))
            }
            Self::End {
                measured,
                skipped,
                failed,
            } => write!(
                f,
                "# bench: {measured} measured, {skipped} skipped, {failed} failed"
            ),
        }
    }
}

impl<'a> Said<'a> {
    /// What `line` (without newline) says; `None` if it is no line of a run.
    ///
    /// # Errors
    ///
    /// If it begins like one, but is none.
    pub fn parse(line: &'a str) -> Result<Option<Self>, Malformed> {
        if Figures::is_meant_by(line) {
            return Figures::parse(line).map(|figures| Some(Self::Figures(figures)));
        }
        let said = if let Some(rest) = line.strip_prefix("# bench: ") {
            remark(rest)
        } else if let Some(name) = line.strip_prefix("# run: ") {
            is_name(name).then_some(Self::Run(name))
        } else if let Some(rest) = line.strip_prefix("# SKIP ") {
            explained(rest).map(|(name, reason)| Self::Skip { name, reason })
        } else if let Some(rest) = line.strip_prefix("# FAIL ") {
            explained(rest).map(|(name, reason)| Self::Fail { name, reason })
        } else {
            return Ok(None);
        };
        said.map(Some).ok_or(Malformed::Remark)
    }
}

/// What stands behind `# bench: `.
fn remark(text: &str) -> Option<Said<'_>> {
    if let Some(pattern) = text.strip_prefix("no workload matches ") {
        return Some(Said::NoMatch(pattern));
    }
    if let Some((build, numbers)) = text.split_once("; ") {
        let checked = match build {
            RELEASE => false,
            CHECKED => true,
            _ => return None,
        };
        let (rounds, cpus) = numbers.split_once(' ')?;
        return Some(Said::Begin {
            checked,
            rounds: number(rounds.strip_prefix("rounds=")?)?,
            cpus: number(cpus.strip_prefix("cpus=")?)?,
        });
    }
    let mut counts = text.split(", ");
    let mut count = |what| number(counts.next()?.strip_suffix(what)?);
    let said = Said::End {
        measured: count(" measured")?,
        skipped: count(" skipped")?,
        failed: count(" failed")?,
    };
    counts.next().is_none().then_some(said)
}

/// `name: reason`.
fn explained(text: &str) -> Option<(&str, &str)> {
    text.split_once(": ").filter(|(name, _)| is_name(name))
}

fn number(text: &str) -> Option<u32> {
    u32::try_from(whole_number(text)?).ok()
}

/// A newline in a reason would look like a line of its own.
fn one_line(text: &str) -> &str {
    text.lines().next().unwrap_or("")
}
