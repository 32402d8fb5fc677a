//! CPUs that go and come back.
//!
//! | state | left by | to |
//! |---|---|---|
//! | online | [`Hosted::offline`](super::Hosted::offline): no calls and no threads of others come any more | going |
//! | going: threads of its own may still run, and calls are served that were sent before | they all sleep; its last function has run in its name | away |
//! | away: nothing runs there, its word is even | [`Hosted::online`](super::Hosted::online): its first function has run in its name | online |

use super::here::Here;
use crate::{CpuId, Platform, hosted::Hosted};

/// How long to wait before looking again whether a CPU's threads sleep.
const LOOK_NS: u64 = 20_000;

impl Here {
    /// See [`Hosted::offline`].
    pub(super) fn offline(&self, cpu: CpuId, dying: impl FnOnce()) {
        assert!(self.may_sleep(), "takes a CPU away where it may not sleep");
        assert!(cpu != CpuId::BOOT, "the first CPU stays");
        let machine = &*self.machine;
        assert!(self.thread.0.cpu != Some(cpu), "takes its own CPU away");
        {
            let mut sched = machine.sched();
            assert!(sched.online().contains(cpu), "cpu{cpu} is not online");
            machine.set_online(&mut sched, cpu, false);
        }
        // It may be on that CPU itself, and leaves it at the next point.
        while self.cpu() == cpu || !machine.sched().borrow(cpu, &machine.hints) {
            Hosted::park_until(Hosted::now_ns() + LOOK_NS);
        }
        {
            // Not preempted, though what is stood for is an idle loop.
            let _return = self.stand_for(cpu);
            // Calls that were sent before it was off line.
            self.take_interrupts();
            self.alone(dying);
        }
        machine.sched().put_away(cpu, &machine.hints);
    }

    /// See [`Hosted::online`].
    pub(super) fn online(&self, cpu: CpuId, starting: impl FnOnce()) {
        assert!(self.may_sleep(), "brings a CPU back where it may not sleep");
        let machine = &*self.machine;
        assert!(machine.sched().is_away(cpu), "cpu{cpu} is not away");
        {
            let _return = self.stand_for(cpu);
            self.alone(starting);
        }
        let mut sched = machine.sched();
        machine.set_online(&mut sched, cpu, true);
        sched.give_up(cpu, &machine.hints);
    }

    /// Runs `f` with interrupts and preemption off, and nothing injected.
    fn alone(&self, f: impl FnOnce()) {
        super::quick::set_preempt(1);
        self.irqs_off.set(true);
        self.calm.set(true);
        f();
    }
}
