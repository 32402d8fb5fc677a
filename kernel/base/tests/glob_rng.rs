//! Globs against a plain matcher, and the random numbers.

use kernel_base::glob::{matches, matches_any};
use kernel_base::rng::Rng;
use proptest::prelude::*;

/// The definition, at any price.
fn plain(pattern: &[char], name: &[char]) -> bool {
    match pattern {
        [] => name.is_empty(),
        ['*', rest @ ..] => (0..=name.len()).any(|taken| plain(rest, &name[taken..])),
        ['?', rest @ ..] => !name.is_empty() && plain(rest, &name[1..]),
        [c, rest @ ..] => name.first() == Some(c) && plain(rest, &name[1..]),
    }
}

#[test]
fn globs() {
    for (pattern, name, expected) in [
        ("", "", true),
        ("", "a", false),
        ("*", "", true),
        ("**", "abc", true),
        ("?", "", false),
        ("?", "ä", true),
        ("mm.*", "mm.", true),
        ("mm.*", "mm", false),
        ("*.alloc", "mm.alloc", true),
        ("*a*b", "xaxbxb", true),
        ("*ab", "aab", true),
        ("a?c*", "abcd", true),
        ("[a]", "a", false),
    ] {
        assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
    }
    assert!(matches_any("a.*, b.c", "b.c"));
    for list in ["", ",", " , ", "b,c"] {
        assert!(!matches_any(list, "a"), "{list:?}");
    }
    assert!(!matches_any(",", ""));
}

#[test]
fn many_stars_cost_little() {
    // Exponential matchers do not come back from this one.
    let pattern = "a*".repeat(200) + "b";
    assert!(!matches(&pattern, &"a".repeat(20_000)));
}

#[test]
fn the_generator_is_the_published_one() {
    // First numbers of the reference version for the seed 1234567.
    let mut rng = Rng::new(1_234_567);
    let expected = [
        6_457_827_717_110_365_317,
        3_203_168_211_198_807_973,
        9_817_491_932_198_370_423,
    ];
    assert_eq!([rng.next_u64(), rng.next_u64(), rng.next_u64()], expected);
}

#[test]
fn numbers_below_a_bound_are_even() {
    let mut rng = Rng::new(1);
    let mut seen = [0; 10];
    for _ in 0..10_000 {
        seen[rng.below(10) as usize] += 1;
    }
    assert!(
        seen.iter().all(|&count| (800..1200).contains(&count)),
        "{seen:?}"
    );
    assert_eq!((rng.below(0), rng.below(1)), (0, 0));
    assert_ne!(rng.split(), rng);
}

proptest! {
    #[test]
    fn matches_what_it_should(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
        let (p, n): (Vec<_>, Vec<_>) = (pattern.chars().collect(), name.chars().collect());
        prop_assert_eq!(matches(&pattern, &name), plain(&p, &n));
    }

    #[test]
    fn shuffling_loses_nothing(seed: u64, length in 0usize..100) {
        let mut items: Vec<_> = (0..length).collect();
        Rng::new(seed).shuffle(&mut items);
        items.sort_unstable();
        prop_assert!(items.into_iter().eq(0..length));
    }
}
