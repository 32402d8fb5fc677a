//! A hosted machine of 4 CPUs: a lock and a per-CPU counter, with interrupts in between.
//!
//!     cargo run -p granary-platform --example hosted --features hosted

use std::sync::Arc;

use platform::{
    hosted::{Hosted, Machine},
    lock::IrqSpinLock,
    lock_class,
    percpu::Counter,
};

lock_class! { struct Ledger = ("ledger", 10); }

fn main() {
    let machine = Machine::builder().cpus(4).nodes(2).seed(2026).build();
    let ledger = Arc::new(IrqSpinLock::<u64, Hosted, Ledger>::new(0));
    let counter = machine.run(|| Arc::new(Counter::<Hosted>::try_new().expect("no memory")));

    // At one of 16 points (where a lock is taken, for one), as the seed says.
    let (in_irq, counted) = (Arc::clone(&ledger), Arc::clone(&counter));
    let interrupts = machine.on_interrupt(16, move || {
        *in_irq.lock() += 1;
        counted.add(1);
    });

    machine.run_on_all(|_cpu| {
        for _ in 0..10_000 {
            *ledger.lock() += 1;
            counter.add(1);
        }
    });
    drop(interrupts);

    machine.run(move || {
        let sum = *ledger.lock();
        println!("{sum} additions, {} of them by interrupts", sum - 40_000);
        assert_eq!(counter.sum(), sum);
        drop(counter);
    });
}
