//! Regions of one kind: sets of bytes.

use core::fmt;

use super::{Full, Region, RegionMap};

/// A set of bytes, as at most `N` regions: sorted, apart from each other.
///
/// ```
/// use mm::region::{Region, RegionList};
/// let region = |start, end| Region::new(start, end).unwrap();
/// let mut list = RegionList::<8>::new();
/// list.add(region(0, 0x9fc00)).unwrap();
/// list.add(region(0x10_0000, 0x800_0000)).unwrap();
/// list.remove(region(0x20_0000, 0x40_0000)).unwrap();
/// list.page_align_inwards();
/// let ends: Vec<u64> = list.iter().map(Region::end).collect();
/// assert_eq!(ends, [0x9f000, 0x20_0000, 0x800_0000]);
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RegionList<const N: usize> {
    map: RegionMap<(), N>,
}

impl<const N: usize> RegionList<N> {
    /// The empty set.
    pub const fn new() -> Self {
        Self {
            map: RegionMap::new(),
        }
    }

    /// Adds the bytes of `region`; regions that touch become one.
    pub fn add(&mut self, region: Region) -> Result<(), Full> {
        self.map.paint(region, ())
    }

    /// Removes the bytes of `region`, which may cut a region in two.
    pub fn remove(&mut self, region: Region) -> Result<(), Full> {
        self.map.erase(region)
    }

    /// Removes what is not in `region`.
    pub fn clip(&mut self, region: Region) {
        self.map.clip(region);
    }

    /// Removes what does not fill a page; says how many bytes that were.
    pub fn page_align_inwards(&mut self) -> u64 {
        let before = self.bytes();
        let mut aligned = Self::new();
        for region in self.iter().filter_map(Region::page_align_inwards) {
            // One for one at most, so there is room.
            let _ = aligned.add(region);
        }
        *self = aligned;
        before - self.bytes()
    }

    /// Adds what pages of the set lack; says how many bytes that were.
    pub fn page_align_outwards(&mut self) -> u64 {
        let before = self.bytes();
        let mut aligned = Self::new();
        for region in self.iter().map(Region::page_align_outwards) {
            // As above; neighbours may become one.
            let _ = aligned.add(region);
        }
        *self = aligned;
        self.bytes() - before
    }

    /// The regions by ascending address.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Region> + ExactSizeIterator + '_ {
        self.map.entries().iter().map(|&(region, ())| region)
    }

    /// The number of regions.
    pub fn len(&self) -> usize {
        self.map.entries().len()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.map.entries().is_empty()
    }

    /// The number of bytes.
    pub fn bytes(&self) -> u64 {
        self.map.bytes_where(|()| true)
    }

    /// Whether the byte at `address` is in the set.
    pub fn contains(&self, address: u64) -> bool {
        self.map.kind_at(address).is_some()
    }

    /// Whether all bytes of `region` are.
    pub fn covers(&self, region: Region) -> bool {
        self.map.parts(region).all(|(_, kind)| kind.is_some())
    }
}

impl<const N: usize> fmt::Debug for RegionList<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
