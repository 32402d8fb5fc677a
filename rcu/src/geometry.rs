//! How many nodes a tree has, and who is whose parent.
//!
//! CPUs are divided among leaves, neighbours together, up to `leaf` on each; leaves among
//! nodes of the level above, up to `fanout` on each, and so on up to one root. Nodes are
//! numbered level by level from the root, which is 0.

use core::fmt;

/// More than any tree has: fan-out 2 and 65 536 CPUs make 16.
const MAX_LEVELS: usize = 17;
/// The most CPUs.
pub const MAX_CPUS: usize = 1 << 16;
/// As many as a mask has bits.
pub const MAX_FANOUT: usize = u64::BITS as usize;
/// Fewer make no tree.
pub const MIN_FANOUT: usize = 2;

/// The shape of a tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    cpus: usize,
    leaf: usize,
    fanout: usize,
    levels: usize,
    /// Nodes on each level, root first.
    widths: [usize; MAX_LEVELS],
}

/// A node's place in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its level; the root's is 0.
    pub level: usize,
    /// The parent's number and this node's bit there.
    pub parent: Option<(usize, u64)>,
    /// Its first CPU.
    pub first: usize,
    /// How many CPUs lie below it.
    pub cpus: usize,
    /// Bits of its children; of a leaf: of its CPUs.
    pub children: u64,
}

impl Geometry {
    /// The smallest tree for `cpus` CPUs with at most `leaf` of them on a leaf and `fanout`
    /// nodes below another. What is out of bounds counts as the nearest that is not: 1 to
    /// [`MAX_CPUS`] CPUs, fan-outs of [`MIN_FANOUT`] to [`MAX_FANOUT`].
    pub fn new(cpus: usize, leaf: usize, fanout: usize) -> Self {
        let cpus = cpus.clamp(1, MAX_CPUS);
        let leaf = leaf.clamp(MIN_FANOUT, MAX_FANOUT);
        let fanout = fanout.clamp(MIN_FANOUT, MAX_FANOUT);
        let mut upwards = [0; MAX_LEVELS];
        let mut levels = 0;
        let mut width = cpus.div_ceil(leaf);
        loop {
            upwards[levels] = width;
            levels += 1;
            if width == 1 {
                break;
            }
            width = width.div_ceil(fanout);
        }
        let mut widths = [0; MAX_LEVELS];
        for (level, width) in widths[..levels].iter_mut().enumerate() {
            *width = upwards[levels - 1 - level];
        }
        Self {
            cpus,
            leaf,
            fanout,
            levels,
            widths,
        }
    }

    /// CPUs.
    pub fn cpus(&self) -> usize {
        self.cpus
    }

    /// Levels; 1 if the root is the only leaf.
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// Nodes.
    pub fn nodes(&self) -> usize {
        self.widths.iter().sum()
    }

    /// The number of the first leaf; all that follow are leaves.
    pub fn first_leaf(&self) -> usize {
        self.nodes() - self.widths[self.levels - 1]
    }

    /// The leaf of a CPU, and the CPU's bit there.
    pub fn leaf_of(&self, cpu: usize) -> (usize, u64) {
        (self.first_leaf() + cpu / self.leaf, 1 << (cpu % self.leaf))
    }

    /// The place of a node.
    pub fn place(&self, node: usize) -> Place {
        let mut level = 0;
        let mut start = 0;
        while node >= start + self.widths[level] {
            start += self.widths[level];
            level += 1;
        }
        let index = node - start;
        let parent = level.checked_sub(1).map(|above| {
            let parent = start - self.widths[above] + index / self.fanout;
            (parent, 1 << (index % self.fanout))
        });
        let below = self.levels - 1 - level;
        let per_node = self.leaf * self.fanout.pow(below as u32);
        let first = index * per_node;
        let cpus = per_node.min(self.cpus - first);
        let children = match self.widths[..self.levels].get(level + 1) {
            None => cpus,
            Some(width) => self.fanout.min(width - index * self.fanout),
        };
        Place {
            level,
            parent,
            first,
            cpus,
            children: u64::MAX >> (MAX_FANOUT - children),
        }
    }
}

impl fmt::Debug for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Geometry({self})")
    }
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} CPUs on {} levels: ", self.cpus, self.levels)?;
        for (level, width) in self.widths[..self.levels].iter().enumerate() {
            if level > 0 {
                f.write_str("/")?;
            }
            write!(f, "{width}")?;
        }
        write!(f, " nodes, fan-out {}, leaf {}", self.fanout, self.leaf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cpu_and_node_has_one_place() {
        for cpus in [1, 2, 3, 7, 8, 16, 17, 64, 65, 255, 1000, 4096] {
            for (leaf, fanout) in [(2, 2), (2, 3), (16, 64), (3, 5), (64, 64)] {
                let shape = Geometry::new(cpus, leaf, fanout);
                let mut seen = alloc::vec![0_u64; shape.nodes()];
                for cpu in 0..cpus {
                    let (node, bit) = shape.leaf_of(cpu);
                    let place = shape.place(node);
                    assert!((place.first..place.first + place.cpus).contains(&cpu));
                    assert_eq!(seen[node] & bit, 0);
                    seen[node] |= bit;
                }
                for node in 0..shape.nodes() {
                    let place = shape.place(node);
                    match place.parent {
                        None => assert_eq!((node, place.cpus), (0, cpus)),
                        Some((parent, bit)) => {
                            assert_eq!(seen[parent] & bit, 0);
                            seen[parent] |= bit;
                            let above = shape.place(parent);
                            assert_eq!(above.level + 1, place.level);
                            assert!(above.first <= place.first);
                            assert!(place.first + place.cpus <= above.first + above.cpus);
                        }
                    }
                }
                for (node, seen) in seen.iter().enumerate() {
                    assert_eq!(*seen, shape.place(node).children, "{shape}, node {node}");
                }
            }
        }
    }

    #[test]
    fn fan_out_2_makes_three_levels_of_8_cpus() {
        let shape = Geometry::new(8, 2, 2);
        assert_eq!(
            (shape.levels(), shape.nodes(), shape.first_leaf()),
            (3, 7, 3)
        );
        assert_eq!(Geometry::new(64, 16, 64).nodes(), 5);
        assert_eq!(Geometry::new(4, 16, 64).nodes(), 1);
    }
}
