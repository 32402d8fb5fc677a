//! What the checker is told of the code that runs.

use crate::{Context, CpuId, Platform};

/// The state of the CPU at a call of the checker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Where.
    pub cpu: CpuId,
    /// What kind of code.
    pub context: Context,
    /// Interrupts can come.
    pub irqs_on: bool,
    /// Soft interrupts can come.
    pub softirqs_on: bool,
    /// A thread that may be switched away from.
    pub may_sleep: bool,
}

impl Now {
    /// As the machine has it. Soft interrupts come at the end of interrupts that come to a
    /// thread, so they are on where interrupts are, but for soft interrupts themselves.
    #[inline]
    pub fn of<P: Platform>() -> Self {
        let context = P::context();
        let irqs_on = P::irqs_enabled();
        Self {
            cpu: P::current_cpu(),
            context,
            irqs_on,
            softirqs_on: irqs_on && context == Context::Task,
            may_sleep: P::may_sleep(),
        }
    }
}
