//! Stacks and the guards below them.

use kernel_early::layout::{PAGE_SIZE, STACK_SLOT};
use platform::CpuId;

use crate::arch::stacks::{self, Owner, Stack, Use};
use crate::arch::{paging, probe};
use crate::kunit::{Ctx, OnlineCpus, Outcome, kassert, kassert_eq, kassert_ok, kunit_suite};
use crate::smp;

kunit_suite! {
    name: "stacks",
    cases: [
        in_use => { over: OnlineCpus },
        mapped_and_guarded => { over: OnlineCpus },
        guard_faults => { over: OnlineCpus },
        slots,
    ],
}

const USES: [Use; 4] = [Use::Main, Use::DoubleFault, Use::Nmi, Use::MachineCheck];

/// Code that a CPU runs for another runs on its own first stack, or on that of the thread
/// that it interrupts.
fn in_use(_: &mut Ctx, cpu: CpuId) -> Outcome {
    use core::sync::atomic::{AtomicU64, Ordering};
    // Relaxed: the end of the call orders it before the read below.
    let seen = AtomicU64::new(0);
    smp::call_on(cpu, &|| {
        let local = core::hint::black_box(0u8);
        seen.store(core::ptr::from_ref(&local).addr() as u64, Ordering::Relaxed);
    });
    let address = seen.load(Ordering::Relaxed);
    let slot = kassert_ok!(stacks::slot_of(address), "{address:#x} is on no stack");
    let fits = match slot.owner {
        // The boot CPU's first stack is that of the thread `main`, which runs anywhere.
        Owner::Cpu(owner, purpose) => {
            (owner == cpu || owner == CpuId::BOOT) && purpose == Use::Main
        }
        Owner::Thread(_) => true,
    };
    kassert!(fits, "{:?} on cpu{cpu}", slot.owner);
    kassert!(
        slot.stack.bottom <= address && address < slot.stack.top,
        "{address:#x}: {slot:?}"
    );
    Ok(())
}

/// The pages of a slot below its stack.
fn guard(stack: Stack) -> core::ops::Range<u64> {
    stack.top - STACK_SLOT..stack.bottom
}

fn mapped_and_guarded(_: &mut Ctx, cpu: CpuId) -> Outcome {
    for purpose in USES {
        let stack = stacks::locate(purpose, cpu);
        kassert!(!guard(stack).is_empty());
        for address in (stack.bottom..stack.top).step_by(PAGE_SIZE as usize) {
            let page = kassert_ok!(paging::lookup(address), "{purpose:?} at {address:#x}");
            kassert!(page.writable && !page.executable, "{purpose:?}: {page:?}");
        }
        for address in guard(stack).step_by(PAGE_SIZE as usize) {
            kassert_eq!(paging::lookup(address), None, "{purpose:?} at {address:#x}");
        }
    }
    Ok(())
}

fn guard_faults(_: &mut Ctx, cpu: CpuId) -> Outcome {
    for purpose in USES {
        let stack = stacks::locate(purpose, cpu);
        let below = stack.bottom - 8;
        kassert!(probe::write_u8(below as usize, 1).is_err(), "{purpose:?}");
        kassert!(
            probe::read_u64(stack.bottom as usize).is_ok(),
            "{purpose:?}"
        );
        kassert!(kassert_ok!(stacks::slot_of(below)).is_guard(below));
    }
    Ok(())
}

/// Addresses are told apart by slot, up to the last byte.
fn slots(_: &mut Ctx) -> Outcome {
    for cpu in smp::online() {
        for purpose in USES {
            let stack = stacks::locate(purpose, cpu);
            for address in [guard(stack).start, stack.bottom, stack.top - 1] {
                let slot = kassert_ok!(stacks::slot_of(address), "{address:#x}");
                kassert_eq!((slot.owner, slot.stack), (Owner::Cpu(cpu, purpose), stack));
                kassert_eq!(slot.is_guard(address), address < stack.bottom);
            }
            kassert_eq!(
                stacks::is_interrupt_stack(stack.bottom),
                purpose != Use::Main
            );
        }
    }
    kassert_eq!(stacks::slot_of(0), None);
    kassert_eq!(stacks::slot_of(u64::MAX), None);
    Ok(())
}
