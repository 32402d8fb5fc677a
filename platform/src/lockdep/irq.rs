//! Safety from interrupts: a class that interrupts wait for must not be held while they
//! are on, nor have a class under it that is. (The first would wait for what its own CPU
//! interrupted; the second for a CPU that waits for it.)

use core::panic::Location;

use super::{
    Checker, Finding, Irq, Path,
    classes::ClassId,
    usage::{USES, Use},
};

impl Checker {
    /// Looks at uses of a class that are new.
    #[cold]
    #[inline(never)]
    pub(super) fn new_uses(
        &self,
        class: ClassId,
        uses: u32,
        at: &'static Location<'static>,
        found: &mut dyn FnMut(Finding),
    ) {
        for what in USES {
            if uses & what.bit() == 0 {
                continue;
            }
            self.usage.add(class, what, at);
            if let Some(finding) = self.contradiction(class, what, at) {
                self.usage.withdraw(class, what);
                if let Finding::IrqUsage { irq, .. } = finding {
                    // Which of the two is meant is not known: no conclusions from either.
                    self.usage.withdraw(class, irq.inside());
                    self.usage.withdraw(class, irq.enabled());
                }
                found(finding);
            }
            self.usage.set_known(class, what);
        }
    }

    /// What a use that was just added contradicts.
    fn contradiction(
        &self,
        class: ClassId,
        what: Use,
        at: &'static Location<'static>,
    ) -> Option<Finding> {
        let irq = Irq::ALL
            .into_iter()
            .find(|irq| what == irq.inside() || what == irq.enabled())?;
        let (opposite, path) = if what == irq.inside() {
            (
                irq.enabled(),
                self.graph
                    .path_from(class, |other| self.usage.has(other, irq.enabled())),
            )
        } else {
            (
                irq.inside(),
                self.graph
                    .path_to(class, |other| self.usage.has(other, irq.inside())),
            )
        };
        if self.usage.has(class, opposite) {
            return Some(Finding::IrqUsage {
                class,
                irq,
                new: what,
                at,
            });
        }
        path.map(|path| Finding::IrqDependency {
            irq,
            path,
            by_use: Some((class, what)),
        })
    }

    /// What an edge that was just added contradicts.
    pub(super) fn irq_dependency(&self, from: ClassId, to: ClassId) -> Option<Finding> {
        for irq in Irq::ALL {
            let before = self
                .graph
                .path_to(from, |class| self.usage.has(class, irq.inside()));
            let behind = self
                .graph
                .path_from(to, |class| self.usage.has(class, irq.enabled()));
            if let (Some(before), Some(behind)) = (before, behind) {
                let mut path = Path::new();
                before
                    .classes()
                    .chain(behind.classes())
                    .for_each(|class| path.push(class));
                return Some(Finding::IrqDependency {
                    irq,
                    path,
                    by_use: None,
                });
            }
        }
        None
    }
}
