//! Figures in a file, with all that they depend on.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use kernel_base::bench::{Figures, Tenths, Value};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::Ran;

/// The version of the file's shape.
const FORMAT: u32 = 1;

/// The figures of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    format: u32,
    /// What the figures depend on beside the source.
    pub key: Key,
    /// The commit that was measured, with `+` if files differed from it; none without git.
    pub commit: Option<String>,
    /// Rounds of each workload.
    pub rounds: u32,
    /// The workloads that have figures, in the order in which they ran.
    pub rows: Vec<Row>,
    /// The workloads that cannot run on this machine.
    pub skipped: Vec<Skipped>,
}

/// What figures depend on beside the source. Two runs compare only if these are equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The machine's name.
    pub machine: String,
    /// The compiler's version line.
    pub rustc: String,
    /// QEMU's version line.
    pub qemu: String,
    /// Cargo's profile.
    pub profile: String,
}

/// What was measured of one workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The workload.
    pub name: String,
    /// CPUs that did it at once.
    pub cpus: u32,
    /// Operations of all of them in one round.
    pub ops: u64,
    /// Nanoseconds per operation in the median round.
    pub ns_per_op: Decimal,
    /// In the best round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Decimal>,
    /// In the worst round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Decimal>,
    /// Nanoseconds of the reported round in which the processor was halted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ns: Option<u64>,
    /// Further keys of the workload's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, Number>,
}

/// A workload that cannot run on the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// The workload.
    pub name: String,
    /// Why, in one line.
    pub reason: String,
}

/// A [`Tenths`], as a number with a decimal point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "f64", try_from = "f64")]
pub struct Decimal(pub Tenths);

impl From<Decimal> for f64 {
    fn from(decimal: Decimal) -> Self {
        // Exact enough to be read back as it was up to 2^53 tenths: 10 days.
        decimal.0.get() as f64 / 10.0
    }
}

impl TryFrom<f64> for Decimal {
    type Error = String;

    fn try_from(number: f64) -> Result<Self, String> {
        let tenths = (number * 10.0).round();
        if !(0.0..9e15).contains(&tenths) || tenths / 10.0 != number {
            return Err(format!("{number} is not a time with one decimal"));
        }
        Ok(Self(Tenths::new(tenths as u64)))
    }
}

/// A [`Value`]: with a decimal point or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Number {
    /// Without.
    Whole(u64),
    /// With one decimal.
    Decimal(Decimal),
}

impl From<&Figures<'_>> for Row {
    fn from(figures: &Figures<'_>) -> Self {
        let number = |value| match value {
            Value::Whole(whole) => Number::Whole(whole),
            Value::Tenths(tenths) => Number::Decimal(Decimal(tenths)),
        };
        let keys = figures.keys().iter();
        Self {
            name: figures.name().to_owned(),
            cpus: figures.cpus(),
            ops: figures.ops(),
            ns_per_op: Decimal(figures.ns_per_op()),
            min: figures.range().map(|(min, _)| Decimal(min)),
            max: figures.range().map(|(_, max)| Decimal(max)),
            idle_ns: figures.idle_ns(),
            keys: keys
                .map(|&(key, value)| (key.to_owned(), number(value)))
                .collect(),
        }
    }
}

impl Row {
    /// The best and the worst round; the reported one where they are not given.
    pub fn range(&self) -> (Tenths, Tenths) {
        let or = |end: Option<Decimal>| end.unwrap_or(self.ns_per_op).0;
        (or(self.min), or(self.max))
    }

    /// Whether it could be a line of a run.
    fn check(&self) -> anyhow::Result<()> {
        let (min, max) = self.range();
        let mut figures = Figures::new(&self.name, self.cpus, self.ops, self.ns_per_op.0)?
            .with_range(min, max)?;
        for (key, number) in &self.keys {
            let value = match number {
                Number::Whole(whole) => Value::Whole(*whole),
                Number::Decimal(decimal) => Value::Tenths(decimal.0),
            };
            figures = figures.with_key(key, value)?;
        }
        Ok(())
    }
}

impl Report {
    /// The report of a run.
    pub fn new(key: Key, commit: Option<String>, rounds: u32, ran: Ran) -> Self {
        Self {
            format: FORMAT,
            key,
            commit,
            rounds,
            rows: ran.rows,
            skipped: ran.skipped,
        }
    }

    /// Reads a file that was written by [`JsonFile::write`].
    ///
    /// # Errors
    ///
    /// That it cannot be read, or in which way it is damaged.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the baseline {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("the baseline {} is damaged", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let Version { format } = serde_json::from_str(text)?;
        ensure!(
            format == FORMAT,
            "it has format {format}, and this xtask reads {FORMAT}"
        );
        let report: Self = serde_json::from_str(text)?;
        for (index, row) in report.rows.iter().enumerate() {
            row.check().with_context(|| format!("row `{}`", row.name))?;
            if report.rows[..index]
                .iter()
                .any(|other| other.name == row.name)
            {
                bail!("row `{}` comes twice", row.name);
            }
        }
        Ok(report)
    }

    /// The row of the workload `name`.
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// Whether figures with this `key` may be compared with these; never between machines,
    /// and between different tools only if `other_tools` are allowed.
    ///
    /// # Errors
    ///
    /// What differs.
    pub fn check_key(&self, key: &Key, other_tools: bool) -> anyhow::Result<()> {
        let mut differ = Vec::new();
        let mut compare = |what: &str, there: &str, here: &str| {
            if there != here {
                differ.push(format!("\n  {what}: `{there}` there, `{here}` here"));
            }
        };
        compare("machine", &self.key.machine, &key.machine);
        let machine_differs = self.key.machine != key.machine;
        if !other_tools {
            compare("rustc", &self.key.rustc, &key.rustc);
            compare("QEMU", &self.key.qemu, &key.qemu);
            compare("profile", &self.key.profile, &key.profile);
        }
        if differ.is_empty() {
            return Ok(());
        }
        let way_out = if machine_differs {
            "figures of different machines never compare"
        } else {
            "make a new one with --json, or compare all the same with --allow-other-tools"
        };
        bail!(
            "the baseline was made in another way; {way_out}:{}",
            differ.concat()
        )
    }
}

/// A file that a report will be written to.
pub struct JsonFile {
    path: PathBuf,
    file: NamedTempFile,
}

impl JsonFile {
    /// Finds out whether `path` can be written, before anything is measured for it. What is
    /// there stays until [`write`](Self::write).
    ///
    /// # Errors
    ///
    /// Why it cannot.
    pub fn prepare(path: &Path) -> anyhow::Result<Self> {
        let make = || -> anyhow::Result<NamedTempFile> {
            ensure!(!path.is_dir(), "it is a folder");
            let folder = match path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            };
            let readable = fs::Permissions::from_mode(0o644);
            Ok(tempfile::Builder::new()
                .permissions(readable)
                .tempfile_in(folder)?)
        };
        Ok(Self {
            path: path.to_owned(),
            file: make().with_context(|| format!("cannot write {}", path.display()))?,
        })
    }

    /// Puts `report` there, in place of what was there.
    ///
    /// # Errors
    ///
    /// That it cannot be written after all.
    pub fn write(mut self, report: &Report) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(report).context("the report has no JSON")?;
        text.push('\n');
        let mut put = || -> anyhow::Result<()> {
            self.file.write_all(text.as_bytes())?;
            self.file.flush()?;
            Ok(())
        };
        put().with_context(|| format!("cannot write {}", self.path.display()))?;
        self.file
            .persist(&self.path)
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
