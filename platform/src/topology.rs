//! Which node each CPU belongs to, and how far the nodes are from each other.

use core::fmt;

use crate::{CpuId, CpuMask, MAX_CPUS, MAX_NODES, NodeId, NodeMask};

/// The distance of a node to itself, as ACPI's SLIT normalises it.
pub const LOCAL_DISTANCE: u8 = 10;

/// The distance taken for two nodes where the firmware gives none.
pub const REMOTE_DISTANCE: u8 = 20;

/// The largest distance: 255 would mean "unreachable", which memory is not.
pub const MAX_DISTANCE: u8 = 254;

/// Why a [`Topology`] could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopologyError {
    /// No CPU, or more than [`MAX_CPUS`].
    CpuCount(usize),
    /// No node, or more than [`MAX_NODES`].
    NodeCount(usize),
    /// A CPU is on a node that is not there.
    NodeOfCpu(CpuId, NodeId),
    /// The distance of two nodes is not in 10..=254, or is not 10 from a node
    /// to itself.
    Distance(NodeId, NodeId, u8),
}

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CpuCount(n) => write!(f, "{n} CPUs, must be 1 to {MAX_CPUS}"),
            Self::NodeCount(n) => write!(f, "{n} nodes, must be 1 to {MAX_NODES}"),
            Self::NodeOfCpu(cpu, node) => write!(f, "CPU {cpu} is on node {node}, which is absent"),
            Self::Distance(from, to, d) => {
                write!(f, "distance of node {from} to node {to} is {d}, must be ")?;
                if from == to {
                    write!(f, "{LOCAL_DISTANCE}")
                } else {
                    write!(f, "{LOCAL_DISTANCE} to {MAX_DISTANCE}")
                }
            }
        }
    }
}

impl core::error::Error for TopologyError {}

/// The CPUs and nodes of a machine and their distances. Fixed once made.
///
/// Nodes without CPUs and nodes without memory are allowed. Distances need not
/// be the same in both directions.
///
/// # Invariants
/// `cpus` is in 1..=[`MAX_CPUS`], `nodes` in 1..=[`MAX_NODES`]; every entry of
/// `node_of` below `cpus` is a node below `nodes`; `order[n][..nodes]` holds
/// every node once, `n` first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    cpus: usize,
    nodes: usize,
    node_of: [NodeId; MAX_CPUS],
    distance: [[u8; MAX_NODES]; MAX_NODES],
    order: [[NodeId; MAX_NODES]; MAX_NODES],
}

impl Topology {
    /// `cpus` CPUs (at least 1, at most [`MAX_CPUS`]) on one node.
    pub const fn single_node(cpus: usize) -> Topology {
        let cpus = match cpus {
            0 => 1,
            n if n > MAX_CPUS => MAX_CPUS,
            n => n,
        };
        Topology {
            cpus,
            nodes: 1,
            node_of: [NodeId::FIRST; MAX_CPUS],
            distance: Self::default_distances(),
            order: [[NodeId::FIRST; MAX_NODES]; MAX_NODES],
        }
    }

    /// The distances taken where the firmware gives none: 10 to itself, 20 to
    /// every other node.
    pub const fn default_distances() -> [[u8; MAX_NODES]; MAX_NODES] {
        let mut distance = [[REMOTE_DISTANCE; MAX_NODES]; MAX_NODES];
        let mut n = 0;
        while n < MAX_NODES {
            distance[n][n] = LOCAL_DISTANCE;
            n += 1;
        }
        distance
    }

    /// A topology of `node_of_cpu.len()` CPUs and `nodes` nodes. Of `distance`
    /// (`[from][to]`) only the part within `nodes` is read.
    pub const fn new(
        node_of_cpu: &[NodeId],
        nodes: usize,
        distance: &[[u8; MAX_NODES]; MAX_NODES],
    ) -> Result<Topology, TopologyError> {
        if node_of_cpu.is_empty() || node_of_cpu.len() > MAX_CPUS {
            return Err(TopologyError::CpuCount(node_of_cpu.len()));
        }
        if nodes == 0 || nodes > MAX_NODES {
            return Err(TopologyError::NodeCount(nodes));
        }
        let mut topology = Self::single_node(node_of_cpu.len());
        topology.nodes = nodes;
        let mut i = 0;
        while i < node_of_cpu.len() {
            if node_of_cpu[i].index() >= nodes {
                return Err(TopologyError::NodeOfCpu(cpu_at(i), node_of_cpu[i]));
            }
            topology.node_of[i] = node_of_cpu[i];
            i += 1;
        }
        let mut from = 0;
        while from < nodes {
            let mut to = 0;
            while to < nodes {
                let d = distance[from][to];
                let wrong = if from == to {
                    d != LOCAL_DISTANCE
                } else {
                    d < LOCAL_DISTANCE || d > MAX_DISTANCE
                };
                if wrong {
                    return Err(TopologyError::Distance(node_at(from), node_at(to), d));
                }
                topology.distance[from][to] = d;
                to += 1;
            }
            from += 1;
        }
        topology.sort_by_distance();
        Ok(topology)
    }

    /// Fills `order`. Among equally near nodes the one that follows the node in
    /// the ring of numbers comes first, so that the fallback traffic of several
    /// full nodes does not all go to node 0.
    const fn sort_by_distance(&mut self) {
        let mut from = 0;
        while from < self.nodes {
            // Insertion sort over the ring, which starts at the node itself;
            // stable, so the ring decides among equals.
            let mut sorted = 0;
            while sorted < self.nodes {
                let node = (from + sorted) % self.nodes;
                let mut place = sorted;
                // The node itself stays first even if another is as near.
                while place > 1
                    && self.distance[from][self.order[from][place - 1].index()]
                        > self.distance[from][node]
                {
                    self.order[from][place] = self.order[from][place - 1];
                    place -= 1;
                }
                self.order[from][place] = node_at(node);
                sorted += 1;
            }
            from += 1;
        }
    }

    /// The number of CPUs, at least 1.
    pub const fn cpu_count(&self) -> usize {
        self.cpus
    }

    /// The number of nodes, at least 1.
    pub const fn node_count(&self) -> usize {
        self.nodes
    }

    /// All CPUs.
    pub const fn cpus(&self) -> CpuMask {
        CpuMask::first_n(self.cpus)
    }

    /// All nodes.
    pub const fn nodes(&self) -> NodeMask {
        NodeMask::first_n(self.nodes)
    }

    /// The node of `cpu`; of a CPU that is not there, node 0.
    #[inline]
    pub const fn node_of(&self, cpu: CpuId) -> NodeId {
        self.node_of[cpu.index()]
    }

    /// The CPUs on `node`.
    pub const fn cpus_of(&self, node: NodeId) -> CpuMask {
        let mut mask = CpuMask::EMPTY;
        let mut i = 0;
        while i < self.cpus {
            if self.node_of[i].index() == node.index() {
                mask.set(cpu_at(i));
            }
            i += 1;
        }
        mask
    }

    /// The distance for a CPU on `from` to the memory of `to`: 10 is local.
    #[inline]
    pub const fn distance(&self, from: NodeId, to: NodeId) -> u8 {
        self.distance[from.index()][to.index()]
    }

    /// All nodes by their distance from `node`, `node` itself first. Empty for
    /// a node that is not there.
    #[inline]
    pub fn nearest(&self, node: NodeId) -> &[NodeId] {
        let count = if node.index() < self.nodes {
            self.nodes
        } else {
            0
        };
        &self.order[node.index()][..count]
    }
}

/// The CPU of an index that a loop bounds by [`MAX_CPUS`].
const fn cpu_at(index: usize) -> CpuId {
    match CpuId::from_index(index) {
        Some(cpu) => cpu,
        None => panic!("CPU index out of bounds"),
    }
}

/// The node of an index that a loop bounds by [`MAX_NODES`].
const fn node_at(index: usize) -> NodeId {
    match NodeId::from_index(index) {
        Some(node) => node,
        None => panic!("node index out of bounds"),
    }
}
