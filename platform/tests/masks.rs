//! Masks against a plain set of numbers.

use std::collections::BTreeSet;

use platform::{CpuId, CpuMask, MAX_CPUS, MAX_NODES, NodeId, NodeMask};
use proptest::prelude::*;

fn cpu(number: u32) -> CpuId {
    CpuId::new(number).unwrap()
}

/// Reads back what `Display` wrote.
fn parse_ranges(text: &str) -> BTreeSet<u32> {
    let mut set = BTreeSet::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        set.extend(first.parse::<u32>().unwrap()..=last.parse().unwrap());
    }
    set
}

#[test]
fn ids_are_checked() {
    assert_eq!(CpuId::new(63).map(CpuId::index), Some(63));
    assert_eq!(CpuId::new(64), None);
    assert_eq!(CpuId::from_index(MAX_CPUS), None);
    assert_eq!(NodeId::new(7).map(NodeId::number), Some(7));
    assert_eq!(NodeId::new(8), None);
    assert_eq!(NodeId::new(256), None);
    assert_eq!(NodeId::from_index(MAX_NODES), None);
    assert_eq!(
        format!("{} {:?} {:?}", cpu(5), cpu(5), NodeId::FIRST),
        "5 cpu5 node0"
    );
}

#[test]
fn display_writes_ranges() {
    assert_eq!(CpuMask::EMPTY.to_string(), "");
    assert_eq!(CpuMask::ALL.to_string(), "0-63");
    assert_eq!(CpuMask::first_n(1).to_string(), "0");
    assert_eq!(
        CpuMask::first_n(4).with(cpu(5)).with(cpu(63)).to_string(),
        "0-3,5,63"
    );
    assert_eq!(CpuMask::from_bits(0b110).to_string(), "1-2");
    assert_eq!(NodeMask::ALL.to_string(), "0-7");
    assert_eq!(format!("{:?}", NodeMask::first_n(2)), "NodeMask(0-1)");
}

#[test]
fn masks_are_const() {
    const MASK: CpuMask = CpuMask::first_n(3).complement_within(5);
    assert_eq!(MASK.bits(), 0b11000);
    assert_eq!(CpuMask::first_n(100), CpuMask::ALL);
    assert_eq!(NodeMask::first_n(0), NodeMask::EMPTY);
}

proptest! {
    #[test]
    fn mask_is_a_set(numbers in prop::collection::btree_set(0u32..64, 0..64), other: u64, n in 0usize..80, probe in 0u32..64) {
        let mut mask: CpuMask = numbers.iter().map(|&n| cpu(n)).collect();
        prop_assert_eq!(mask.count(), numbers.len());
        prop_assert_eq!(mask.is_empty(), numbers.is_empty());
        prop_assert_eq!(mask.first().map(CpuId::number), numbers.first().copied());
        prop_assert_eq!(mask.last().map(CpuId::number), numbers.last().copied());
        prop_assert!(mask.iter().map(CpuId::number).eq(numbers.iter().copied()));
        prop_assert!(mask.iter().rev().map(CpuId::number).eq(numbers.iter().rev().copied()));
        prop_assert_eq!(parse_ranges(&mask.to_string()), numbers.clone());
        let outside: Vec<_> = (0..n.min(64) as u32).filter(|n| !numbers.contains(n)).collect();
        prop_assert!(mask.complement_within(n).iter().map(CpuId::number).eq(outside));
        let other = CpuMask::from_bits(other);
        prop_assert_eq!(mask.union(other).count() + mask.intersection(other).count(), mask.count() + other.count());
        prop_assert_eq!(mask.difference(other).union(mask.intersection(other)), mask);
        prop_assert!(mask.difference(other).is_subset(mask));
        let held = numbers.contains(&probe);
        prop_assert_eq!(mask.set(cpu(probe)), !held);
        prop_assert!(mask.contains(cpu(probe)));
        prop_assert!(mask.clear(cpu(probe)));
        prop_assert!(!mask.clear(cpu(probe)));
        prop_assert_eq!(mask.with(cpu(probe)).without(cpu(probe)), mask);
    }
}
