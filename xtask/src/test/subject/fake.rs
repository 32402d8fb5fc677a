//! Machines made of a list of what is heard of them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::*;

/// What was done to a fake machine.
#[derive(Debug, Default)]
pub struct Done {
    pub nmis: usize,
    pub killed: bool,
    pub written: Vec<u8>,
}

pub struct Fake {
    heard: VecDeque<Heard>,
    after_nmi: VecDeque<Heard>,
    pub done: Rc<RefCell<Done>>,
}

impl Fake {
    /// Prints `text`, then does `last`.
    pub fn new(text: &str, last: Heard) -> Self {
        let lines = text.lines().map(|line| Heard::Line(line.into()));
        Self {
            heard: lines.chain([last]).collect(),
            after_nmi: VecDeque::new(),
            done: Rc::default(),
        }
    }

    /// What it does when it is sent an NMI; without this nothing more is heard.
    pub fn on_nmi(mut self, text: &str, last: Heard) -> Self {
        self.after_nmi = Self::new(text, last).heard;
        self
    }
}

impl Subject for Fake {
    fn next(&mut self) -> Heard {
        self.heard.pop_front().unwrap_or(Heard::Silence)
    }

    fn inject_nmi(&mut self, _: Duration) -> anyhow::Result<()> {
        self.done.borrow_mut().nmis += 1;
        self.heard = std::mem::take(&mut self.after_nmi);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.done.borrow_mut().written.extend_from_slice(bytes);
        Ok(())
    }

    fn kill(&mut self) {
        self.done.borrow_mut().killed = true;
    }

    fn stderr(&mut self) -> String {
        String::new()
    }
}

/// Hands out prepared machines in turn and keeps the command lines.
#[derive(Default)]
pub struct Prepared {
    machines: RefCell<VecDeque<Fake>>,
    pub cmdlines: RefCell<Vec<String>>,
}

impl Prepared {
    pub fn new(machines: impl IntoIterator<Item = Fake>) -> Self {
        Self {
            machines: RefCell::new(machines.into_iter().collect()),
            cmdlines: RefCell::default(),
        }
    }
}

impl Start for Prepared {
    fn start(&self, cmdline: &str) -> anyhow::Result<Box<dyn Subject>> {
        self.cmdlines.borrow_mut().push(cmdline.into());
        let machine = self.machines.borrow_mut().pop_front();
        Ok(Box::new(machine.context("no machine was prepared")?))
    }

    fn symbolize(&self, line: &str) -> String {
        line.replace("kernel_main+0x0", "kernel_main+0x0 at main.rs:1")
    }
}

/// A log that nobody reads, in a file that is not there any more.
pub fn scratch_log() -> Log {
    let path = std::env::temp_dir().join(format!(
        "granary-log-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let log = Log::create(&path).expect("the temporary folder can be written");
    std::fs::remove_file(&path).expect("the log was just made");
    log
}
