//! What other crates keep with a machine: one value of each type, made when it is first asked
//! for.

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

/// Tells a value that its machine ends.
type Ends = Box<dyn Fn() + Send + Sync>;

struct Entry {
    of: TypeId,
    value: Arc<dyn Any + Send + Sync>,
    ends: Ends,
}

/// Those of a machine.
pub(super) struct Attachments(Mutex<Vec<Entry>>);

impl Attachments {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// The value of type `T`. Nothing in here is a point, so it may be asked for in an NMI.
    pub(super) fn get<T: Attachment>(&self) -> Arc<T> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries
            .iter()
            .find(|entry| entry.of == TypeId::of::<T>())
            .map(|entry| Arc::clone(&entry.value));
        if let Some(value) = found.and_then(|value| value.downcast().ok()) {
            return value;
        }
        let value = Arc::new(T::default());
        let told = Arc::clone(&value);
        entries.push(Entry {
            of: TypeId::of::<T>(),
            value: Arc::clone(&value) as Arc<dyn Any + Send + Sync>,
            ends: Box::new(move || told.machine_ends()),
        });
        value
    }

    /// Tells all that the machine ends.
    pub(super) fn end(&self) {
        let entries = core::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for entry in entries {
            (entry.ends)();
        }
    }
}
