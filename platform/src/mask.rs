//! Sets of CPUs and of nodes, one bit a member.

use core::fmt;

use crate::ids::{CpuId, MAX_CPUS, MAX_NODES, NodeId};

/// Writes the members of `bits` as ranges: `0-3,5`. An empty set prints nothing.
fn write_ranges(mut bits: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut separator = "";
    while bits != 0 {
        let first = bits.trailing_zeros();
        let length = (bits >> first).trailing_ones();
        let last = first + length - 1;
        if length == 1 {
            write!(f, "{separator}{first}")?;
        } else {
            write!(f, "{separator}{first}-{last}")?;
        }
        separator = ",";
        // Up to `last`, which may be bit 63: shift in two steps.
        bits &= !(u64::MAX >> (63 - last));
    }
    Ok(())
}

macro_rules! define_mask {
    ($(#[$doc:meta])* $mask:ident, $(#[$iter_doc:meta])* $iter:ident, $id:ident, $word:ty, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[repr(transparent)]
        pub struct $mask($word);

        impl $mask {
            /// The set without members.
            pub const EMPTY: $mask = $mask(0);

            /// The set of all that there can be.
            pub const ALL: $mask = $mask(<$word>::MAX);

            /// A set from its bits: bit n stands for number n.
            #[inline]
            pub const fn from_bits(bits: $word) -> Self {
                Self(bits)
            }

            /// The bits of the set: bit n stands for number n.
            #[inline]
            pub const fn bits(self) -> $word {
                self.0
            }

            /// The set of the numbers below `count`; of all where `count` is too large.
            #[inline]
            pub const fn first_n(count: usize) -> Self {
                if count >= $max { Self::ALL } else { Self(((1 as $word) << count) - 1) }
            }

            /// The set of just `id`.
            #[inline]
            pub const fn only(id: $id) -> Self {
                Self((1 as $word) << id.index())
            }

            /// Whether `id` is a member.
            #[inline]
            pub const fn contains(self, id: $id) -> bool {
                self.0 & Self::only(id).0 != 0
            }

            /// Whether there is no member.
            #[inline]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// The number of members.
            #[inline]
            pub const fn count(self) -> usize {
                self.0.count_ones() as usize
            }

            /// The member with the lowest number.
            #[inline]
            pub const fn first(self) -> Option<$id> {
                $id::from_index(self.0.trailing_zeros() as usize)
            }

            /// The member with the highest number.
            #[inline]
            pub const fn last(self) -> Option<$id> {
                if self.0 == 0 { None } else { $id::from_index(self.0.ilog2() as usize) }
            }

            /// Adds `id`; says whether it is new.
            #[inline]
            pub const fn set(&mut self, id: $id) -> bool {
                let new = !self.contains(id);
                self.0 |= Self::only(id).0;
                new
            }

            /// Removes `id`; says whether it was a member.
            #[inline]
            pub const fn clear(&mut self, id: $id) -> bool {
                let old = self.contains(id);
                self.0 &= !Self::only(id).0;
                old
            }

            /// The set with `id` added.
            #[inline]
            pub const fn with(self, id: $id) -> Self {
                Self(self.0 | Self::only(id).0)
            }

            /// The set with `id` removed.
            #[inline]
            pub const fn without(self, id: $id) -> Self {
                Self(self.0 & !Self::only(id).0)
            }

            /// The members of either set.
            #[inline]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// The members of both sets.
            #[inline]
            pub const fn intersection(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }

            /// The members of this set that are not in `other`.
            #[inline]
            pub const fn difference(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }

            /// The numbers below `count` that are not members.
            #[inline]
            pub const fn complement_within(self, count: usize) -> Self {
                Self::first_n(count).difference(self)
            }

            /// Whether every member is one of `other` too.
            #[inline]
            pub const fn is_subset(self, other: Self) -> bool {
                self.0 & !other.0 == 0
            }

            /// The members in ascending order.
            #[inline]
            pub const fn iter(self) -> $iter {
                $iter(self)
            }
        }

        impl fmt::Display for $mask {
            /// Writes ranges, as in `0-3,5`; nothing for the empty set.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_ranges(u64::from(self.0), f)
            }
        }

        impl fmt::Debug for $mask {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($mask))
            }
        }

        impl FromIterator<$id> for $mask {
            fn from_iter<T: IntoIterator<Item = $id>>(members: T) -> Self {
                members.into_iter().fold(Self::EMPTY, Self::with)
            }
        }

        impl IntoIterator for $mask {
            type Item = $id;
            type IntoIter = $iter;

            fn into_iter(self) -> $iter {
                self.iter()
            }
        }

        $(#[$iter_doc])*
        #[derive(Clone, Debug)]
        pub struct $iter($mask);

        impl Iterator for $iter {
            type Item = $id;

            #[inline]
            fn next(&mut self) -> Option<$id> {
                let first = self.0.first()?;
                self.0.clear(first);
                Some(first)
            }

            fn size_hint(&self) -> (usize, Option<usize>) {
                (self.0.count(), Some(self.0.count()))
            }
        }

        impl DoubleEndedIterator for $iter {
            #[inline]
            fn next_back(&mut self) -> Option<$id> {
                let last = self.0.last()?;
                self.0.clear(last);
                Some(last)
            }
        }

        impl ExactSizeIterator for $iter {}
    };
}

define_mask! {
    /// A set of CPUs.
    ///
    /// ```
    /// use platform::{CpuId, CpuMask};
    /// let mut mask = CpuMask::first_n(4);
    /// mask.set(CpuId::new(5).unwrap());
    /// assert_eq!(mask.to_string(), "0-3,5");
    /// ```
    CpuMask,
    /// The members of a [`CpuMask`], in ascending order.
    CpuIter, CpuId, u64, MAX_CPUS
}

define_mask! {
    /// A set of memory nodes.
    NodeMask,
    /// The members of a [`NodeMask`], in ascending order.
    NodeIter, NodeId, u8, MAX_NODES
}

const _: () = assert!(MAX_CPUS == u64::BITS as usize && MAX_NODES == u8::BITS as usize);
