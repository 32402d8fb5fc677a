//! Creation of caches.

use core::fmt;

use super::{KmemCache, Machine, Slabs, Spec, name::Name, spec::Flags};

/// Why there is no cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateError {
    /// The name is empty, longer than [`Name::MAX`], or has blanks or other bytes that a name
    /// may not have.
    BadName,
    /// Another cache has that name, which cannot be merged with this one.
    NameTaken,
    /// Objects of 0 bytes, or of more than the largest slab has.
    BadSize(usize),
    /// No power of two, or larger than a page.
    BadAlign(usize),
    /// Flags that callers may not give.
    BadFlags(Flags),
    /// The link is not in the object, not a multiple of 8, or there is neither a constructor
    /// nor TYPESAFE_BY_RCU, and nothing to keep it out of.
    BadFreePointer(usize),
    /// Copyable bytes beyond the object's.
    BadUsercopy(usize, usize),
    /// More objects in a sheaf than one can have.
    BadSheafCapacity(u32),
    /// TYPESAFE_BY_RCU, and the machine has no engine of RCU yet.
    NoRcu,
    /// There is no memory.
    NoMemory,
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName => write!(
                f,
                "not a name for a cache: 1 to {} visible characters but '/'",
                Name::MAX
            ),
            Self::NameTaken => f.write_str("another cache has that name"),
            Self::BadSize(size) => write!(f, "objects of {size} bytes"),
            Self::BadAlign(align) => write!(f, "an alignment of {align} bytes"),
            Self::BadFlags(flags) => write!(f, "flags that are not for callers: {flags}"),
            Self::BadFreePointer(at) => write!(f, "a free pointer at {at}"),
            Self::BadUsercopy(at, len) => {
                write!(f, "{len} bytes for users from {at} on, beyond the object")
            }
            Self::BadSheafCapacity(capacity) => write!(f, "sheaves of {capacity} objects"),
            Self::NoRcu => f.write_str("TYPESAFE_BY_RCU before there is RCU"),
            Self::NoMemory => f.write_str("no memory"),
        }
    }
}

impl core::error::Error for CreateError {}

impl<M: Machine> Slabs<M> {
    /// A cache as `spec` wants it: a new one, or one that exists and is as good (see
    /// [`merge`](super::merge)), which then has a further name. May sleep.
    ///
    /// # Errors
    ///
    /// [`CreateError`].
    ///
    /// # Panics
    ///
    /// On an error, with [`Flags::PANIC`].
    pub fn create(&self, spec: &Spec<'_>) -> Result<&KmemCache<M>, CreateError> {
        let _ = spec;
        panic!("not written yet")
    }
}
