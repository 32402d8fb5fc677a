//! What there is of caches, as text in Linux's formats.
//!
//! | | file |
//! |---|---|
//! | [`SlabInfo`] | `/proc/slabinfo`: a line for each cache |
//! | [`Attribute`] | `/sys/kernel/slab/<cache>/<attribute>` |
//!
//! [`Destroys`] shows those that were destroyed; [`OneCache`] shows one cache in full, with what every CPU and every node has.
//!
//! All counts are read while others allocate and free: each is right at some moment, and
//! what one line says may be of different moments.

mod attributes;
mod destroys;
mod one;
mod slabinfo;
mod usage;

pub use attributes::{Attribute, StoreError};
pub use destroys::{Destroys, ShowStack, plain_stack};
pub use one::{OneCache, Snapshot};
pub use slabinfo::SlabInfo;
pub use usage::Usage;
