//! Whose an address is: page, cache, slab, object, and what the object is just now.
//!
//! [`Slabs::whatis`] takes no lock and no memory, and trusts nothing that it finds: it is also
//! asked in a panic, about registers that may be anything.

use core::{fmt, ops::ControlFlow, ptr::NonNull};

use platform::NodeId;

use super::{
    Flags, KmemCache, Machine, Place, Slab, Slabs,
    debug::{
        self,
        info::{Overwritten, Tracks, bytes_behind},
    },
    look::cookie_of,
    name::Name,
    sheaf::Sheaf,
    walk::At,
    word::Freelist,
};
use crate::{
    frame::{Pfn, State, Use, Word},
    kvfree_rcu::Awaited,
};

/// What an address is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "made where there may be no memory for a box"
)]
pub enum What {
    /// No memory of the direct map.
    Nowhere,
    /// A page that is no slab's: it, the head of its block, and what that is.
    Page(Pfn, Pfn, Word),
    /// A slab whose owner is no cache.
    Orphan(Pfn, usize),
    /// A slab.
    Slab(InSlab),
}

/// An address in a slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InSlab {
    /// The address.
    pub address: usize,
    /// The cache's name.
    pub cache: Name,
    /// Bytes of its objects.
    pub object_size: u32,
    /// The slab's first page.
    pub slab: Pfn,
    /// Its order.
    pub order: usize,
    /// Its node.
    pub node: NodeId,
    /// Where it is.
    pub place: Place,
    /// What its word says.
    pub word: Freelist,
    /// The object; `None`: the address is behind the last one.
    pub object: Option<Object>,
}

/// An object, and where in its place an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its number in its slab.
    pub index: usize,
    /// Where it begins.
    pub begin: usize,
    /// What the address is in.
    pub part: Part,
    /// Where the object is; `None`: it is allocated.
    pub at: Option<At>,
    /// What it waits for there, if it [waits](At::Waiting).
    pub awaited: Option<Awaited>,
    /// It was found damaged while it was free, and is never used again (debug caches).
    pub isolated: bool,
    /// Who allocated and freed it last, where that is kept.
    pub tracks: Option<Tracks>,
}

/// A part of an object's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The object, with this byte.
    Byte(usize),
    /// Behind what was asked for, and still the user's.
    Rounding,
    /// The red zone before it.
    LeftRedZone,
    /// The red zone behind it.
    RightRedZone,
    /// The link to the next free object, where it is not in the object.
    Link,
    /// What debugging keeps.
    Tracks,
    /// Nothing.
    Padding,
}

impl<M: Machine> Slabs<M> {
    /// Whose `address` is. Any context. May be out of date at once.
    ///
    /// # Safety
    ///
    /// Nobody allocates, frees, creates or destroys caches meanwhile: the other CPUs are stopped, wherever
    /// they are.
    pub unsafe fn whatis(&self, address: usize) -> What {
        let map = *self.mm().frames();
        let Some(pfn) = map.pfn_of_address(address) else {
            return What::Nowhere;
        };
        let Some((head, word)) = map.head_of(pfn) else {
            return What::Nowhere;
        };
        if word.state() != State::Used(Use::Slab) {
            return What::Page(pfn, head, word);
        }
        // SAFETY: the head of a slab.
        let slab = unsafe { Slab::<M>::at(map, head) };
        let owner = slab.owner();
        // SAFETY: no cache goes.
        let mut caches = unsafe { self.look_at_caches() };
        match caches.find(|cache| Some(*cache) == owner) {
            // SAFETY: one of the caches, and as the caller promises.
            Some(cache) => What::Slab(unsafe { cache.as_ref().whatis_in(slab, address) }),
            None => What::Orphan(head, owner.map_or(0, |owner| owner.addr().get())),
        }
    }
}

impl<M: Machine> KmemCache<M> {
    /// # Safety
    ///
    /// As [`Slabs::whatis`]; `address` is in `slab`, which is this cache's.
    unsafe fn whatis_in(&self, slab: Slab<M>, address: usize) -> InSlab {
        let word = slab.freelist().load();
        let offset = address - slab.base().addr().get();
        let size = (self.layout().size as usize).max(1);
        let index = offset / size;
        // SAFETY: as the caller promises.
        let object =
            (index < word.objects()).then(|| unsafe { self.object_here(slab, index, offset) });
        InSlab {
            address,
            cache: *self.name(),
            object_size: self.layout().object_size,
            slab: slab.pfn(),
            order: slab.order(),
            node: slab.frame().word().zone().node(),
            place: slab.place(),
            word,
            object,
        }
    }

    /// The object of an index, for an address so many bytes into the slab.
    unsafe fn object_here(&self, slab: Slab<M>, index: usize, offset: usize) -> Object {
        let layout = self.layout();
        let begin = self.object_at(slab, index);
        // SAFETY: as the caller promises; the object lies in the slab.
        let (place, tracks) = unsafe { (self.place_of(slab, index, begin), self.tracks_of(begin)) };
        let (at, awaited) = place.unzip();
        let isolated = self.flags().intersects(Flags::DEBUG)
            // SAFETY: an object of a debug cache.
            && unsafe { self.state_of(begin) } == Ok(debug::info::State::Isolated);
        Object {
            index,
            begin: begin.addr().get(),
            part: self.part_at(offset - index * layout.size as usize),
            at,
            awaited: awaited.flatten(),
            isolated,
            tracks,
        }
    }

    /// What is so many bytes into an object's place.
    fn part_at(&self, offset: usize) -> Part {
        let layout = self.layout();
        let [object, usable, left, link, tracks] = [
            layout.object_size,
            layout.usable,
            layout.red_left,
            layout.link,
            layout.tracks,
        ]
        .map(|bytes| bytes as usize);
        let Some(byte) = offset.checked_sub(left) else {
            return Part::LeftRedZone;
        };
        let end = [usable.max(object), link, tracks];
        if byte < object {
            Part::Byte(byte)
        } else if byte < usable {
            Part::Rounding
        } else if link >= usable && (link..link + 8).contains(&byte) {
            Part::Link
        } else if tracks > 0 && (tracks..tracks + bytes_behind(self.flags())).contains(&byte) {
            Part::Tracks
        } else if self.flags().contains(Flags::RED_ZONE) && end[1..].iter().any(|end| byte < *end) {
            Part::RightRedZone
        } else {
            Part::Padding
        }
    }

    /// Where an object is, and what it waits for there; `None`: allocated.
    unsafe fn place_of(
        &self,
        slab: Slab<M>,
        index: usize,
        object: NonNull<u8>,
    ) -> Option<(At, Option<Awaited>)> {
        let word = slab.freelist().load();
        let mut link = word.head();
        // No more than there are, should the links be a circle.
        for _ in 0..word.objects() {
            if link.is_none() || link.index() >= word.objects() {
                break;
            }
            if link.index() == index {
                return Some((At::Freelist, None));
            }
            // SAFETY: the cache's slab; what is read is checked above.
            match unsafe { self.read_link(slab, link.index()) } {
                Ok(next) => link = next,
                Err(_) => break,
            }
        }
        // SAFETY: nobody changes anything, here and below.
        let found = unsafe {
            self.for_each_sheaf(|at, sheaf| match sheaf {
                Ok(sheaf) if sheaf.as_ref().len <= sheaf.as_ref().capacity => {
                    let holds = Sheaf::filled(sheaf).contains(&object);
                    if holds {
                        ControlFlow::Break((at, cookie_of(sheaf)))
                    } else {
                        ControlFlow::Continue(())
                    }
                }
                _ => ControlFlow::Continue(()),
            })
        };
        let awaited = |cpu, cookie| self.slabs().kvfree_rcu.lane(cpu).awaited(cookie);
        if let ControlFlow::Break((at, cookie)) = found {
            let waits = match at {
                At::Waiting(cpu) => cookie.map(|cookie| awaited(cpu, Some(cookie))),
                _ => None,
            };
            return Some((at, waits));
        }
        let mut at = None;
        // SAFETY: as above.
        unsafe {
            self.slabs().for_each_deferred(|cpu, deferred| {
                if deferred == object {
                    at = Some((At::Deferred(cpu), None));
                }
            });
            self.slabs().for_each_loose(|cpu, waiting, cookie| {
                if waiting == object {
                    at = Some((At::Waiting(cpu), Some(awaited(cpu, cookie))));
                }
            });
            self.slabs().for_each_quarantined(|cpu, entry| {
                if entry.object == object {
                    at = Some((At::Quarantined(cpu), None));
                }
            });
        }
        at
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => f.write_str("no memory of the direct map"),
            Self::Page(page, head, word) => write!(
                f,
                "page {page} of a block of order {} from frame {head}: {}",
                word.order(),
                word.state()
            ),
            Self::Orphan(slab, owner) => {
                write!(f, "slab {slab}, whose owner {owner:#x} is no cache")
            }
            Self::Slab(slab) => slab.fmt(f),
        }
    }
}

impl fmt::Display for InSlab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.object {
            Some(object) => write!(
                f,
                "{} of object {} ({:#x}, {} bytes)",
                object.part, object.index, object.begin, self.object_size
            )?,
            None => f.write_str("behind the last object")?,
        }
        write!(
            f,
            " of cache {}\nslab {} of order {} on node {}: {} of {} in use, {}",
            self.cache,
            self.slab,
            self.order,
            self.node,
            self.word.in_use(),
            self.word.objects(),
            self.place.name()
        )?;
        let Some(object) = &self.object else {
            return Ok(());
        };
        match object.at {
            None if object.isolated => f.write_str("\nisolated: found damaged")?,
            None => f.write_str("\nallocated")?,
            Some(at) => write!(f, "\nfree: {at}")?,
        }
        if let Some(awaited) = object.awaited {
            write!(f, " ({awaited})")?;
        }
        object.tracks.map_or(Ok(()), |tracks| show(&tracks, f))
    }
}

/// A line for each track.
fn show(tracks: &Tracks, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (track, name) in tracks.iter().zip(["allocated", "freed"]) {
        let track = match track {
            Ok(None) => continue,
            Ok(Some(track)) => track,
            Err(Overwritten) => {
                write!(f, "\n  {name}: the track was overwritten")?;
                continue;
            }
        };
        let event = &track.event;
        write!(
            f,
            "\n  {name} at {} by thread {} on cpu{} at {} ns:",
            track.caller, event.thread, event.cpu, event.at_ns
        )?;
        for address in event.callers() {
            write!(f, " {address:#x}")?;
        }
    }
    Ok(())
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte(byte) => write!(f, "byte {byte}"),
            Self::Rounding => f.write_str("rounding"),
            Self::LeftRedZone => f.write_str("left red zone"),
            Self::RightRedZone => f.write_str("right red zone"),
            Self::Link => f.write_str("link"),
            Self::Tracks => f.write_str("tracks"),
            Self::Padding => f.write_str("padding"),
        }
    }
}
