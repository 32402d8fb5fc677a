//! Regions, maps and lists against plain sets of bytes.

use mm::region::{Full, PHYSICAL_LIMIT, Region, RegionList, RegionMap};
use proptest::prelude::*;

fn region(start: u64, end: u64) -> Region {
    Region::new(start, end).unwrap()
}

#[test]
fn regions_are_checked() {
    assert_eq!(Region::new(5, 5), None);
    assert_eq!(Region::new(6, 5), None);
    assert_eq!(Region::new(0, PHYSICAL_LIMIT + 1), None);
    assert_eq!(Region::with_size(u64::MAX, 2), None);
    assert_eq!(Region::with_size(1, u64::MAX), None);
    let all = region(0, PHYSICAL_LIMIT);
    assert_eq!(all.page_align_outwards(), all);
    assert_eq!(
        region(PHYSICAL_LIMIT - 1, PHYSICAL_LIMIT)
            .page_align_outwards()
            .pages(),
        1
    );
    assert_eq!(region(1, 4095).page_align_inwards(), None);
    assert_eq!(
        region(1, 8193).page_align_inwards(),
        Some(region(4096, 8192))
    );
    assert_eq!(region(1, 4097).page_align_outwards(), region(0, 8192));
    assert_eq!(region(0, 10).below(0), None);
    assert_eq!(region(0, 10).above(4), Some(region(4, 10)));
    assert!(region(0, 10).overlaps(region(9, 11)) && !region(0, 10).overlaps(region(10, 11)));
    assert_eq!(region(0x1000, 0x2000).to_string(), "0x1000-0x1fff");
}

#[test]
fn full_lists_stay_as_they_were() {
    let mut list = RegionList::<2>::new();
    list.add(region(0, 10)).unwrap();
    list.add(region(20, 30)).unwrap();
    let before = list.clone();
    assert_eq!(list.add(region(40, 50)), Err(Full));
    assert_eq!(list.remove(region(3, 5)), Err(Full));
    assert_eq!(list, before);
    // What needs no room still works: growing, joining, shrinking.
    list.add(region(10, 20)).unwrap();
    assert_eq!((list.len(), list.bytes()), (1, 30));
    list.remove(region(3, 5)).unwrap();
    list.remove(region(0, 1)).unwrap();
    assert!(list.iter().eq([region(1, 3), region(5, 30)]));
    assert_eq!(format!("{list:?}"), "[0x1-0x2, 0x5-0x1d]");

    let mut map = RegionMap::<char, 3>::new();
    map.paint(region(10, 20), 'a').unwrap();
    map.paint(region(30, 40), 'b').unwrap();
    let before = map.clone();
    // The first gap would fit, the second would not.
    assert_eq!(map.fill(region(0, 50), 'c'), Err(Full));
    assert_eq!(map, before);
    assert_eq!(RegionList::<0>::new().add(region(0, 1)), Err(Full));
}

#[test]
fn painting_joins_only_equals() {
    let mut map = RegionMap::<char, 8>::new();
    map.paint(region(0, 10), 'a').unwrap();
    map.paint(region(10, 20), 'b').unwrap();
    map.paint(region(5, 15), 'a').unwrap();
    assert_eq!(map.entries(), [(region(0, 15), 'a'), (region(15, 20), 'b')]);
    map.paint(region(0, 20), 'c').unwrap();
    assert_eq!(map.entries(), [(region(0, 20), 'c')]);
    map.paint(region(5, 6), 'c').unwrap();
    map.paint(region(5, 6), 'd').unwrap();
    assert_eq!(map.entries().len(), 3);
    assert_eq!(map.kind_at(5), Some('d'));
    assert_eq!(map.kind_at(20), None);
}

const SPACE: usize = 64;

#[derive(Clone, Debug)]
enum Step {
    Paint(u64, u64, u8),
    Fill(u64, u64, u8),
    Erase(u64, u64),
    Clip(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..SPACE as u64, 1..SPACE as u64 / 2);
    prop_oneof![
        4 => (range(), 0u8..3).prop_map(|((s, l), k)| Step::Paint(s, l, k)),
        2 => (range(), 0u8..3).prop_map(|((s, l), k)| Step::Fill(s, l, k)),
        3 => range().prop_map(|(s, l)| Step::Erase(s, l)),
        1 => (0..8u64, 40..SPACE as u64).prop_map(|(s, l)| Step::Clip(s, l)),
    ]
}

fn check<const N: usize>(map: &RegionMap<u8, N>, model: &[Option<u8>]) {
    for (at, kind) in model.iter().enumerate() {
        assert_eq!(map.kind_at(at as u64), *kind, "byte {at} of {map:?}");
    }
    for pair in map.entries().windows(2) {
        let [(a, kind_a), (b, kind_b)] = pair else {
            unreachable!()
        };
        assert!(a.end() < b.start() || (a.end() == b.start() && kind_a != kind_b));
    }
    let all = region(0, model.len() as u64);
    let parts: Vec<_> = map.parts(all).collect();
    assert_eq!(
        parts.iter().map(|(part, _)| part.size()).sum::<u64>(),
        all.size()
    );
    for (part, kind) in parts {
        assert!((part.start()..part.end()).all(|at| model[at as usize] == kind));
    }
    for kind in 0..3 {
        let bytes = model.iter().filter(|&&known| known == Some(kind)).count() as u64;
        assert_eq!(map.bytes_where(|known| known == kind), bytes);
    }
}

fn run<const N: usize>(steps: &[Step]) {
    let mut map = RegionMap::<u8, N>::new();
    let mut model = [None; 2 * SPACE];
    for step in steps {
        let (mut next, before) = (model, map.clone());
        let at = |s: u64, l: u64| s as usize..(s + l) as usize;
        let result = match *step {
            Step::Paint(s, l, kind) => {
                next[at(s, l)].fill(Some(kind));
                map.paint(Region::with_size(s, l).unwrap(), kind)
            }
            Step::Fill(s, l, kind) => {
                next[at(s, l)]
                    .iter_mut()
                    .for_each(|k| *k = k.or(Some(kind)));
                map.fill(Region::with_size(s, l).unwrap(), kind)
            }
            Step::Erase(s, l) => {
                next[at(s, l)].fill(None);
                map.erase(Region::with_size(s, l).unwrap())
            }
            Step::Clip(s, l) => {
                next[..s as usize].fill(None);
                next[(s + l) as usize..].fill(None);
                map.clip(Region::with_size(s, l).unwrap());
                Ok(())
            }
        };
        match result {
            Ok(()) => model = next,
            Err(Full) => {
                // Refused only if it does not fit; filling goes gap by gap and
                // may need more on the way than in the end.
                let needed = next
                    .chunk_by(|a, b| a == b)
                    .filter(|run| run[0].is_some())
                    .count();
                assert!(
                    needed > N || matches!(step, Step::Fill(..)),
                    "{needed} fit into {N}"
                );
                assert_eq!(map, before);
            }
        }
        check(&map, &model);
    }
}

proptest! {
    #[test]
    fn a_map_is_a_row_of_kinds(steps in prop::collection::vec(step(), 1..40)) {
        run::<128>(&steps);
    }

    #[test]
    fn a_small_map_refuses_what_does_not_fit(steps in prop::collection::vec(step(), 1..40)) {
        run::<4>(&steps);
    }

    #[test]
    fn aligning_a_list(ranges in prop::collection::vec((0u64..40_000, 1u64..9_000), 0..12)) {
        let mut list = RegionList::<16>::new();
        for (start, size) in ranges {
            list.add(Region::with_size(start, size).unwrap()).unwrap();
        }
        let (mut inner, mut outer) = (list.clone(), list.clone());
        prop_assert_eq!(list.bytes() - inner.page_align_inwards(), inner.bytes());
        prop_assert_eq!(list.bytes() + outer.page_align_outwards(), outer.bytes());
        for page in 0..14 {
            let page = region(page * 4096, (page + 1) * 4096);
            prop_assert_eq!(inner.covers(page), list.covers(page));
            prop_assert_eq!(inner.contains(page.start()), list.covers(page));
            let touched = (page.start()..page.end()).any(|at| list.contains(at));
            prop_assert_eq!(outer.covers(page), touched);
        }
    }
}
