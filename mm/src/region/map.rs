//! Regions of several kinds.

use core::fmt;

use arrayvec::ArrayVec;

use super::Region;

/// A list would need more regions than it has room for. It is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many separate memory regions")
    }
}

impl core::error::Error for Full {}

/// Gives each byte of some regions a kind; at most `N` regions.
///
/// # Invariants
/// Sorted, without overlap; neighbours that touch differ in kind.
#[derive(Clone, PartialEq, Eq)]
pub struct RegionMap<K, const N: usize> {
    entries: ArrayVec<(Region, K), N>,
}

impl<K: Copy + Eq, const N: usize> Default for RegionMap<K, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Copy + Eq, const N: usize> RegionMap<K, N> {
    /// A map of nothing.
    pub const fn new() -> Self {
        Self {
            entries: ArrayVec::new_const(),
        }
    }

    /// The regions and their kinds, by ascending address.
    pub fn entries(&self) -> &[(Region, K)] {
        &self.entries
    }

    /// Gives every byte of `region` the kind `kind`, whatever it had.
    pub fn paint(&mut self, region: Region, kind: K) -> Result<(), Full> {
        self.replace(region, Some(kind))
    }

    /// Gives every byte of `region` that has no kind the kind `kind`. Goes gap
    /// by gap, and may be refused though the end would fit and only a step on
    /// the way does not.
    pub fn fill(&mut self, region: Region, kind: K) -> Result<(), Full> {
        let before = self.clone();
        let mut rest = Some(region);
        while let Some(left) = rest {
            // The first region that ends behind the start of what is left.
            let next = self
                .entries
                .iter()
                .find(|(known, _)| known.end() > left.start());
            let gap = match next {
                Some((next, _)) => left.below(next.start()),
                None => Some(left),
            };
            rest = next.and_then(|(next, _)| left.above(next.end()));
            if let Some(gap) = gap
                && let Err(full) = self.paint(gap, kind)
            {
                *self = before;
                return Err(full);
            }
        }
        Ok(())
    }

    /// Takes every byte of `region` out of the map.
    pub fn erase(&mut self, region: Region) -> Result<(), Full> {
        self.replace(region, None)
    }

    /// Takes out everything that is not in `region`.
    pub fn clip(&mut self, region: Region) {
        // INVARIANT: what stays keeps its order, and nothing is moved together.
        self.entries
            .retain(|(known, _)| match known.intersection(region) {
                Some(part) => {
                    *known = part;
                    true
                }
                None => false,
            });
    }

    /// The kind of the byte at `address`.
    pub fn kind_at(&self, address: u64) -> Option<K> {
        let place = self.first_behind(address);
        let (region, kind) = self.entries.get(place)?;
        region.contains(address).then_some(*kind)
    }

    /// The parts of `region` with their kinds, those without a kind included,
    /// by ascending address.
    pub fn parts(&self, region: Region) -> impl Iterator<Item = (Region, Option<K>)> + '_ {
        let mut rest = Some(region);
        core::iter::from_fn(move || {
            let left = rest?;
            let (part, kind) = match self.entries.get(self.first_behind(left.start())) {
                Some(&(known, kind)) if known.contains(left.start()) => {
                    (left.below(known.end())?, Some(kind))
                }
                Some((next, _)) => (left.below(next.start())?, None),
                None => (left, None),
            };
            rest = left.above(part.end());
            Some((part, kind))
        })
    }

    /// The number of bytes for which `wanted` holds of their kind.
    pub fn bytes_where(&self, wanted: impl Fn(K) -> bool) -> u64 {
        // Within the physical limit, so the sum cannot overflow.
        self.entries
            .iter()
            .filter(|(_, kind)| wanted(*kind))
            .map(|(region, _)| region.size())
            .sum()
    }

    /// The place of the first region that ends behind `address`.
    fn first_behind(&self, address: u64) -> usize {
        self.entries
            .partition_point(|(known, _)| known.end() <= address)
    }

    /// Gives the bytes of `region` a kind or none, and joins what touches.
    fn replace(&mut self, region: Region, kind: Option<K>) -> Result<(), Full> {
        // Entries first..last overlap the region.
        let mut first = self.first_behind(region.start());
        let mut last = self
            .entries
            .partition_point(|(known, _)| known.start() < region.end());
        let (mut start, mut end) = (region.start(), region.end());
        let mut pieces = ArrayVec::<(Region, K), 3>::new();

        let left = self.entries[first..last].first().copied();
        let left = left.and_then(|(known, kind)| Some((known.below(start)?, kind)));
        let touching = first.checked_sub(1).map(|place| self.entries[place]);
        let touching = touching.filter(|(known, _)| known.end() == start);
        match (left, touching) {
            (Some((known, old)), _) if Some(old) == kind => start = known.start(),
            (Some(left), _) => pieces.push(left),
            (None, Some((known, old))) if Some(old) == kind => {
                start = known.start();
                first -= 1;
            }
            _ => {}
        }
        let right = self.entries[first.min(last)..last].last().copied();
        let right = right.and_then(|(known, kind)| Some((known.above(end)?, kind)));
        let touching = self
            .entries
            .get(last)
            .filter(|(known, _)| known.start() == end);
        match (right, touching) {
            (Some((known, old)), _) if Some(old) == kind => end = known.end(),
            (None, Some(&(known, old))) if Some(old) == kind => {
                end = known.end();
                last += 1;
            }
            _ => {}
        }
        if let Some(kind) = kind
            && let Some(joined) = Region::new(start, end)
        {
            pieces.push((joined, kind));
        }
        if let Some(right) = right.filter(|&(_, old)| Some(old) != kind) {
            pieces.push(right);
        }
        if self.entries.len() - (last - first) + pieces.len() > N {
            return Err(Full);
        }
        // INVARIANT: the pieces are in order and lie where the removed entries
        // did; what touches with the same kind has become one.
        self.entries.drain(first..last);
        for (offset, piece) in pieces.into_iter().enumerate() {
            self.entries.insert(first + offset, piece);
        }
        Ok(())
    }
}

impl<K: Copy + fmt::Debug, const N: usize> fmt::Debug for RegionMap<K, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries.iter().copied()).finish()
    }
}
