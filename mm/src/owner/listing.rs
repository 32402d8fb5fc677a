//! What is recorded, as text: every block, the blocks by who allocated them, leaks.

use core::{fmt, sync::atomic::Ordering};

use super::{DEPTH, Event, Owners, Record, Stack};
use crate::{
    frame::{Pfn, Use},
    machine::Machine,
};

/// Writes a return address as people read it: by its function, say.
pub type Symbols<'a> = &'a dyn Fn(&mut dyn fmt::Write, usize) -> fmt::Result;

/// Blocks that were allocated for the same use by the same callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The callers.
    pub stack: Stack,
    /// What the blocks are used for.
    pub usage: Option<Use>,
    /// How many blocks. 0: an empty place in the table of groups.
    pub blocks: u64,
    /// How many frames they have together.
    pub pages: u64,
    /// The first of the blocks.
    pub first: Pfn,
    /// When the oldest was allocated.
    pub oldest_ns: u64,
    /// When the newest was.
    pub newest_ns: u64,
}

/// Blocks in use, by who allocated them.
#[derive(Debug)]
pub struct Groups<'a> {
    /// Those with most frames first.
    pub groups: &'a [Group],
    /// Frames of blocks that the table had no room for.
    pub left_out: u64,
}

impl Group {
    /// An empty place.
    pub const EMPTY: Self = Self {
        stack: [0; DEPTH],
        usage: None,
        blocks: 0,
        pages: 0,
        first: Pfn(0),
        oldest_ns: 0,
        newest_ns: 0,
    };

    fn has(&self, event: &Event, usage: Option<Use>) -> bool {
        self.stack == event.stack && self.usage == usage
    }

    fn add(&mut self, pfn: Pfn, record: &Record, event: &Event) {
        if self.blocks == 0 {
            *self = Self {
                stack: event.stack,
                usage: record.usage,
                blocks: 0,
                pages: 0,
                first: pfn,
                oldest_ns: event.at_ns,
                newest_ns: event.at_ns,
            };
        }
        self.blocks += 1;
        self.pages += record.pages();
        self.oldest_ns = self.oldest_ns.min(event.at_ns);
        self.newest_ns = self.newest_ns.max(event.at_ns);
    }
}

/// FNV-1a over the stack.
fn hash(stack: &Stack) -> usize {
    stack
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, address| {
            (hash ^ *address as u64).wrapping_mul(0x0100_0000_01b3)
        }) as usize
}

impl<M: Machine> Owners<M> {
    /// The blocks in use that were allocated at `since_ns` or later, by who allocated them.
    /// `room` is where they are put together; what was in it is lost.
    pub fn group<'a>(&self, since_ns: u64, room: &'a mut [Group]) -> Groups<'a> {
        room.fill(Group::EMPTY);
        let mut left_out = 0;
        for (pfn, record) in self.blocks() {
            let Some(event) = record.allocated else {
                continue;
            };
            if event.at_ns < since_ns {
                continue;
            }
            let len = room.len();
            // The upper bits of the product are the best mixed.
            let start = (hash(&event.stack) >> 16) % len.max(1);
            let place = (0..len)
                .map(|step| (start + step) % len)
                .find(|at| room[*at].blocks == 0 || room[*at].has(&event, record.usage));
            match place {
                Some(place) => room[place].add(pfn, &record, &event),
                None => left_out += record.pages(),
            }
        }
        room.sort_unstable_by_key(|group| (u64::MAX - group.pages, group.first));
        let used = room.iter().filter(|group| group.blocks > 0).count();
        Groups {
            groups: &room[..used],
            left_out,
        }
    }

    /// What was allocated since [`mark`](Self::mark) was last called and is in use still:
    /// [`group`](Self::group) from there.
    pub fn leaks<'a>(&self, room: &'a mut [Group]) -> Groups<'a> {
        self.group(self.marked_ns.load(Ordering::Relaxed), room)
    }

    /// Every block in use, as in Linux's `page_owner` file, with its age.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_blocks(&self, out: &mut dyn fmt::Write, symbols: Symbols<'_>) -> fmt::Result {
        let now = M::now_ns();
        for (pfn, record) in self.blocks() {
            let Some(event) = record.allocated else {
                continue;
            };
            writeln!(
                out,
                "Page allocated via order {}, mask {:#x}({}), pid {}, cpu {}, ts {} ns, age {} ns",
                record.order,
                record.gfp.bits(),
                record.gfp,
                event.thread,
                event.cpu,
                event.at_ns,
                now.saturating_sub(event.at_ns)
            )?;
            let usage = record.usage.map_or("unknown", Use::name);
            writeln!(out, "PFN {pfn} use {usage}")?;
            write_stack(out, &event.stack, symbols)?;
            writeln!(out)?;
        }
        Ok(())
    }
}

impl Groups<'_> {
    /// As in Linux's `page_owner_stacks` file, with the use and the age of the oldest and
    /// the newest block at `now_ns`.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write(
        &self,
        out: &mut dyn fmt::Write,
        now_ns: u64,
        symbols: Symbols<'_>,
    ) -> fmt::Result {
        for group in self.groups {
            write_stack(out, &group.stack, symbols)?;
            writeln!(
                out,
                "{} in {} blocks from PFN {}, age {} to {} ns",
                group.usage.map_or("unknown", Use::name),
                group.blocks,
                group.first,
                now_ns.saturating_sub(group.newest_ns),
                now_ns.saturating_sub(group.oldest_ns),
            )?;
            writeln!(out, "nr_base_pages: {}\n", group.pages)?;
        }
        if self.left_out > 0 {
            writeln!(out, "and {} pages of more allocators", self.left_out)?;
        }
        Ok(())
    }

    /// Frames of all blocks.
    pub fn pages(&self) -> u64 {
        self.groups.iter().map(|group| group.pages).sum::<u64>() + self.left_out
    }
}

fn write_stack(out: &mut dyn fmt::Write, stack: &Stack, symbols: Symbols<'_>) -> fmt::Result {
    for address in stack.iter().take_while(|address| **address != 0) {
        out.write_char(' ')?;
        symbols(out, *address)?;
        out.write_char('\n')?;
    }
    Ok(())
}
