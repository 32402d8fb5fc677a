//! Which workloads are meant.

use kernel_base::bench::matches;

use crate::cli::Usage;

/// The patterns of `--filter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Vec<String>);

impl Filter {
    /// Takes the patterns if they could mean a workload.
    ///
    /// # Errors
    ///
    /// Which one could not: it would not survive the kernel's command line, or has a
    /// character that is in no name.
    pub fn new(patterns: &[String]) -> Result<Self, Usage> {
        let fits = |c: char| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '/' | '*' | '?')
        };
        match patterns
            .iter()
            .find(|pattern| pattern.is_empty() || !pattern.chars().all(fits))
        {
            Some(bad) => Err(Usage(format!(
                "`{bad}` is no pattern for benchmarks: their names have small letters, digits, \
                 `_`, `-` and `/`; `*` stands for any text and `?` for one character"
            ))),
            None => Ok(Self(patterns.to_vec())),
        }
    }

    /// Whether a pattern means the workload `name`.
    pub fn means(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, name))
    }

    /// The patterns with commas between them, as the kernel wants them.
    pub fn list(&self) -> String {
        self.0.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(patterns: &[&str]) -> Result<Filter, Usage> {
        let patterns: Vec<String> = patterns.iter().map(|&p| p.to_owned()).collect();
        Filter::new(&patterns)
    }

    #[test]
    fn patterns_mean_names_and_groups() {
        let filter = filter(&["sched", "pair/6?"]).unwrap();
        assert!(filter.means("sched/empty_loop") && filter.means("pair/64"));
        assert!(!filter.means("pair/256") && !filter.means("smp_sched/a"));
        assert_eq!(filter.list(), "sched,pair/6?");
    }

    #[test]
    fn what_could_mean_nothing_is_refused() {
        for bad in ["", "a b", "pair/[64]", "Pair", "a\"b", "sched.*", "é"] {
            let error = filter(&["sched", bad]).expect_err(bad).to_string();
            assert!(error.contains(&format!("`{bad}`")), "{error}");
        }
    }
}
