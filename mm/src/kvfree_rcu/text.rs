//! What waits for grace periods, as text.
//!
//! [`Batches`] shows every CPU's lane:
//!
//! ```text
//! grace periods that are over: normal 16, expedited 3
//! cpu0: called, 8704 bytes wait, 0 objects taken
//!   kmalloc-64: 122 objects in 2 sheaves (normal 17, expedited 4; not over)
//!   kmalloc-64: 14 objects in 1 sheaf (open)
//!   page: 3 pointers to kmalloc (open)
//!   chain: 5 heads (normal 16, expedited 4; over)
//! cpu1: idle, 0 bytes wait, 0 objects taken
//! ```
//!
//! GDB's `granary batches` says the same (`kernel/gdb/heap/batches.py`).

use core::{fmt, ops::ControlFlow};

use platform::CpuId;
use rcu::PackedCookie;

use super::{
    Lane,
    lane::{Stage, UNNAMED},
    loose::{Batch, Kind},
};
use crate::slab::{KmemCache, Machine, Slabs, walk::At};

/// What something waits for that was given to `kfree_rcu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// Nothing yet: the batch that it is in is open.
    Open,
    /// Nothing yet: the batch was closed before there was an engine of RCU.
    Unnamed,
    /// So many normal grace periods, or so many expedited ones; whether it is over.
    Ended([u32; 2], bool),
}

/// All lanes, with what is on them. Made by [`Slabs::batches`].
pub struct Batches<'a, M: Machine>(&'a Slabs<M>);

impl<M: Machine> Lane<M> {
    /// What a batch of this cookie waits for; `None`: it is open.
    pub fn awaited(&self, cookie: Option<u64>) -> Awaited {
        match (cookie, self.slabs().rcu()) {
            (None, _) => Awaited::Open,
            (Some(UNNAMED), _) | (_, None) => Awaited::Unnamed,
            (Some(cookie), Some(rcu)) => {
                let numbers = rcu.numbers_of(PackedCookie::from_bits(cookie));
                Awaited::Ended(numbers, self.is_ripe(cookie))
            }
        }
    }
}

impl<M: Machine> Slabs<M> {
    /// What waits for grace periods, to be shown at once. Takes no lock and no memory. Any context.
    ///
    /// # Safety
    ///
    /// Until the result is dropped nobody allocates, frees, creates or destroys caches: the other CPUs are stopped,
    /// wherever they are.
    pub unsafe fn batches(&self) -> Batches<'_, M> {
        Batches(self)
    }
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::Unnamed => f.write_str("closed before there was RCU"),
            Self::Ended([normal, expedited], is_over) => {
                let over = if *is_over { "over" } else { "not over" };
                write!(f, "normal {normal}, expedited {expedited}; {over}")
            }
        }
    }
}

impl<M: Machine> fmt::Display for Batches<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.rcu() {
            Some(rcu) => {
                let [normal, expedited] = rcu.numbers();
                let title = "grace periods that are over";
                writeln!(f, "{title}: normal {normal}, expedited {expedited}")?;
            }
            None => writeln!(f, "grace periods: there is no RCU yet")?,
        }
        self.0
            .kvfree_rcu
            .lanes()
            .iter()
            .try_for_each(|lane| self.lane(lane, f))
    }
}

impl<M: Machine> Batches<'_, M> {
    fn lane(&self, lane: &Lane<M>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: nobody changes it, as `batches` was promised; here and below.
        let state = unsafe { lane.state.peek() };
        let stage = match state.stage {
            Stage::Idle => "idle",
            Stage::Awake => "awake",
            Stage::Dozing => "dozing",
            Stage::Called => "called",
        };
        let taken = lane.hands.count_all();
        let (cpu, bytes) = (lane.cpu, state.bytes);
        writeln!(
            f,
            "cpu{cpu}: {stage}, {bytes} bytes wait, {taken} objects taken"
        )?;
        // SAFETY: no cache goes.
        for cache in unsafe { self.0.look_at_caches() } {
            // SAFETY: one of the caches.
            Self::sheaves(lane, unsafe { cache.as_ref() }, f)?;
        }
        let mut result = Ok(());
        // SAFETY: as above.
        unsafe {
            self.0.for_each_batch(lane, |batch| {
                result = result.and_then(|()| match batch {
                    Ok(batch) => Self::batch(lane, &batch, f),
                    Err(address) => writeln!(f, "  page: {address:#x} is no memory"),
                });
            });
        }
        result
    }

    /// A line for each cookie that some of a cache's sheaves have, the oldest first, then the open one.
    fn sheaves(lane: &Lane<M>, cache: &KmemCache<M>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |cookie, objects: u64, sheaves: u64| {
            let of = if sheaves == 1 { "sheaf" } else { "sheaves" };
            let awaited = lane.awaited(cookie);
            writeln!(
                f,
                "  {}: {objects} objects in {sheaves} {of} ({awaited})",
                cache.title()
            )
        };
        let (mut same, mut open): (Option<(u64, u64, u64)>, _) = (None, None);
        // SAFETY: nobody changes anything.
        let shown = unsafe {
            Self::for_each_waiting(lane.cpu, cache, |objects, cookie| {
                let Some(cookie) = cookie else {
                    open = Some(objects);
                    return Ok(());
                };
                match &mut same {
                    Some((of, sum, sheaves)) if *of == cookie => {
                        *sum += objects;
                        *sheaves += 1;
                        Ok(())
                    }
                    _ => match same.replace((cookie, objects, 1)) {
                        Some((of, sum, sheaves)) => line(Some(of), sum, sheaves),
                        None => Ok(()),
                    },
                }
            })
        };
        shown?;
        if let Some((of, sum, sheaves)) = same {
            line(Some(of), sum, sheaves)?;
        }
        open.map_or(Ok(()), |objects| line(None, objects, 1))
    }

    /// Calls `each` with objects and cookie of a cache's sheaves that wait on a CPU.
    ///
    /// # Safety
    ///
    /// Nobody changes anything of the cache meanwhile.
    unsafe fn for_each_waiting(
        cpu: CpuId,
        cache: &KmemCache<M>,
        mut each: impl FnMut(u64, Option<u64>) -> fmt::Result,
    ) -> fmt::Result {
        // SAFETY: as the caller promises.
        let shown = unsafe {
            cache.for_each_sheaf(|at, sheaf| {
                let cookie = match at {
                    At::RcuFree(of) if of == cpu => None,
                    At::Waiting(of) if of == cpu => {
                        sheaf.ok().and_then(crate::slab::look::cookie_of)
                    }
                    _ => return ControlFlow::Continue(()),
                };
                let objects = sheaf.map_or(0, |sheaf| sheaf.as_ref().len);
                match each(objects.into(), cookie) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => ControlFlow::Break(error),
                }
            })
        };
        shown.break_value().map_or(Ok(()), Err)
    }

    fn batch(lane: &Lane<M>, batch: &Batch<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, awaited) = (batch.items().count(), lane.awaited(batch.cookie));
        if batch.page().is_none() {
            return writeln!(f, "  chain: {count} heads ({awaited})");
        }
        let kind = match batch.kind() {
            Some(Kind::Kmalloc) => "kmalloc",
            Some(Kind::Vmalloc) => "vmalloc",
            None => "nothing that is known",
        };
        writeln!(f, "  page: {count} pointers to {kind} ({awaited})")
    }
}
