//! CPUs that go and come back.

use core::sync::atomic::Ordering;

use platform::{CpuId, CpuMask};

use super::{Ground, Torture, random::Random, tally::Wrong, threads::Seat};
use crate::Machine;

const MS: u64 = 1_000_000;

impl<M: Machine, G: Ground<M>> Torture<M, G> {
    /// The thread that takes CPUs off, and brings them back, but for the boot CPU. All are
    /// back in the end.
    pub(super) fn hotplug(&self, seat: &Seat, random: &mut Random) {
        let mut off = CpuMask::EMPTY;
        while self.goes_on(seat) {
            self.pause(random.between(5 * MS, 300 * MS));
            let online = M::online_cpus().without(CpuId::BOOT);
            let both = online.union(off);
            let chosen = random.below(both.count().max(1) as u64) as usize;
            let Some(cpu) = both.iter().nth(chosen) else {
                continue;
            };
            if off.contains(cpu) {
                if self.bring_back(cpu) {
                    off = off.without(cpu);
                }
            } else if self.ground.offline(cpu) {
                self.tally.offline.fetch_add(1, Ordering::Relaxed);
                off = off.with(cpu);
            } else {
                self.tally.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        for cpu in off.iter() {
            self.bring_back(cpu);
        }
    }

    fn bring_back(&self, cpu: CpuId) -> bool {
        let back = self.ground.online(cpu);
        if back {
            self.tally.online.fetch_add(1, Ordering::Relaxed);
        } else {
            self.wrong(Wrong::Hotplug, u64::from(cpu.number()));
        }
        back
    }
}
