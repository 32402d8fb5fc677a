//! What the portable crates `mm` and `rcu` need of a machine.
//!
//! The seam is one trait, [`Platform`]. Around it: who the CPUs and memory nodes are
//! ([`CpuId`], [`NodeId`]), sets of them ([`CpuMask`], [`NodeMask`]), how far apart they lie
//! ([`Topology`]); guards as evidence ([`Preempt`], [`IrqsOff`]); per-CPU data
//! ([`percpu`]); locks ([`lock`]); and the
//! protocols between CPUs and threads that every machine shares: function calls
//! ([`call_list`]), sleeping and waking ([`park`]), work deferred from NMI ([`deferred`]),
//! idle CPUs as RCU sees them ([`eqs`]).
//!
//! CPUs and nodes are numbered densely from 0; CPU 0 is the one that booted.
//!
//! This source is compiled twice: as `granary-platform`, and as `granary-platform-model`
//! (`platform/model`), where [`sync`] has the words of the model checker.

#![no_std]

extern crate alloc;
#[cfg(any(model, feature = "hosted", test))]
extern crate std;

pub mod call_list;
pub mod conformance;
pub mod deferred;
pub mod eqs;
mod guard;
#[cfg(all(feature = "hosted", not(model)))]
pub mod hosted;
mod ids;
pub mod lock;
pub mod lockdep;
mod mask;
#[cfg(model)]
pub mod model;
pub mod park;
pub mod percpu;
mod seam;
pub mod sync;
mod topology;
pub mod wait;
pub mod work;

pub use guard::{IrqsOff, Preempt};
pub use ids::{CpuId, MAX_CPUS, MAX_NODES, NodeId};
pub use mask::{CpuIter, CpuMask, NodeIter, NodeMask};
pub use seam::{
    Acquisition, Context, LockKind, Mark, PerCpuAddr, Platform, Priority, Spawn, SpawnError,
};
pub use topology::{LOCAL_DISTANCE, MAX_DISTANCE, REMOTE_DISTANCE, Topology, TopologyError};
