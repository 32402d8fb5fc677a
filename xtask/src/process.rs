//! Children that do not outlive this process.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

/// Which process group a child belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// That of xtask: the terminal's Ctrl-C reaches it too. It is asked to end
    /// (`SIGTERM`) when xtask dies.
    Shared,
    /// One of its own, out of the terminal's reach. It is killed when xtask dies.
    Own,
}

struct Request {
    command: Command,
    reply: Sender<io::Result<Child>>,
}

/// Starts `command` such that it dies with this process, however that ends.
///
/// The kernel sends the signal when the *thread* ends that started the child, so
/// all are started by one thread that lives as long as the process.
pub fn spawn(mut command: Command, group: Group) -> io::Result<Child> {
    static KEEPER: OnceLock<Sender<Request>> = OnceLock::new();
    let signal = match group {
        Group::Shared => Signal::TERM,
        Group::Own => {
            command.process_group(0);
            Signal::KILL
        }
    };
    let parent = getpid();
    // SAFETY: the closure runs in the forked child before exec, where only
    // async-signal-safe things are allowed: it makes system calls, and neither
    // allocates nor locks.
    unsafe { command.pre_exec(move || die_with(parent, signal)) };

    let keeper = KEEPER.get_or_init(|| {
        let (sender, requests) = channel::<Request>();
        thread::Builder::new()
            .name("spawn".into())
            .spawn(move || {
                for mut request in requests {
                    // Nobody waits for the reply only if its thread has panicked.
                    let _ = request.reply.send(request.command.spawn());
                }
            })
            .expect("a thread can be started");
        sender
    });
    let (reply, answer) = channel();
    keeper
        .send(Request { command, reply })
        .map_err(io::Error::other)?;
    answer.recv().map_err(io::Error::other)?
}

/// In the child: asks for a signal at the parent's death, and makes sure that it
/// has not died before that.
fn die_with(parent: Pid, signal: Signal) -> io::Result<()> {
    set_parent_process_death_signal(Some(signal))?;
    if getppid() != Some(parent) {
        return Err(io::Error::from(rustix::io::Errno::SRCH));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let mut child = thread::spawn(|| {
            let mut command = Command::new("sleep");
            command.arg("60");
            spawn(command, Group::Own).unwrap()
        })
        .join()
        .unwrap();
        thread::sleep(std::time::Duration::from_millis(100));
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
