//! Whether all that the page allocator says of itself agrees: descriptors, lists, counts.

use core::fmt;

use crate::{
    frame::{MAX_ORDER, ORDERS, Pfn, State, USES, Word},
    machine::Machine,
    mm::{Counts, Mm},
    zone::Zone,
};

/// What does not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A frame's word does not fit into its place: not a tail in a block, not a head.
    Frame(Pfn, Word),
    /// Two free buddies were not merged.
    Unmerged(Pfn, usize),
    /// The free blocks of an order: descriptors, and the count of the list.
    Blocks(usize, u32, u32),
    /// A list has a block that is not marked free.
    List(Pfn, Word),
    /// Frames of a state by the descriptors, and by the counts.
    Count(State, u64, u64),
    /// What the counts add up to, and what the zone has.
    Managed(u64, u64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(pfn, word) => write!(f, "frame {pfn} is {word:?} in the wrong place"),
            Self::Unmerged(pfn, order) => {
                write!(f, "frame {pfn} of order {order} has a free buddy")
            }
            Self::Blocks(order, found, count) => {
                write!(f, "{found} free blocks of order {order}, counted {count}")
            }
            Self::List(pfn, word) => write!(f, "frame {pfn} is {word:?} in a list of free blocks"),
            Self::Count(state, found, count) => {
                write!(f, "{found} frames are {state}, counted {count}")
            }
            Self::Managed(sum, managed) => {
                write!(f, "the counts add up to {sum} frames of {managed}")
            }
        }
    }
}

impl core::error::Error for Fault {}

/// What the descriptors of a zone say.
#[derive(Default)]
struct Found {
    blocks: [u32; ORDERS],
    listed: u64,
    used: [u64; USES],
}

impl<M: Machine> Mm<M> {
    /// Walks all descriptors and lists and compares them with the counts. Nobody may allocate
    /// or free meanwhile, or it finds faults that there are not. Not in NMI.
    ///
    /// # Errors
    ///
    /// The first [`Fault`].
    pub fn audit(&self) -> Result<(), Fault> {
        for zone in self.zones() {
            let counts = self.zone_counts(zone);
            let found = self.walk(zone)?;
            self.walk_lists(zone)?;
            compare(&found, &counts)?;
        }
        Ok(())
    }

    fn walk(&self, zone: &Zone<M>) -> Result<Found, Fault> {
        let mut found = Found::default();
        let mut at = zone.start();
        while at < zone.end() {
            let Some(frame) = self.map.get(at) else { break };
            let word = frame.word();
            let order = word.order();
            let fits = word.zone() == zone.index()
                && order <= MAX_ORDER
                && at.0.is_multiple_of(1 << order);
            match word.state() {
                State::Hole | State::Reserved | State::Boot => {
                    at = at.add(1);
                    continue;
                }
                // The rest of another node's memory may lie between.
                _ if word.zone() != zone.index() => {
                    at = at.add(1);
                    continue;
                }
                State::Tail => return Err(Fault::Frame(at, word)),
                _ if !fits => return Err(Fault::Frame(at, word)),
                State::Free => {
                    found.blocks[order] += 1;
                    let buddy = Pfn(at.0 ^ 1 << order);
                    let whole = Word::new(State::Free, order, zone.index());
                    if order < MAX_ORDER
                        && self
                            .map
                            .get(buddy)
                            .is_some_and(|frame| frame.word() == whole)
                    {
                        return Err(Fault::Unmerged(at, order));
                    }
                }
                State::Listed => found.listed += 1 << order,
                State::Later | State::Bad => {}
                State::Used(usage) => found.used[usage as usize] += 1 << order,
            }
            // Most of memory lies in free blocks: their tails are what takes time here.
            let tail = Word::new(State::Tail, order, zone.index());
            let Some(tails) = self.map.several(at.add(1), (1 << order) - 1) else {
                return Err(Fault::Frame(at, word));
            };
            let bad = match word.state() {
                State::Free => tails.iter().find(|inner| inner.word().is_other(tail)),
                _ => tails.iter().find(|inner| inner.word() != tail),
            };
            if let Some(bad) = bad {
                return Err(Fault::Frame(self.map.pfn_of(bad), bad.word()));
            }
            at = at.add(1 << order);
        }
        Ok(found)
    }

    fn walk_lists(&self, zone: &Zone<M>) -> Result<(), Fault> {
        let locked = zone.lock(&self.map);
        let mut fault = None;
        for order in 0..ORDERS {
            let whole = Word::new(State::Free, order, zone.index());
            locked.for_each_free(order, |pfn| {
                let word = self.map.get(pfn).map(crate::Frame::word);
                if let Some(word) = word.filter(|word| *word != whole) {
                    fault.get_or_insert(Fault::List(pfn, word));
                }
            });
        }
        fault.map_or(Ok(()), Err)
    }
}

fn compare(found: &Found, counts: &Counts) -> Result<(), Fault> {
    for (order, (&found, &count)) in found.blocks.iter().zip(&counts.blocks).enumerate() {
        if found != count {
            return Err(Fault::Blocks(order, found, count));
        }
    }
    let uses = crate::Use::ALL.map(|usage| {
        (
            State::Used(usage),
            found.used[usage as usize],
            counts.used[usage as usize],
        )
    });
    let listed = (State::Listed, found.listed, counts.listed);
    for (state, found, count) in uses.into_iter().chain([listed]) {
        if found != count {
            return Err(Fault::Count(state, found, count));
        }
    }
    let sum = counts.free + counts.listed + counts.used_frames() + counts.bad;
    if sum != counts.managed {
        return Err(Fault::Managed(sum, counts.managed));
    }
    Ok(())
}
