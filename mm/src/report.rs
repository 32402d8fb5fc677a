//! What is said when memory is used wrongly, or there is none.

use core::{fmt, panic::Location};

use crate::{
    frame::{Pfn, State, Use},
    owner::Record,
};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A block is freed that is free.
    DoubleFree,
    /// A block is freed with another order than it has.
    WrongOrder,
    /// A block is freed by one who is not its owner, by its use.
    WrongUse,
    /// A tail is freed instead of its block.
    NotHead,
    /// What is freed was never allocated: reserved, boot memory, a hole, no memory at all.
    Foreign,
    /// A free page was written to.
    Poison,
    /// A free page is not marked as it should be: its descriptor was overwritten.
    Descriptor,
    /// There is no memory.
    OutOfMemory,
    /// An allocation was made to fail ([`fault`](crate::fault)): nothing is wrong.
    Injected,
    /// A vmalloc address is freed that is not that of an area.
    BadVmallocAddress,
    /// Per-CPU memory is freed that was not allocated so.
    BadPerCpuAddress,
    /// Bytes beside an object of a debug cache were written to.
    SlabRedZone,
    /// A free object of a debug cache was written to.
    SlabPoison,
    /// An object in quarantine was written to.
    SlabQuarantine,
    /// Bytes of a slab that nobody uses were written to.
    SlabPadding,
    /// What a debug cache keeps of an object was written to.
    SlabInfo,
    /// A slab's freelist is damaged.
    SlabFreelist,
    /// An object is freed that is free.
    SlabDoubleFree,
    /// What is freed to a cache is no object.
    SlabWrongFree,
    /// What is freed to a cache is another one's.
    SlabWrongCache,
    /// Memory is freed by kfree that is not kmalloc's.
    BadKmallocAddress,
    /// A slab cache is destroyed while an object of it is in use.
    SlabLeak,
}

impl Kind {
    /// What it is called in reports.
    pub const fn title(self) -> &'static str {
        match self {
            Self::DoubleFree => "double free of pages",
            Self::WrongOrder => "free of pages with the wrong order",
            Self::WrongUse => "free of pages that belong to another user",
            Self::NotHead => "free of a part of a block",
            Self::Foreign => "free of what was never allocated",
            Self::Poison => "free page was written to",
            Self::Descriptor => "frame descriptor is damaged",
            Self::OutOfMemory => "page allocation failure",
            Self::Injected => "an allocation is made to fail",
            Self::BadVmallocAddress => "vfree of a bad address",
            Self::BadPerCpuAddress => "free of a bad per-CPU address",
            Self::SlabRedZone => "a slab object's red zone was written to",
            Self::SlabPoison => "a free slab object was written to",
            Self::SlabQuarantine => "a slab object in quarantine was written to",
            Self::SlabPadding => "padding of a slab was written to",
            Self::SlabInfo => "what is kept of a slab object was written to",
            Self::SlabFreelist => "a slab's freelist is damaged",
            Self::SlabDoubleFree => "double free of a slab object",
            Self::SlabWrongFree => "free of what is no slab object",
            Self::SlabWrongCache => "free of an object of another cache",
            Self::BadKmallocAddress => "kfree of a bad address",
            Self::SlabLeak => "slab cache destroyed with an object in use",
        }
    }
}

/// A report: what, where, expected, found, who.
pub struct Report<'a> {
    /// What is wrong.
    pub kind: Kind,
    /// The frame that it is about.
    pub frame: Option<Pfn>,
    /// What was expected there and what was found, in words.
    pub details: fmt::Arguments<'a>,
    /// Who asked for what went wrong.
    pub caller: Option<&'static Location<'static>>,
    /// Who allocated and freed the frame, if that is being recorded.
    pub owner: Option<Record>,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.title())?;
        if let Some(frame) = self.frame {
            write!(f, ": frame {frame} at {:#x}", frame.phys())?;
        }
        if let Some(caller) = self.caller {
            write!(f, ", asked for at {caller}")?;
        }
        write!(f, ": {}", self.details)?;
        if let Some(owner) = &self.owner {
            write!(f, "\n{owner}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a free was refused, by what the frame is.
pub(crate) fn wrong_free(state: State, order: usize, usage: Use, wanted: usize) -> Kind {
    match state {
        State::Free | State::Listed | State::Later => Kind::DoubleFree,
        State::Tail => Kind::NotHead,
        State::Used(used) if used != usage => Kind::WrongUse,
        State::Used(_) if order != wanted => Kind::WrongOrder,
        State::Used(_) | State::Bad => Kind::Descriptor,
        State::Hole | State::Reserved | State::Boot => Kind::Foreign,
    }
}
