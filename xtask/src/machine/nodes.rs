//! NUMA nodes: who has which CPUs and how much memory.

use std::ops::Range;

use crate::cli::Usage;

use super::Size;

/// Distance from a node to itself, in the table that firmware gives (SLIT).
const NEAR: u32 = 10;
/// Distance to any other node.
const FAR: u32 = 20;

/// The nodes of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// The firmware says nothing about nodes: no SRAT, no SLIT.
    Untold,
    /// So many, with CPUs and memory dealt out evenly.
    Even(u32),
    /// These, as they are; one may lack memory or CPUs.
    Explicit(Vec<Node>),
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The CPUs in it, by number; none for a node of mere memory.
    pub cpus: Option<Range<u32>>,
    /// Its memory; may be 0.
    pub mem: Size,
}

impl Nodes {
    /// Each node's CPUs and memory, or `None` if there is nothing to tell.
    pub(super) fn resolve(&self, cpus: u32, mem: Size) -> Result<Option<Vec<Node>>, Usage> {
        match self {
            Self::Untold => Ok(None),
            Self::Even(count) => even(*count, cpus, mem).map(Some),
            Self::Explicit(nodes) => Ok(Some(nodes.clone())),
        }
    }

    /// The arguments that make QEMU tell the guest about them.
    pub fn arguments(&self, cpus: u32, mem: Size) -> Result<Vec<String>, Usage> {
        let nodes = self.resolve(cpus, mem)?.unwrap_or_default();
        let mut arguments = Vec::new();
        for (id, node) in nodes.iter().enumerate() {
            let mut numa = format!("node,nodeid={id}");
            if let Some(cpus) = node.cpus.as_ref().filter(|cpus| !cpus.is_empty()) {
                match cpus.len() {
                    1 => numa += &format!(",cpus={}", cpus.start),
                    _ => numa += &format!(",cpus={}-{}", cpus.start, cpus.end - 1),
                }
            }
            if node.mem.bytes() > 0 {
                arguments.extend([
                    "-object".into(),
                    format!("memory-backend-ram,id=mem{id},size={}", node.mem),
                ]);
                numa += &format!(",memdev=mem{id}");
            }
            arguments.extend(["-numa".into(), numa]);
        }
        for from in 0..nodes.len() {
            for to in 0..nodes.len() {
                // Said in full, with the diagonal, so that a table exists even
                // for one node.
                let distance = if from == to { NEAR } else { FAR };
                arguments.extend([
                    "-numa".into(),
                    format!("dist,src={from},dst={to},val={distance}"),
                ]);
            }
        }
        Ok(arguments)
    }
}

/// Deals `cpus` CPUs and `mem` of memory out to `count` nodes in consecutive
/// runs that differ by one CPU or one MiB at most.
fn even(count: u32, cpus: u32, mem: Size) -> Result<Vec<Node>, Usage> {
    let mib = mem.bytes() >> 20;
    if count > cpus {
        return Err(Usage(format!(
            "{count} nodes need at least as many CPUs, not {cpus}"
        )));
    }
    if u64::from(count) > mib {
        return Err(Usage(format!(
            "{mem} of memory is too little for {count} nodes"
        )));
    }
    Ok((0..count)
        .map(|id| {
            let part = |whole: u64, id: u32| whole * u64::from(id) / u64::from(count);
            // Parts of a u32 fit in one.
            let cpu = |id| part(u64::from(cpus), id) as u32;
            Node {
                cpus: Some(cpu(id)..cpu(id + 1)),
                mem: Size::mib(part(mib, id + 1) - part(mib, id)),
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_nodes() {
        let arguments = Nodes::Even(2)
            .arguments(4, Size::mib(512))
            .unwrap()
            .join(" ");
        assert_eq!(
            arguments,
            "-object memory-backend-ram,id=mem0,size=256M -numa node,nodeid=0,cpus=0-1,memdev=mem0 \
             -object memory-backend-ram,id=mem1,size=256M -numa node,nodeid=1,cpus=2-3,memdev=mem1 \
             -numa dist,src=0,dst=0,val=10 -numa dist,src=0,dst=1,val=20 \
             -numa dist,src=1,dst=0,val=20 -numa dist,src=1,dst=1,val=10"
        );
    }

    #[test]
    fn an_even_deal_gives_everything_once() {
        for (count, cpus, mib) in [(1, 1, 64), (3, 4, 512), (8, 64, 8192), (5, 7, 101)] {
            let nodes = even(count, cpus, Size::mib(mib)).unwrap();
            let all: Vec<u32> = nodes
                .iter()
                .flat_map(|node| node.cpus.clone().unwrap())
                .collect();
            assert_eq!(all, (0..cpus).collect::<Vec<_>>());
            assert_eq!(
                nodes.iter().map(|node| node.mem.bytes()).sum::<u64>(),
                mib << 20
            );
            let sizes = nodes.iter().map(|node| node.mem.bytes() >> 20);
            assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
        }
    }

    #[test]
    fn no_empty_node_by_chance() {
        assert!(even(4, 2, Size::mib(512)).is_err());
        assert!(even(4, 4, Size::mib(2)).is_err());
    }

    #[test]
    fn nodes_without_memory_or_cpus() {
        let nodes = Nodes::Explicit(vec![
            Node {
                cpus: Some(0..2),
                mem: Size::mib(256),
            },
            Node {
                cpus: Some(2..3),
                mem: Size::mib(0),
            },
            Node {
                cpus: None,
                mem: Size::mib(256),
            },
        ]);
        let arguments = nodes.arguments(3, Size::mib(512)).unwrap().join(" ");
        assert!(
            arguments.contains("-numa node,nodeid=1,cpus=2 -object"),
            "{arguments}"
        );
        assert!(
            arguments.contains("-numa node,nodeid=2,memdev=mem2"),
            "{arguments}"
        );
        assert!(!arguments.contains("id=mem1"));
    }

    #[test]
    fn silence_about_nodes() {
        assert!(
            Nodes::Untold
                .arguments(4, Size::mib(512))
                .unwrap()
                .is_empty()
        );
    }
}
