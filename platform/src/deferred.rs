//! Deferred work that may be queued from anywhere, NMI included.

use crate::sync::const_unless_model;

/// A CPU's list of deferred work.
#[derive(Debug)]
pub struct List(());

impl List {
    const_unless_model! {
        /// An empty list.
        pub fn new() -> Self {
            Self(())
        }
    }
}
