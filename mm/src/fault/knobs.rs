//! The knobs: their values, names, texts.

use core::fmt;

/// Threads that a filter can name.
pub const MARKS: usize = 8;

/// The values of all knobs of a [`FaultAttr`](super::FaultAttr).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// How many of 100 points fail, at random.
    pub probability: u32,
    /// Of those that come so far, only each n-th may fail. 0 is as 1.
    pub interval: u32,
    /// So many may still fail; -1: without end.
    pub times: i32,
    /// So much (bytes, pages) may still be allocated before any fails.
    pub space: u32,
    /// 0: fail silently; 1: say so in a line; 2: with the callers.
    pub verbose: u32,
    /// If not 0: exactly the n-th point from now fails, and no other knob but `task` counts
    /// until then.
    pub nth: u32,
    /// Where the random numbers begin.
    pub seed: u64,
    /// Only these threads' points count, and none in interrupts. Empty: all count.
    pub task: Marks,
}

impl Knobs {
    /// Nothing fails. As in Linux, one failure is allowed once the probability is set;
    /// otherwise than there, it is silent unless `verbose` is raised.
    pub const OFF: Self = Self {
        probability: 0,
        interval: 1,
        times: 1,
        space: 0,
        verbose: 0,
        nth: 0,
        seed: 1,
        task: Marks::NONE,
    };

    /// What `FAIL=<interval>,<probability>,<space>,<times>` says on Linux's command line.
    ///
    /// # Errors
    ///
    /// [`KnobError`].
    pub fn parse(text: &str) -> Result<Self, KnobError<'_>> {
        const NAMES: [&str; 4] = ["interval", "probability", "space", "times"];
        let mut fields = text.split(',');
        let mut knobs = Self::OFF;
        for name in NAMES {
            let field = fields.next().ok_or(KnobError::Fields(text))?;
            knobs.set(name, field.trim())?;
        }
        match fields.next() {
            None => Ok(knobs),
            Some(_) => Err(KnobError::Fields(text)),
        }
    }

    /// Sets a knob by its name.
    ///
    /// # Errors
    ///
    /// [`KnobError`]; then nothing has changed.
    pub fn set<'a>(&mut self, name: &'a str, value: &'a str) -> Result<(), KnobError<'a>> {
        match name {
            "probability" => self.probability = number(name, value, 0, 100)? as u32,
            "interval" => self.interval = number(name, value, 0, u32::MAX.into())? as u32,
            "times" => self.times = number(name, value, -1, i32::MAX.into())? as i32,
            "space" => self.space = number(name, value, 0, u32::MAX.into())? as u32,
            "verbose" => self.verbose = number(name, value, 0, 2)? as u32,
            "nth" => self.nth = number(name, value, 0, u32::MAX.into())? as u32,
            "seed" => self.seed = number(name, value, 0, u64::MAX.into())? as u64,
            "task" => self.task = self.task.change(value)?,
            _ => return Err(KnobError::Unknown(name)),
        }
        Ok(())
    }
}

impl fmt::Display for Knobs {
    /// Each knob on a line of its own, `name value`, as [`set`](Self::set) takes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<16} {value}");
        line("probability", &self.probability)?;
        line("interval", &self.interval)?;
        line("times", &self.times)?;
        line("space", &self.space)?;
        line("verbose", &self.verbose)?;
        line("nth", &self.nth)?;
        line("seed", &self.seed)?;
        line("task", &self.task)
    }
}

/// Threads by their numbers, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks(pub(super) [Option<u32>; MARKS]);

impl Marks {
    /// No thread is marked: the filter is off.
    pub const NONE: Self = Self([None; MARKS]);

    /// One thread.
    pub const fn one(thread: u32) -> Self {
        let mut marks = [None; MARKS];
        marks[0] = Some(thread);
        Self(marks)
    }

    /// Whether none is marked.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// Whether this thread is marked.
    pub fn contains(&self, thread: u32) -> bool {
        self.0.contains(&Some(thread))
    }

    /// What `off`, `N` (this one only), `+N` (this one, too) or `-N` makes of them.
    fn change(mut self, text: &str) -> Result<Self, KnobError<'_>> {
        if text == "off" {
            return Ok(Self::NONE);
        }
        let thread = |text| number("task", text, 0, u32::MAX.into()).map(|n| Some(n as u32));
        let mut replace = |old: Option<u32>, new: Option<u32>| {
            let place = self.0.iter_mut().find(|mark| **mark == old);
            place.map(|place| *place = new)
        };
        if let Some(more) = text.strip_prefix('+') {
            let thread = thread(more)?;
            if replace(thread, thread).is_none() {
                replace(None, thread).ok_or(KnobError::TooManyThreads)?;
            }
        } else if let Some(less) = text.strip_prefix('-') {
            replace(thread(less)?, None).ok_or(KnobError::NotMarked(less))?;
        } else {
            self = Self::NONE;
            self.0[0] = thread(text)?;
        }
        Ok(self)
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for mark in self.0.iter().flatten() {
            write!(f, "{between}{mark}")?;
            between = " ";
        }
        if between.is_empty() {
            f.write_str("off")?;
        }
        Ok(())
    }
}

/// Why a knob is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnobError<'a> {
    /// There is no knob of this name.
    Unknown(&'a str),
    /// The value is no number.
    NotANumber {
        /// The knob.
        name: &'a str,
        /// The value.
        value: &'a str,
    },
    /// The value is none that the knob can have.
    Range {
        /// The knob.
        name: &'a str,
        /// The value.
        value: &'a str,
        /// The least it can be.
        min: i128,
        /// The most.
        max: i128,
    },
    /// The value is neither on nor off.
    NotASwitch {
        /// The knob.
        name: &'a str,
        /// The value.
        value: &'a str,
    },
    /// Not four fields with commas between.
    Fields(&'a str),
    /// There are [`MARKS`] marked threads already.
    TooManyThreads,
    /// The thread is not marked.
    NotMarked(&'a str),
}

impl fmt::Display for KnobError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "there is no knob `{}`", name.escape_debug()),
            Self::NotANumber { name, value } => {
                write!(f, "{name}: `{}` is not a number", value.escape_debug())
            }
            Self::Range {
                name,
                value,
                min,
                max,
            } => write!(f, "{name}: {value} is not within {min} and {max}"),
            Self::NotASwitch { name, value } => {
                write!(f, "{name}: `{}` is not on or off", value.escape_debug())
            }
            Self::Fields(text) => write!(
                f,
                "`{}` is not <interval>,<probability>,<space>,<times>",
                text.escape_debug()
            ),
            Self::TooManyThreads => write!(f, "task: {MARKS} threads are marked already"),
            Self::NotMarked(thread) => write!(f, "task: thread {thread} is not marked"),
        }
    }
}

impl core::error::Error for KnobError<'_> {}

pub(super) fn number<'a>(
    name: &'a str,
    value: &'a str,
    min: i128,
    max: i128,
) -> Result<i128, KnobError<'a>> {
    let number: i128 = value
        .parse()
        .map_err(|_| KnobError::NotANumber { name, value })?;
    if (min..=max).contains(&number) {
        Ok(number)
    } else {
        Err(KnobError::Range {
            name,
            value,
            min,
            max,
        })
    }
}

pub(super) fn switch<'a>(name: &'a str, value: &'a str) -> Result<bool, KnobError<'a>> {
    match value {
        "on" | "Y" | "y" | "1" => Ok(true),
        "off" | "N" | "n" | "0" => Ok(false),
        _ => Err(KnobError::NotASwitch { name, value }),
    }
}
