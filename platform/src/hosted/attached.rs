//! What other crates keep with a machine or with a thread of one: one value of each type,
//! made when it is first asked for.

use core::any::{Any, TypeId};
use std::{
    boxed::Box,
    sync::{Arc, Mutex, PoisonError},
    vec::Vec,
};

/// A value that a machine keeps for another crate. See
/// [`Machine::attached`](super::Machine::attached).
pub trait Attachment: Any + Send + Sync + Default {
    /// The machine is dropped, and has not failed. May panic: something was left over.
    fn machine_ends(&self) {}
}

type Value = Arc<dyn Any + Send + Sync>;

/// Values, at most one of each type.
pub(super) struct Values(Mutex<Vec<(TypeId, Value)>>);

impl Values {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// The value of type `T`; when it is made, `made` is told. Nothing in here is a point,
    /// so it may be asked for in an NMI.
    pub(super) fn get<T>(&self, made: impl FnOnce(&Arc<T>)) -> Arc<T>
    where
        T: Any + Send + Sync + Default,
    {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = values
            .iter()
            .find(|(of, _)| *of == TypeId::of::<T>())
            .map(|(_, value)| Arc::clone(value));
        if let Some(value) = found.and_then(|value| value.downcast().ok()) {
            return value;
        }
        let value = Arc::new(T::default());
        made(&value);
        values.push((TypeId::of::<T>(), Arc::clone(&value) as Value));
        value
    }
}

/// Tells a value that its machine ends.
type Ends = Box<dyn Fn() + Send + Sync>;

/// Those of a machine.
pub(super) struct Attachments {
    values: Values,
    ends: Mutex<Vec<Ends>>,
}

impl Attachments {
    pub(super) const fn new() -> Self {
        Self {
            values: Values::new(),
            ends: Mutex::new(Vec::new()),
        }
    }

    /// The value of type `T`. Nothing in here is a point, so it may be asked for in an NMI.
    pub(super) fn get<T: Attachment>(&self) -> Arc<T> {
        self.values.get(|value: &Arc<T>| {
            let told = Arc::clone(value);
            let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            ends.push(Box::new(move || told.machine_ends()));
        })
    }

    /// Tells all that the machine ends.
    pub(super) fn end(&self) {
        let ends = core::mem::take(&mut *self.ends.lock().unwrap_or_else(PoisonError::into_inner));
        for end in ends {
            end();
        }
    }
}
