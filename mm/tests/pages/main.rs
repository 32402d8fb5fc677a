//! The page allocator on hosted machines.

mod addresses;
mod failures;
mod interrupts;
mod model;
mod owners;
mod places;
mod storm;
mod world;
mod wrong;
