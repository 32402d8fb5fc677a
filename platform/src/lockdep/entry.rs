//! A lock that is held: what is known of it, and how that is packed.

use core::{fmt, panic::Location};

use super::{Now, classes::ClassId};
use crate::{Acquisition, Context, CpuId, LockKind, lock::LockClass};

/// A lock that is held, or about to be.
#[derive(Debug, Clone, Copy)]
pub struct HeldLock {
    /// Its class.
    pub class: &'static LockClass,
    /// The class's number, if there was one left.
    pub id: Option<ClassId>,
    /// Its address.
    pub lock: usize,
    /// Its kind.
    pub kind: LockKind,
    /// Who takes it.
    pub at: &'static Location<'static>,
    /// On which CPU.
    pub cpu: CpuId,
    /// In which context.
    pub context: Context,
    /// Interrupts could come then.
    pub irqs_on: bool,
    /// It was not waited for.
    pub is_try: bool,
    /// Which of several of its class.
    pub nesting: u8,
}

impl HeldLock {
    /// What an acquisition comes to.
    #[inline]
    pub(super) fn new(acquisition: &Acquisition, id: Option<ClassId>, now: &Now) -> Self {
        Self {
            class: acquisition.class,
            id,
            lock: acquisition.lock,
            kind: acquisition.kind,
            at: acquisition.at,
            cpu: now.cpu,
            context: now.context,
            irqs_on: now.irqs_on,
            is_try: acquisition.is_try || acquisition.kind == LockKind::Local,
            nesting: acquisition.nesting,
        }
    }

    /// Whether its holder may sleep.
    #[inline]
    pub fn sleeps(&self) -> bool {
        matches!(self.kind, LockKind::Sleep | LockKind::SleepShared)
    }
}

impl fmt::Display for HeldLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            LockKind::Spin => "spin",
            LockKind::IrqSpin => "irq spin",
            LockKind::Local => "local",
            LockKind::Sleep => "sleeping",
            LockKind::SleepShared => "shared sleeping",
        };
        write!(f, "\"{}\" (level {}", self.class.name, self.class.level)?;
        if self.nesting != 0 {
            write!(f, ", nested {}", self.nesting)?;
        }
        let tried = if self.is_try { ", tried" } else { "" };
        write!(
            f,
            ") {kind} lock {:#x} at {} (cpu{}, {}, irqs {}{tried})",
            self.lock,
            self.at,
            self.cpu,
            context_name(self.context),
            if self.irqs_on { "on" } else { "off" },
        )
    }
}

/// A context in a report.
pub(super) fn context_name(context: Context) -> &'static str {
    match context {
        Context::Task => "task",
        Context::SoftIrq => "softirq",
        Context::HardIrq => "hardirq",
        Context::Nmi => "nmi",
    }
}

pub(super) fn encode_context(context: Context) -> u64 {
    match context {
        Context::Task => 0,
        Context::SoftIrq => 1,
        Context::HardIrq => 2,
        Context::Nmi => 3,
    }
}

/// From the two lowest bits.
#[inline(always)]
pub(super) fn decode_context(bits: u64) -> Context {
    match bits & 3 {
        0 => Context::Task,
        1 => Context::SoftIrq,
        2 => Context::HardIrq,
        _ => Context::Nmi,
    }
}

/// The small fields of an entry in a word: bits 0-1 context, 2-4 kind, 5 irqs on, 6 tried,
/// 8-15 class number or 0, 16-23 nesting, 24-31 CPU, 32-63 when (a count of acquisitions).
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields(pub(super) u64);

impl Fields {
    #[inline]
    pub(super) fn new(lock: &HeldLock, serial: u32) -> Self {
        let kind = match lock.kind {
            LockKind::Spin => 0,
            LockKind::IrqSpin => 1,
            LockKind::Local => 2,
            LockKind::Sleep => 3,
            LockKind::SleepShared => 4,
        };
        Self(
            encode_context(lock.context)
                | kind << 2
                | u64::from(lock.irqs_on) << 5
                | u64::from(lock.is_try) << 6
                | lock.id.map_or(0, |id| u64::from(id.number())) << 8
                | u64::from(lock.nesting) << 16
                | u64::from(lock.cpu.number()) << 24
                | u64::from(serial) << 32,
        )
    }

    #[inline(always)]
    pub(super) fn context(self) -> Context {
        decode_context(self.0)
    }

    #[inline(always)]
    fn kind(self) -> LockKind {
        match self.0 >> 2 & 7 {
            0 => LockKind::Spin,
            1 => LockKind::IrqSpin,
            2 => LockKind::Local,
            3 => LockKind::Sleep,
            _ => LockKind::SleepShared,
        }
    }

    #[inline(always)]
    pub(super) fn irqs_on(self) -> bool {
        self.0 & 1 << 5 != 0
    }

    #[inline(always)]
    pub(super) fn id(self) -> Option<ClassId> {
        ClassId::new((self.0 >> 8) as u8)
    }

    /// The whole entry.
    pub(super) fn entry(
        self,
        class: &'static LockClass,
        lock: usize,
        at: &'static Location<'static>,
    ) -> Option<HeldLock> {
        Some(HeldLock {
            class,
            id: self.id(),
            lock,
            kind: self.kind(),
            at,
            cpu: CpuId::new((self.0 >> 24) as u32 & 0xff)?,
            context: self.context(),
            irqs_on: self.irqs_on(),
            is_try: self.0 & 1 << 6 != 0,
            nesting: (self.0 >> 16) as u8,
        })
    }

    pub(super) fn serial(self) -> u32 {
        (self.0 >> 32) as u32
    }
}
