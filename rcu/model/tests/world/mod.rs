//! What the models have in common: something that is found, unpublished and freed.
#![allow(dead_code, reason = "every model uses a part of it")]
#![allow(
    clippy::arc_with_non_send_sync,
    reason = "the checker's threads are coroutines of one thread"
)]

use std::sync::Arc;

use platform::{
    Platform,
    model::Model,
    sync::{AtomicBool, Cell, Ordering},
};
use rcu::{
    Config, Cookie, Rcu,
    model::{begin_cpu, end_cpu, engine, switch},
};

/// An engine, and something that can be found while it is published.
pub struct World {
    pub rcu: Arc<Rcu<Model>>,
    published: AtomicBool,
    object: Cell<u32>,
}

impl World {
    /// CPU 0, which runs this, is not idle from here on. Two CPUs on each leaf.
    pub fn new(preemptible: bool) -> Arc<Self> {
        Self::with(preemptible, Config::default())
    }

    /// The same, with grace periods for callbacks back to back: time stands still.
    pub fn back_to_back() -> Arc<Self> {
        let config = Config {
            min_interval_ns: 0,
            ..Config::default()
        };
        Self::with(false, config)
    }

    fn with(preemptible: bool, config: Config) -> Arc<Self> {
        let config = Config {
            leaf_fanout: 2,
            fanout: 2,
            ..config
        };
        let rcu = engine(preemptible, config);
        begin_cpu();
        Arc::new(Self {
            rcu,
            published: AtomicBool::new(true),
            object: Cell::new(1),
        })
    }

    /// In a section: whether it is found.
    pub fn find(&self) -> bool {
        // Acquire, as a reader that follows a pointer.
        self.published.load(Ordering::Acquire)
    }

    /// In the section in which it was found, or not.
    pub fn look(&self, found: bool) {
        if found {
            // SAFETY: not freed while it can be found; the model checks it.
            assert_eq!(unsafe { *self.object.shared().get() }, 1);
        }
    }

    /// A section.
    pub fn read(&self) {
        let _section = rcu::read::<Model>();
        self.look(self.find());
    }

    /// A CPU that has a section before it changes threads and one after it, between two idle
    /// times.
    pub fn read_and_switch(&self) {
        begin_cpu();
        self.read();
        switch(&self.rcu);
        self.read();
        end_cpu();
    }

    pub fn unpublish(&self) {
        // Relaxed: what orders it is the engine's.
        self.published.store(false, Ordering::Relaxed);
    }

    /// Frees it, if the cookie is ripe, which was taken after it was unpublished.
    pub fn free_if_ripe(&self, cookie: Cookie) -> bool {
        let ripe = self.rcu.poll(cookie);
        if ripe {
            // SAFETY: nobody reads it any more; the model checks it.
            unsafe { *self.object.exclusive().get_mut() = 0 };
        }
        ripe
    }

    /// The time for a look at CPUs that have not reported comes, and they have been idle: the
    /// grace period of the cookie ends.
    pub fn must_ripen(&self, cookie: Cookie) {
        Model::park_until(Model::now_ns() + 5_000_000);
        self.rcu.make_by_hand();
        assert!(self.rcu.poll(cookie), "the grace period does not end");
    }
}
