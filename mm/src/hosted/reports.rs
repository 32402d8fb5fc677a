//! What was said of a hosted machine's memory.

use core::{fmt, panic::Location};
use std::{
    format,
    string::{String, ToString},
    sync::{Arc, Mutex, PoisonError},
    vec::Vec,
};

use platform::hosted::{Attachment, Hosted, Machine};

use crate::{
    frame::Pfn,
    owner::Record,
    report::{Kind, Report},
};

/// A [`Report`], kept.
#[derive(Clone, Debug)]
pub struct Said {
    /// What is wrong.
    pub kind: Kind,
    /// The frame that it is about.
    pub frame: Option<Pfn>,
    /// Who asked for what went wrong.
    pub caller: Option<&'static Location<'static>>,
    /// Who allocated and freed the frame.
    pub owner: Option<Record>,
    /// The whole text.
    pub text: String,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The reports of a machine that no test has taken yet. A machine that is dropped with some
/// panics, unless it has failed already.
#[derive(Debug, Default)]
pub struct Reports(Mutex<Vec<Said>>);

impl Reports {
    /// Those of `machine`.
    pub fn of(machine: &Machine) -> Arc<Self> {
        machine.attached()
    }

    /// Those of the machine that the calling thread belongs to.
    ///
    /// # Panics
    ///
    /// If it belongs to none.
    pub fn here() -> Arc<Self> {
        Hosted::attached()
    }

    /// Takes all that there are, in order.
    pub fn take(&self) -> Vec<Said> {
        core::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the only report.
    ///
    /// # Panics
    ///
    /// If there is no or more than one, or it is of another kind.
    #[track_caller]
    pub fn expect(&self, kind: Kind) -> Said {
        let taken = self.take();
        match <[Said; 1]>::try_from(taken) {
            Ok([said]) if said.kind == kind => said,
            Ok([said]) => panic!("instead of {kind:?}: {said}"),
            Err(taken) => panic!(
                "{} reports instead of one {kind:?}: {taken:#?}",
                taken.len()
            ),
        }
    }

    /// Nothing in here is a point, so it may come from an NMI.
    pub(super) fn add(&self, report: &Report<'_>) {
        let said = Said {
            kind: report.kind,
            frame: report.frame,
            caller: report.caller,
            owner: report.owner,
            text: format!("{report}"),
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(said);
    }
}

impl Attachment for Reports {
    fn machine_ends(&self) {
        let left: Vec<_> = self.take().iter().map(Said::to_string).collect();
        assert!(
            left.is_empty(),
            "nobody expected these reports:\n{}",
            left.join("\n")
        );
    }
}
