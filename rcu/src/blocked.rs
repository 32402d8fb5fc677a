//! Threads that were switched away within a section (preemptible flavour).

/// What the engine keeps with a thread.
#[derive(Debug)]
pub struct Entry(());

impl Entry {
    /// Of a thread that is in no section.
    pub const fn new() -> Self {
        Self(())
    }
}
