//! Where other CPUs are, whatever they do: an NMI makes each write down the thread, the
//! preempt count and the stack that it came upon, and go on. Who asked prints it, one CPU
//! after the other, so nothing is mixed up, and a CPU that does not answer is said to.
//!
//! Each CPU has a slot, and one asker at a time uses them.
//!
//! | state of a slot | left by | to |
//! |---|---|---|
//! | free | the asker, which then sends an NMI | asked |
//! | asked | the CPU's NMI | writing |
//! | | the asker, tired of waiting | free |
//! | writing | the same NMI, done | answered |
//! | answered | the asker, which has read it, or (it came too late) a later one | free |
//!
//! A slot also counts the NMIs that are owed to it, so that one which comes when nobody
//! waits for it any more is not taken for an operator's. (Two that are sent may come as one,
//! and a reset swallows what is on its way: then the next stray one goes unnoticed.)
//!
//! A CPU that does not answer costs an asker the time to wait, and no more. The asker may have
//! interrupts off; it sends from task or interrupt context, since an NMI must not (see
//! [`apic`]).

use core::{
    cell::UnsafeCell,
    fmt,
    sync::atomic::{AtomicBool, AtomicU8, Ordering},
};

use arrayvec::{ArrayString, ArrayVec};
use platform::{Context, CpuId, CpuMask, MAX_CPUS};

use super::{
    apic,
    backtrace::{self, MAX_FRAMES, Start},
    interrupts::TrapFrame,
    preempt,
};
use crate::{
    boot,
    sched::{self, NAME_LEN, Pinned},
    smp, symbols, time,
};

/// How long all answers are waited for. Under emulation the host may keep a CPU that long.
const PATIENCE_NS: u64 = 2_000_000_000;

const FREE: u8 = 0;
const ASKED: u8 = 1;
const WRITING: u8 = 2;
const ANSWERED: u8 = 3;
/// Most NMIs that are owed.
const MOST_OWED: u8 = 2;

/// What a CPU was doing.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Number and name of its thread; `None`: it has none yet.
    thread: Option<(u32, ArrayString<NAME_LEN>)>,
    /// Its preempt count.
    preempt: u32,
    frames: Frames,
}

/// Addresses of a stack, innermost first; all but the first are return addresses. Prints one
/// a line, as in a panic.
#[derive(Debug, Clone)]
pub struct Frames(ArrayVec<u64, MAX_FRAMES>);

impl Frames {
    const NONE: Self = Self(ArrayVec::new_const());

    /// What lies from `start` outwards. Any context.
    pub fn from(start: Start) -> Self {
        let mut frames = Self::NONE;
        frames.fill(start);
        frames
    }

    fn fill(&mut self, start: Start) {
        self.0.clear();
        backtrace::walk(start, |address| _ = self.0.try_push(address));
    }
}

impl fmt::Display for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, &address) in self.0.iter().enumerate() {
            // A return address is behind its call; the call itself names the right line.
            let inside = if number == 0 { address } else { address - 1 };
            match symbols::resolve(inside) {
                Some(symbol) => writeln!(f, "  #{number} {inside:#018x} {symbol}")?,
                None => writeln!(f, "  #{number} {inside:#018x} ?")?,
            }
        }
        Ok(())
    }
}

impl Answer {
    const EMPTY: Self = Self {
        thread: None,
        preempt: 0,
        frames: Frames::NONE,
    };

    fn write(&mut self, start: Start, preempt: u32) {
        self.thread = sched::try_current().map(|thread| (thread.id, thread.name));
        self.preempt = preempt;
        self.frames.fill(start);
    }

    /// Number of the thread that ran, or was interrupted.
    pub fn thread(&self) -> Option<u32> {
        self.thread.as_ref().map(|(id, _)| *id)
    }
}

/// One CPU's part of the output.
struct Part<'a>(CpuId, Option<&'a Answer>);

impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(cpu, answer) = self;
        let Some(answer) = answer else {
            return writeln!(f, "cpu{cpu} does not answer");
        };
        write!(f, "backtrace of cpu{cpu}: ")?;
        match &answer.thread {
            Some((id, name)) => write!(f, "thread {id} '{name}'")?,
            None => f.write_str("no thread")?,
        }
        writeln!(f, " ({})", preempt::describe(answer.preempt))?;
        answer.frames.fmt(f)
    }
}

struct Slot {
    state: AtomicU8,
    /// NMIs that were sent and have not come.
    owed: AtomicU8,
    answer: UnsafeCell<Answer>,
}

// SAFETY: `answer` belongs to the CPU's NMI while the state is `WRITING`, to the asker (one
// at a time, by `ASKING`) while it is `FREE` or `ANSWERED`, to nobody in the others.
unsafe impl Sync for Slot {}

static SLOTS: [Slot; MAX_CPUS] = [const {
    Slot {
        state: AtomicU8::new(FREE),
        owed: AtomicU8::new(0),
        answer: UnsafeCell::new(Answer::EMPTY),
    }
}; MAX_CPUS];

/// Somebody asks.
static ASKING: AtomicBool = AtomicBool::new(false);

impl Slot {
    /// Acquire takes over what the last owner wrote, Release hands over to the next.
    fn go(&self, from: u8, to: u8) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// One more NMI is owed, or one fewer; whether that could be. Relaxed: a number by itself.
    fn owe(&self, change: impl Fn(u8) -> Option<u8>) -> bool {
        let order = Ordering::Relaxed;
        self.owed.fetch_update(order, order, change).is_ok()
    }

    fn is(&self, state: u8) -> bool {
        // Acquire pairs with the Release in `go`.
        self.state.load(Ordering::Acquire) == state
    }
}

/// The NMI handler's part: `start` is what it came upon. Whether somebody had it sent.
pub fn answer(start: Start) -> bool {
    let slot = &SLOTS[smp::this_cpu().index()];
    if slot.go(ASKED, WRITING) {
        // SAFETY: `WRITING`, and NMIs do not nest: the slot is this handler's.
        unsafe { &mut *slot.answer.get() }.write(start, preempt::before_nmi());
        let _ = slot.go(WRITING, ANSWERED);
    }
    slot.owe(|owed| owed.checked_sub(1))
}

/// The answers of some CPUs, while they are kept. One asker at a time has them.
#[derive(Debug)]
pub struct Answers {
    /// Who was asked.
    asked: CpuMask,
    /// Who did answer.
    answered: CpuMask,
    /// The asker's own CPU needs no NMI.
    own: Option<(CpuId, Answer)>,
}

/// Asks those of `cpus` that are online where they are, this one too, and waits for the
/// answers, at most two seconds. `None`: somebody else asks; a thread waits as long for that
/// to end, an interrupt, which may have come upon the other, does not. Task and interrupt
/// context.
pub fn ask(cpus: CpuMask) -> Option<Answers> {
    let patient = preempt::context() == Context::Task;
    let deadline = time::now_ns() + PATIENCE_NS;
    // Acquire, and Release where it is given back: an asker sees the slots as the last one
    // left them.
    while ASKING.swap(true, Ordering::Acquire) {
        if !patient || time::now_ns() > deadline {
            return None;
        }
        core::hint::spin_loop();
    }
    // Its CPU must be the same when the others are asked and when it looks at itself.
    let pinned = Pinned::disable();
    let asked = cpus.intersection(smp::online());
    let cpu = smp::this_cpu();
    let own = asked.contains(cpu).then(|| {
        let mut answer = Answer::EMPTY;
        let frame = TrapFrame::capture();
        let start = Start {
            rip: frame.rip,
            rbp: frame.rbp,
        };
        answer.write(start, preempt::here());
        (cpu, answer)
    });
    let others = asked.without(cpu);
    others.iter().for_each(send_to);
    drop(pinned);
    let deadline = time::now_ns() + PATIENCE_NS;
    let missing = || others.iter().any(|cpu| !SLOTS[cpu.index()].is(ANSWERED));
    while missing() && time::now_ns() <= deadline {
        core::hint::spin_loop();
    }
    let tired_of = |cpu: &CpuId| SLOTS[cpu.index()].go(ASKED, FREE);
    let is_there = |cpu: &CpuId| !tired_of(cpu) && SLOTS[cpu.index()].is(ANSWERED);
    // Who is writing now comes too late.
    let answered = others.iter().filter(is_there).collect();
    Some(Answers {
        asked,
        answered,
        own,
    })
}

fn send_to(cpu: CpuId) {
    let slot = &SLOTS[cpu.index()];
    // One whose answer came too late for the last asker.
    let _ = slot.go(ANSWERED, FREE);
    if slot.go(FREE, ASKED) {
        slot.owe(|owed| (owed < MOST_OWED).then_some(owed + 1));
        apic::send_nmi(boot::acpi().cpus[cpu.index()].apic_id);
    }
}

impl Answers {
    /// What a CPU was doing, if it answered.
    pub fn of(&self, cpu: CpuId) -> Option<&Answer> {
        if let Some((own, answer)) = &self.own
            && *own == cpu
        {
            return Some(answer);
        }
        let slot = &SLOTS[cpu.index()];
        // SAFETY: answered, and `self` is the one asker's.
        (self.answered.contains(cpu)).then(|| unsafe { &*slot.answer.get() })
    }

    /// Prints them in the order of CPUs, each in one piece.
    pub fn print(&self) {
        for cpu in self.asked {
            crate::print!("{}", Part(cpu, self.of(cpu)));
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        for cpu in self.answered {
            let _ = SLOTS[cpu.index()].go(ANSWERED, FREE);
        }
        ASKING.store(false, Ordering::Release);
    }
}
