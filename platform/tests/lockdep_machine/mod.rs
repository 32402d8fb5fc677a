//! A thread as the order checker sees it, to be led through what a test plants.

#![allow(dead_code, reason = "each test binary uses a part")]

use core::panic::Location;

use platform::{
    Acquisition, Context, CpuId, LockKind,
    lock::LockClass,
    lockdep::{Checker, Held, Kind, Now},
};

/// A thread, its CPU's state, and what was found while it ran.
pub struct Thread<'a> {
    pub checker: &'a Checker,
    pub held: Held,
    pub now: Now,
    pub found: Vec<(Kind, String)>,
}

/// How a lock is taken.
#[derive(Clone, Copy)]
pub struct How {
    pub kind: LockKind,
    pub is_try: bool,
    pub nesting: u8,
}

pub const SPIN: How = How {
    kind: LockKind::Spin,
    is_try: false,
    nesting: 0,
};
pub const SLEEP: How = How {
    kind: LockKind::Sleep,
    ..SPIN
};
pub const LOCAL: How = How {
    kind: LockKind::Local,
    is_try: true,
    ..SPIN
};
pub const TRY: How = How {
    is_try: true,
    ..SPIN
};

pub type Place = &'static Location<'static>;

impl<'a> Thread<'a> {
    /// A thread on CPU 0 that may sleep.
    pub fn new(checker: &'a Checker) -> Self {
        Self {
            checker,
            held: Held::new(),
            now: Now {
                cpu: CpuId::BOOT,
                context: Context::Task,
                irqs_on: true,
                softirqs_on: true,
                may_sleep: true,
            },
            found: Vec::new(),
        }
    }

    /// Takes a lock of the class, whose address is `lock`. From where.
    #[track_caller]
    pub fn take_as(&mut self, class: &'static LockClass, lock: usize, how: How) -> Place {
        let at = Location::caller();
        let found = &mut self.found;
        self.checker.acquire(
            &self.held,
            &Acquisition {
                class,
                lock,
                kind: how.kind,
                is_try: how.is_try,
                nesting: how.nesting,
                at,
            },
            &self.now,
            &mut |report| found.push((report.finding.kind(), report.to_string())),
        );
        at
    }

    /// Takes the class's only lock, by spinning.
    #[track_caller]
    pub fn take(&mut self, class: &'static LockClass) -> Place {
        self.take_as(class, address(class), SPIN)
    }

    pub fn give_lock(&mut self, class: &'static LockClass, lock: usize) {
        let found = &mut self.found;
        self.checker
            .release(&self.held, class, lock, &self.now, &mut |report| {
                found.push((report.finding.kind(), report.to_string()));
            });
    }

    pub fn give(&mut self, class: &'static LockClass) {
        self.give_lock(class, address(class));
    }

    /// Something that may sleep. From where.
    #[track_caller]
    pub fn sleep(&mut self) -> Place {
        let at = Location::caller();
        let found = &mut self.found;
        self.checker
            .might_sleep(&self.held, at, &self.now, &mut |report| {
                found.push((report.finding.kind(), report.to_string()));
            });
        at
    }

    /// The end of the thread or of a handler.
    pub fn end(&mut self, context: Context) {
        let found = &mut self.found;
        self.checker
            .check_empty(&self.held, context, &self.now, &mut |report| {
                found.push((report.finding.kind(), report.to_string()));
            });
    }

    /// Runs `f` in another context, with what that has turned off.
    pub fn interrupt<R>(&mut self, context: Context, f: impl FnOnce(&mut Self) -> R) -> R {
        let before = self.now;
        self.now = Now {
            context,
            irqs_on: context == Context::SoftIrq,
            softirqs_on: false,
            may_sleep: false,
            ..before
        };
        let result = f(self);
        self.now = before;
        result
    }

    /// Runs `f` with interrupts off.
    pub fn irqs_off<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> R {
        let before = self.now;
        self.now = Now {
            irqs_on: false,
            softirqs_on: false,
            may_sleep: false,
            ..before
        };
        let result = f(self);
        self.now = before;
        result
    }

    /// Nothing was found.
    #[track_caller]
    pub fn is_clean(&self) {
        assert!(self.found.is_empty(), "{:#?}", self.found);
    }

    /// One finding, of this kind, whose text has all of `parts`; it is taken away.
    #[track_caller]
    pub fn found_one(&mut self, kind: Kind, parts: &[&dyn std::fmt::Display]) -> String {
        assert_eq!(self.found.len(), 1, "{:#?}", self.found);
        let (found, text) = self.found.remove(0);
        assert_eq!(found, kind, "{text}");
        for part in parts {
            assert!(text.contains(&part.to_string()), "no `{part}` in:\n{text}");
        }
        text
    }
}

/// Where the class's only lock lies.
pub fn address(class: &'static LockClass) -> usize {
    core::ptr::from_ref(class).addr()
}
