//! Slabs and the lists of slabs, on hosted machines: caches without sheaves, whose objects come from slabs
//! one by one, and with small sheaves, which refill and flush all the time.

mod arrows;
mod contents;
mod damage;
mod failures;
mod layout;
mod quiet;
mod single;
mod typesafe;
#[path = "../slab_caches/world.rs"]
#[allow(dead_code, reason = "these tests do not use all of it")]
mod world;
