//! Caches that were destroyed.

use core::fmt;

use crate::{
    kvfree_rcu::InFlight,
    slab::{
        DestroyRecord, Machine, Slabs,
        records::{RECORDS, STACKS, Times},
    },
};

/// How a stack is shown: return addresses, the innermost first.
pub type ShowStack = fn(&[usize], &mut fmt::Formatter<'_>) -> fmt::Result;

/// How long it took to destroy caches, all together and by who asked for it, and the last ones.
pub struct Destroys<'a, M: Machine>(pub &'a Slabs<M>, pub ShowStack);

/// Addresses in a line.
pub fn plain_stack(callers: &[usize], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("   ")?;
    for address in callers {
        write!(f, " {address:#x}")?;
    }
    writeln!(f)
}

/// Nanoseconds as microseconds, or milliseconds if there are many.
struct Ns(u64);

impl fmt::Display for Ns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ns, unit) = match self.0 {
            ns @ ..10_000_000 => (ns, "us"),
            ns => (ns / 1_000, "ms"),
        };
        write!(f, "{}.{:03} {unit}", ns / 1_000, ns % 1_000)
    }
}

struct Several<'a>(&'a str, Times);

impl fmt::Display for Several<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(what, times) = self;
        write!(f, "{what}: {}", times.count)?;
        if times.count > 0 {
            let (average, most) = (Ns(times.average_ns()), Ns(times.max_ns));
            write!(f, ", {average} on average, at most {most}")?;
        }
        writeln!(f)
    }
}

/// What was in flight.
struct Did(InFlight);

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(did) = self;
        if *did == InFlight::default() {
            return f.write_str("nothing in flight");
        }
        let parts: [(u64, &str); 9] = [
            (did.freed, "objects freed"),
            (did.slabs, "slabs freed"),
            (did.requested.into(), "grace periods asked for"),
            (did.passed.into(), "passed"),
            (did.hands.into(), "waits for hands"),
            (did.slab_waits.into(), "waits for slabs"),
            (did.deferred.into(), "waits for deferred frees"),
            (did.calls.into(), "calls"),
            (did.works.into(), "works"),
        ];
        let mut parts = parts.iter().filter(|(count, _)| *count > 0);
        if let Some((count, what)) = parts.next() {
            write!(f, "{count} {what}")?;
        }
        for (count, what) in parts {
            write!(f, ", {count} {what}")?;
        }
        if did.grace_ns + did.hands_ns > 0 {
            let (grace, hands) = (Ns(did.grace_ns), Ns(did.hands_ns));
            write!(f, "; waited {grace} for readers, {hands} for others")?;
        }
        Ok(())
    }
}

impl fmt::Display for DestroyRecord {
    /// A line, without who asked for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, id, .. } = self;
        write!(f, "{name}~{id}: {}", Ns(self.took_ns))?;
        if self.lingering {
            write!(f, " in the background (caller {})", Ns(self.call_ns))?;
        }
        write!(f, ", {} slabs", self.slabs)?;
        if self.leaked > 0 {
            write!(f, ", {} objects in use", self.leaked)?;
        }
        write!(f, ", {}", Did(self.did))
    }
}

impl<M: Machine> fmt::Display for Destroys<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(slabs, show_stack) = self;
        let all = slabs.destroy_times();
        write!(f, "{}", Several("destroyed", all.direct))?;
        write!(
            f,
            "{}",
            Several("destroyed in the background", all.lingering)
        )?;
        let rows = all.histogram.0.iter().zip(all.lingering_histogram.0);
        let mut rows = rows
            .enumerate()
            .filter(|(_, (direct, lingering))| *direct + lingering > 0);
        if let Some(first) = rows.next() {
            writeln!(f, "   less than   waited for  background")?;
            for (bucket, (direct, lingering)) in core::iter::once(first).chain(rows) {
                // The column is as wide with a decimal as without.
                let mut below = arrayvec::ArrayString::<24>::new();
                fmt::write(&mut below, format_args!("{}", Ns(1 << bucket)))?;
                writeln!(f, "{below:>12} {direct:>12} {lingering:>11}")?;
            }
        }
        for number in 0..STACKS {
            let Some(stack) = slabs.destroy_stack(number) else {
                break;
            };
            if number == 0 {
                writeln!(f, "by caller, and how long that was kept:")?;
            }
            write!(f, "{}", Several("  times", stack.times))?;
            show_stack(stack.callers(), f)?;
        }
        if all.others.count > 0 {
            write!(f, "{}", Several("  others", all.others))?;
        }
        for before in 0..RECORDS {
            let Some(record) = slabs.destroy_record(before) else {
                break;
            };
            if before == 0 {
                writeln!(f, "the last ones, the latest first:")?;
            }
            writeln!(f, "  {record}")?;
        }
        Ok(())
    }
}

impl<M: Machine> fmt::Debug for Destroys<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Destroys").finish_non_exhaustive()
    }
}
