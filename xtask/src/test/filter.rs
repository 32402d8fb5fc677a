//! Which cases the user asked for: globs over full names or over `suite.case`.

use kernel_base::glob::matches as glob;

/// Which of the three kinds of test `--only` or a filter selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// `cargo test` of the host crates.
    Host,
    /// The suites inside the kernel.
    Kernel,
    /// Scenarios that boot a guest of their own, or run xtask itself.
    Boot,
}

impl Kind {
    /// All kinds, in the order in which they run.
    pub const ALL: [Self; 3] = [Self::Host, Self::Kernel, Self::Boot];

    /// The first part of the full names of this kind.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Kernel => "kernel",
            Self::Boot => "boot",
        }
    }
}

/// The cases to run.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    patterns: Vec<String>,
    only: Option<Kind>,
}

impl Filter {
    /// Selects what matches one of `patterns` (everything if there is none) and
    /// is of kind `only`, if given.
    pub fn new(patterns: Vec<String>, only: Option<Kind>) -> Self {
        Self { patterns, only }
    }

    /// Whether the user named cases at all.
    pub fn is_everything(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The patterns as one line, for messages.
    pub fn describe(&self) -> String {
        self.patterns.join(" ")
    }

    /// Whether any case of `kind` can be selected.
    pub fn wants(&self, kind: Kind) -> bool {
        if self.only.is_some_and(|only| only != kind) {
            return false;
        }
        self.patterns.is_empty()
            || self
                .patterns
                .iter()
                .any(|pattern| Self::may_name(pattern, kind))
    }

    /// Whether a pattern can name a case of `kind`. One with a slash says its
    /// kind by its first part; one without is a `suite.case` glob.
    fn may_name(pattern: &str, kind: Kind) -> bool {
        match pattern.split_once('/') {
            Some((first, _)) => glob_prefix(first, kind.prefix()),
            None => kind == Kind::Kernel || glob(pattern, kind.prefix()),
        }
    }

    /// Whether the case with this full name is selected.
    pub fn selects(&self, full_name: &str) -> bool {
        let kind = Kind::ALL.into_iter().find(|kind| {
            full_name
                .strip_prefix(kind.prefix())
                .is_some_and(|rest| rest.starts_with('/'))
        });
        if self.only.is_some() && self.only != kind {
            return false;
        }
        if self.patterns.is_empty() {
            return true;
        }
        if kind == Some(Kind::Kernel)
            && let Some((shape, case)) = full_name["kernel/".len()..].split_once('/')
        {
            return self
                .kernel_globs(shape)
                .iter()
                .any(|pattern| glob(pattern, case));
        }
        self.patterns.iter().any(|pattern| {
            glob(pattern, full_name)
                || kind.is_some_and(|kind| !pattern.contains('/') && glob(pattern, kind.prefix()))
        })
    }

    /// The globs to hand to the kernel as `kunit=` on the shape called `shape`;
    /// none when no pattern can match a case there.
    pub fn kernel_globs(&self, shape: &str) -> Vec<String> {
        if !self.wants(Kind::Kernel) {
            return Vec::new();
        }
        if self.patterns.is_empty() {
            return vec!["*".into()];
        }
        let mut globs = Vec::new();
        for pattern in &self.patterns {
            let parts: Vec<&str> = pattern.splitn(3, '/').collect();
            let glob_of_case = match parts[..] {
                [name] if glob(name, "kernel") => Some("*".to_owned()),
                [name] => Some(with_case(name)),
                [kind, at] if glob(kind, "kernel") && glob(at, shape) => Some("*".to_owned()),
                [kind, at, name] if glob(kind, "kernel") && glob(at, shape) => {
                    Some(with_case(name))
                }
                // A star may stand for several parts: `kernel/*ipi*`.
                [kind, rest] if glob(kind, "kernel") && rest.starts_with('*') => {
                    Some(with_case(rest))
                }
                _ => None,
            };
            globs.extend(glob_of_case);
        }
        globs
    }
}

/// A glob that names a suite only means all its cases.
fn with_case(pattern: &str) -> String {
    if pattern.contains('.') || pattern.ends_with('*') {
        pattern.into()
    } else {
        format!("{pattern}.*")
    }
}

/// Whether the glob `pattern`, cut off at a slash, can begin with `word`.
fn glob_prefix(pattern: &str, word: &str) -> bool {
    glob(pattern, word) || pattern.starts_with('*')
}

#[cfg(test)]
mod tests;
