//! What the lines of a guest say, and whether it is a whole run.

use kernel_base::bench::Said;

use super::{Row, Skipped};
use crate::test::subject::{End, FAILURE, SUCCESS};

/// Where a line of the guest belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Results: standard output.
    Result,
    /// Progress: standard error.
    Progress,
    /// Neither: only the log.
    Nowhere,
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Workloads with figures, in their order.
    pub rows: Vec<Row>,
    /// Workloads that cannot run on this machine.
    pub skipped: Vec<Skipped>,
    /// Workloads that went wrong.
    pub failed: Vec<Skipped>,
    /// Whether the run came to its end, so that what has no figure has none for a reason.
    pub complete: bool,
    /// All that is wrong, one line each.
    pub problems: Vec<String>,
}

/// Takes in the lines of one guest.
#[derive(Debug)]
pub struct Collector {
    rounds: u32,
    cpus: u32,
    begun: bool,
    running: Option<String>,
    ended: Option<[u32; 3]>,
    unmatched: u32,
    ran: Ran,
}

impl Collector {
    /// For a guest with `cpus` CPUs that was asked for so many rounds.
    pub fn new(rounds: u32, cpus: u32) -> Self {
        Self {
            rounds,
            cpus,
            begun: false,
            running: None,
            ended: None,
            unmatched: 0,
            ran: Ran::default(),
        }
    }

    /// Takes in a line.
    pub fn line(&mut self, line: &str) -> Show {
        match Said::parse(line) {
            Ok(Some(said)) => self.said(&said),
            Ok(None) => Show::Nowhere,
            Err(error) => {
                self.problem(format!("a line of the run is damaged ({error}): {line}"));
                Show::Nowhere
            }
        }
    }

    fn said(&mut self, said: &Said<'_>) -> Show {
        if self.begun == matches!(said, Said::Begin { .. }) {
            self.problem(format!("a line is not in its place: {said}"));
        }
        let skipped = |name: &str, reason: &str| Skipped {
            name: name.to_owned(),
            reason: reason.to_owned(),
        };
        match said {
            Said::Begin {
                checked,
                rounds,
                cpus,
            } => {
                self.begun = true;
                if *checked {
                    self.problem("this is no release build, its figures mean nothing".into());
                }
                if *rounds != self.rounds {
                    self.problem(format!("{rounds} rounds instead of {}", self.rounds));
                }
                if *cpus != self.cpus {
                    self.problem(format!("{cpus} of {} CPUs are online", self.cpus));
                }
                return Show::Result;
            }
            Said::Run(name) => self.running = Some((*name).to_owned()),
            Said::Figures(figures) => {
                if self.ran.rows.iter().any(|row| row.name == figures.name()) {
                    self.problem(format!("`{}` comes twice", figures.name()));
                } else {
                    self.ran.rows.push(Row::from(figures));
                }
                self.running = None;
                return Show::Result;
            }
            Said::Skip { name, reason } => {
                self.ran.skipped.push(skipped(name, reason));
                self.running = None;
            }
            Said::Fail { name, reason } => {
                self.ran.failed.push(skipped(name, reason));
                self.problem(format!("{name} failed: {reason}"));
                self.running = None;
            }
            Said::NoMatch(pattern) => {
                self.unmatched += 1;
                self.problem(format!("no workload matches {pattern}"));
            }
            Said::End {
                measured,
                skipped,
                failed,
            } => self.ended = Some([*measured, *skipped, *failed]),
        }
        Show::Progress
    }

    /// The guest has ended: what came of it.
    pub fn finish(mut self, end: &End) -> Ran {
        let place = match &self.running {
            Some(name) => format!(" in {name}"),
            None => String::new(),
        };
        let counted = [
            self.ran.rows.len() as u32,
            self.ran.skipped.len() as u32,
            self.ran.failed.len() as u32 + self.unmatched,
        ];
        match (&self.ended, end) {
            (Some(said), End::Exited(SUCCESS | FAILURE)) => {
                self.ran.complete = *said == counted;
                if *said != counted {
                    self.problem(format!(
                        "the kernel counts {said:?} measured, skipped and failed, but {counted:?} \
                         were seen"
                    ));
                }
            }
            (_, end) if !self.begun => {
                self.problem(format!("the run did not begin: {end}"));
            }
            (_, end) => self.problem(format!("the run was cut short{place}: {end}")),
        }
        if self.ran.rows.is_empty() && self.ran.problems.is_empty() {
            self.problem(match self.ran.skipped.len() {
                0 => "no workload was measured".into(),
                count => format!("no workload was measured: all {count} were skipped"),
            });
        }
        if self.ran.problems.is_empty() && *end != End::Exited(SUCCESS) {
            self.problem(format!("all workloads went well, but {end}"));
        }
        self.ran
    }

    fn problem(&mut self, text: String) {
        self.ran.problems.push(text);
    }
}

#[cfg(test)]
mod tests;
