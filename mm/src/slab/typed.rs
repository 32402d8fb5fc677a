//! Caches of a type.
//!
//! | | objects are | dropping a box |
//! |---|---|---|
//! | [`Cache`], [`SlabBox`] | made when they are allocated | drops the value, and frees the object |
//! | [`RcuCache`], [`RcuBox`] | the same, and readers may find them under RCU | the same; [`free_rcu`](RcuBox::free_rcu) does so after a grace period |
//! | [`ConstructedCache`], [`ConstructedBox`] | made by a constructor when their slab is | frees the object with its value, which the next one gets |
//!
//! A box has no lifetime: it finds its cache by the frame that it lies in, so it can stand in one structure
//! with the cache, and outlive it. Dropping a cache while boxes are there is an error that is reported, but
//! a sound one: see [`late`](super::late). A cache that is dropped [lingers](super::linger); `destroy` waits, and
//! says what is left.
//!
//! # Drops that race the end of the cache
//!
//! Boxes are dropped, and given to `kfree_rcu`, with preemption off. Who destroys a cache of a type first marks it dying, and
//! then calls every CPU until each was met at a place where preemption was on: what
//! is dropped after that finds the mark, and what was dropped before has ended. Only then the cache
//! is emptied, as any other.

mod boxed;
mod cache;
mod constructed;
pub(super) mod quiesce;
mod rcu;

pub use boxed::SlabBox;
pub use cache::Cache;
pub use constructed::{Construct, ConstructedBox, ConstructedCache};
pub use rcu::{Rcu, RcuBox, RcuCache, RetiredBox, kfree_rcu};
