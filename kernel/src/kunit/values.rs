//! What a case with parameters runs over.

use alloc::format;
use alloc::string::String;

use platform::CpuId;

use super::{Ctx, Outcome};
use crate::smp;

/// A list of named values.
pub trait Values: Sync {
    /// What the case is given.
    type Value;

    /// How many there are. The same throughout a run of the case.
    fn count(&self) -> usize;

    /// Name of value `index`, without blanks. `index` is below the count.
    fn name(&self, index: usize) -> String;

    /// Value `index`, if it exists.
    fn value(&self, index: usize) -> Option<Self::Value>;
}

impl<T: Copy + Sync> Values for &'static [(&'static str, T)] {
    type Value = T;

    fn count(&self) -> usize {
        self.len()
    }

    fn name(&self, index: usize) -> String {
        String::from(self.get(index).map_or("", |&(name, _)| name))
    }

    fn value(&self, index: usize) -> Option<T> {
        self.get(index).map(|&(_, value)| value)
    }
}

/// Each online CPU.
pub struct OnlineCpus;

impl Values for OnlineCpus {
    type Value = CpuId;

    fn count(&self) -> usize {
        smp::online().count()
    }

    fn name(&self, index: usize) -> String {
        self.value(index)
            .map_or_else(String::new, |cpu| format!("cpu{cpu}"))
    }

    fn value(&self, index: usize) -> Option<CpuId> {
        smp::online().iter().nth(index)
    }
}

/// Each ordered pair of different online CPUs.
pub struct CpuPairs;

impl Values for CpuPairs {
    type Value = (CpuId, CpuId);

    fn count(&self) -> usize {
        let cpus = OnlineCpus.count();
        cpus * (cpus - 1)
    }

    fn name(&self, index: usize) -> String {
        self.value(index)
            .map_or_else(String::new, |(from, to)| format!("cpu{from}-to-cpu{to}"))
    }

    fn value(&self, index: usize) -> Option<(CpuId, CpuId)> {
        // With one CPU there is no pair, and nothing to divide by.
        let others = OnlineCpus
            .count()
            .checked_sub(1)
            .filter(|&others| others > 0)?;
        let (from, to) = (index / others, index % others);
        // The own number is left out among the second ones.
        let to = to + usize::from(to >= from);
        Some((OnlineCpus.value(from)?, OnlineCpus.value(to)?))
    }
}

/// A case with its values, whatever their type.
pub trait Params: Sync {
    /// How many values there are.
    fn count(&self) -> usize;

    /// Name of value `index`.
    fn name(&self, index: usize) -> String;

    /// Runs the case with value `index`, which is below the count.
    fn run(&self, index: usize, ctx: &mut Ctx) -> Outcome;
}

/// The only [`Params`]: a function and its values.
pub struct Over<V: Values> {
    /// The values.
    pub values: V,
    /// The case.
    pub run: fn(&mut Ctx, V::Value) -> Outcome,
}

impl<V: Values> Params for Over<V> {
    fn count(&self) -> usize {
        self.values.count()
    }

    fn name(&self, index: usize) -> String {
        self.values.name(index)
    }

    fn run(&self, index: usize, ctx: &mut Ctx) -> Outcome {
        match self.values.value(index) {
            Some(value) => (self.run)(ctx, value),
            None => Err(super::skip(format_args!("value {index} has gone"))),
        }
    }
}
