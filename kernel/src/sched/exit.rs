//! The end of a thread.

use super::{
    park_until, switch, table,
    thread::{Thread, ThreadRef},
    unpark,
};

/// A CPU has left a thread that is over. Its stack goes back first, then whoever joins it is
/// told: who has joined a thread finds its stack returned. Interrupts off.
pub(super) fn bury(thread: &Thread) {
    let last = table::remove(thread);
    // Only the last reference could drop the stack, and handles may outlive the thread. So
    // it is taken out.
    // SAFETY: no CPU is on the stack any more, and only this one buries the thread.
    unsafe { drop(last.take_stack()) };
    let joiner = {
        let mut end = last.end.lock();
        end.over = true;
        end.joiner.take()
    };
    if let Some(joiner) = joiner {
        unpark(&joiner);
    }
}

/// Waits until a thread is over, at most until `deadline_ns`. Whether it is.
pub(super) fn wait_for(thread: &ThreadRef, deadline_ns: Option<u64>) -> bool {
    loop {
        {
            let mut end = thread.end.lock();
            if end.over {
                return true;
            }
            if deadline_ns.is_some_and(|deadline| crate::time::now_ns() >= deadline) {
                end.joiner = None;
                return false;
            }
            if end.joiner.is_none() {
                end.joiner = Some(super::current_ref());
            }
        }
        match deadline_ns {
            None => switch::park(),
            Some(deadline) => park_until(deadline),
        }
    }
}
