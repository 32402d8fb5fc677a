//! Threads that are started with a closure, and waited for.

use std::{
    string::String,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::Builder,
};

use super::{
    here,
    machine::{Inner, LOOK},
    seam::Hosted,
    thread::Thread,
};
use crate::{Platform, Spawn};

/// A started thread.
#[derive(Debug)]
pub struct JoinHandle<T> {
    machine: Arc<Inner>,
    thread: Thread,
    end: Arc<End<T>>,
}

#[derive(Debug)]
struct End<T> {
    state: Mutex<State<T>>,
    /// For those that belong to no machine.
    ended: Condvar,
}

#[derive(Debug)]
struct State<T> {
    result: Option<T>,
    /// The thread of the machine that waits.
    waiter: Option<Thread>,
}

impl<T: Send + 'static> JoinHandle<T> {
    pub(super) fn start(
        machine: &Arc<Inner>,
        spawn: &Spawn,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Self {
        let end = Arc::new(End {
            state: Mutex::new(State {
                result: None,
                waiter: None,
            }),
            ended: Condvar::new(),
        });
        let given = Arc::clone(&end);
        let thread =
            start(machine, spawn, move || given.set(f())).expect("the host cannot start a thread");
        Self {
            machine: Arc::clone(machine),
            thread,
            end,
        }
    }

    /// The thread.
    pub fn thread(&self) -> &Thread {
        &self.thread
    }

    /// Waits for the thread's end. A thread of a machine sleeps, any other blocks.
    ///
    /// # Panics
    ///
    /// If the thread did, or the machine failed otherwise.
    pub fn join(self) -> T {
        let own = here::try_with(|here| here.thread.clone());
        loop {
            let mut state = self.end.lock();
            if let Some(result) = state.result.take() {
                return result;
            }
            match &own {
                Some(own) => {
                    state.waiter = Some(own.clone());
                    drop(state);
                    Hosted::park();
                }
                None => {
                    let waited = self.end.ended.wait_timeout(state, LOOK);
                    drop(waited.unwrap_or_else(PoisonError::into_inner));
                    if self.machine.is_late() {
                        self.machine.hang("to join");
                    }
                }
            }
            self.machine.check_failure();
        }
    }
}

impl<T> End<T> {
    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, result: T) {
        let mut state = self.lock();
        state.result = Some(result);
        let waiter = state.waiter.take();
        drop(state);
        self.ended.notify_all();
        if let Some(waiter) = waiter {
            Hosted::unpark(&waiter);
        }
    }
}

/// Starts a thread that runs `f`.
pub(super) fn start(
    machine: &Arc<Inner>,
    spawn: &Spawn,
    f: impl FnOnce() + Send + 'static,
) -> std::io::Result<Thread> {
    let thread = machine.register(spawn);
    let (inner, own) = (Arc::clone(machine), thread.clone());
    let started = Builder::new()
        .name(String::from(spawn.name))
        .spawn(move || {
            // A panic has been reported, and has failed the machine.
            let _ = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
                inner.enter(&own, f);
            }));
        });
    match started {
        Ok(_) => Ok(thread),
        Err(error) => {
            machine.unregister(&thread);
            Err(error)
        }
    }
}
