//! Caches of the slab allocator on hosted machines: creation, merging, destruction, kmalloc, and
//! the typed interface.

mod boot;
mod create;
mod destroy;
mod kmalloc;
mod linger;
mod merge;
mod records;
mod typed;
mod typed_rcu;
mod world;
