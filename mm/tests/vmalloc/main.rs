//! vmalloc on hosted machines: against a model, without memory, from many threads, and what
//! CPUs may still translate.

mod failures;
mod laziness;
mod model;
mod raw;
mod threads;
mod world;
