//! What the portable crates `mm` and `rcu` need to know of a machine.
//!
//! Today: who the CPUs and memory nodes are ([`CpuId`], [`NodeId`]), sets of
//! them ([`CpuMask`], [`NodeMask`]), and how far apart they lie ([`Topology`]).
//! The trait through which `mm` and `rcu` call the machine joins them when its
//! first user does.
//!
//! And one protocol between CPUs: function calls ([`call_list`]). No locks, no
//! allocation. CPUs and nodes are numbered densely from 0; CPU 0 is the one that
//! booted.

#![no_std]

pub mod call_list;
mod ids;
mod mask;
mod sync;
mod topology;

pub use ids::{CpuId, MAX_CPUS, MAX_NODES, NodeId};
pub use mask::{CpuIter, CpuMask, NodeIter, NodeMask};
pub use topology::{LOCAL_DISTANCE, MAX_DISTANCE, REMOTE_DISTANCE, Topology, TopologyError};
