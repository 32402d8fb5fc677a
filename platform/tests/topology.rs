//! Topologies: what is refused, and the order of nodes by distance.

use platform::{
    CpuId, CpuMask, LOCAL_DISTANCE, MAX_CPUS, MAX_DISTANCE, MAX_NODES, NodeId, Topology,
    TopologyError,
};
use proptest::prelude::*;

fn node(number: usize) -> NodeId {
    NodeId::from_index(number).unwrap()
}

#[test]
fn single_node_is_const() {
    const ONE: Topology = Topology::single_node(4);
    assert_eq!((ONE.cpu_count(), ONE.node_count()), (4, 1));
    assert_eq!(ONE.nearest(NodeId::FIRST), [NodeId::FIRST]);
    assert_eq!(ONE.cpus_of(NodeId::FIRST), CpuMask::first_n(4));
    assert_eq!(Topology::single_node(0).cpu_count(), 1);
    assert_eq!(Topology::single_node(1000).cpu_count(), MAX_CPUS);
}

#[test]
fn ties_go_round_the_ring() {
    let topology = Topology::new(&[node(0), node(2)], 4, &Topology::default_distances()).unwrap();
    assert_eq!(
        topology.nearest(node(2)),
        [node(2), node(3), node(0), node(1)]
    );
    // Node 1 has no CPU, which is allowed.
    assert_eq!(topology.cpus_of(node(1)), CpuMask::EMPTY);
    assert!(topology.nearest(node(4)).is_empty());
}

#[test]
fn nonsense_is_refused() {
    let far = Topology::default_distances();
    assert_eq!(Topology::new(&[], 1, &far), Err(TopologyError::CpuCount(0)));
    assert_eq!(
        Topology::new(&[node(0); 65], 1, &far),
        Err(TopologyError::CpuCount(65))
    );
    assert_eq!(
        Topology::new(&[node(0)], 0, &far),
        Err(TopologyError::NodeCount(0))
    );
    assert_eq!(
        Topology::new(&[node(0)], 9, &far),
        Err(TopologyError::NodeCount(9))
    );
    let absent = Topology::new(&[node(0), node(2)], 2, &far);
    assert_eq!(
        absent,
        Err(TopologyError::NodeOfCpu(CpuId::new(1).unwrap(), node(2)))
    );
    for (from, to, d) in [(0, 1, 9), (0, 1, 255), (1, 1, 11)] {
        let mut distance = far;
        distance[from][to] = d;
        let error = Topology::new(&[node(0)], 2, &distance).unwrap_err();
        assert_eq!(error, TopologyError::Distance(node(from), node(to), d));
        assert!(error.to_string().contains(&d.to_string()));
    }
}

proptest! {
    #[test]
    fn nearest_is_sorted_and_whole(
        nodes in 1usize..=MAX_NODES,
        seed in prop::collection::vec(LOCAL_DISTANCE..=MAX_DISTANCE, MAX_NODES * MAX_NODES),
        of_cpu in prop::collection::vec(0usize..MAX_NODES, 1..=MAX_CPUS),
    ) {
        let mut distance = [[0; MAX_NODES]; MAX_NODES];
        for from in 0..MAX_NODES {
            for to in 0..MAX_NODES {
                distance[from][to] = if from == to { LOCAL_DISTANCE } else { seed[from * MAX_NODES + to] };
            }
        }
        let of_cpu: Vec<_> = of_cpu.into_iter().map(|n| node(n % nodes)).collect();
        let topology = Topology::new(&of_cpu, nodes, &distance).unwrap();
        for from in topology.nodes() {
            let order = topology.nearest(from);
            prop_assert_eq!(order[0], from);
            prop_assert!(order.is_sorted_by_key(|&to| topology.distance(from, to)));
            prop_assert_eq!(order.iter().copied().collect::<platform::NodeMask>(), topology.nodes());
            prop_assert_eq!(order.len(), nodes);
        }
        let total: usize = topology.nodes().iter().map(|n| topology.cpus_of(n).count()).sum();
        prop_assert_eq!(total, of_cpu.len());
        for cpu in topology.cpus() {
            prop_assert_eq!(topology.node_of(cpu), of_cpu[cpu.index()]);
        }
    }
}
