//! Symbol tables: round trips, and tables that are damaged.

use kernel_base::symbols::{EncodeError, MAX_NAME, NameBuffer, SymbolTable, SymbolsError, encode};
use proptest::prelude::*;

const BASE: u64 = 0xffff_ffff_8020_0000;

fn sample(count: u64) -> Vec<u8> {
    let symbols = (0..count).map(|i| (BASE + 32 * i, 32, format!("kernel::part{}::f{i}", i % 7)));
    encode(BASE, symbols).unwrap()
}

/// Uses everything a table offers; only panics and endless loops can fail it.
fn exercise(bytes: &[u8]) {
    let Ok(table) = SymbolTable::new(bytes) else {
        return;
    };
    let _ = table.verify();
    let range = table.range();
    for address in [
        0,
        BASE,
        BASE + 33,
        range.start,
        range.end.wrapping_sub(1),
        range.end,
        u64::MAX,
    ] {
        if let Some(symbol) = table.resolve(address) {
            let _ = symbol.to_string();
        }
    }
    for name in [
        "",
        "kernel::part3::f3",
        "kernel::part3::f",
        "zzz",
        "kernel::part0::f0",
    ] {
        let _ = table.lookup_name(name);
    }
    for (_, name) in table.iter().take(100) {
        let _ = format!("{name:?}");
    }
}

#[test]
fn resolves_addresses_and_names() {
    let table = [
        (BASE + 0x10, 0x10, "b"),
        (BASE, 0x10, "a"),
        (BASE + 0x100, 8, "c"),
    ];
    let bytes = encode(BASE, table).unwrap();
    let table = SymbolTable::new(&bytes).unwrap();
    table.verify().unwrap();
    let resolve = |address| table.resolve(address).map(|s| s.to_string());
    assert_eq!(resolve(BASE - 1), None);
    assert_eq!(resolve(BASE).as_deref(), Some("a+0x0"));
    assert_eq!(resolve(BASE + 0x1f).as_deref(), Some("b+0xf"));
    // Between symbols: the one before, as every backtrace shows it.
    assert_eq!(resolve(BASE + 0x20).as_deref(), Some("b+0x10"));
    assert_eq!(resolve(BASE + 0x107).as_deref(), Some("c+0x7"));
    assert_eq!(resolve(BASE + 0x108), None);
    assert_eq!(resolve(u64::MAX), None);
    assert_eq!(table.lookup_name("c"), Some(BASE + 0x100));
    assert_eq!(table.lookup_name("d"), None);
    assert_eq!(table.range(), BASE..BASE + 0x108);
    assert_eq!((table.len(), table.is_empty()), (3, false));
}

#[test]
fn empty_tables_answer_nothing() {
    let bytes = encode(BASE, [] as [(u64, u64, &str); 0]).unwrap();
    for table in [SymbolTable::new(&bytes).unwrap(), SymbolTable::EMPTY] {
        table.verify().unwrap();
        assert!(table.is_empty());
        assert!(table.resolve(BASE).is_none() && table.resolve(0).is_none());
        assert_eq!(table.lookup_name(""), None);
        assert!(table.range().is_empty());
    }
}

#[test]
fn equal_names_and_equal_addresses() {
    let mut symbols: Vec<_> = (0..40)
        .map(|i| (BASE + i * 8, 8, "drop_in_place"))
        .collect();
    symbols.push((BASE, 8, "alias"));
    symbols.push((BASE, 8, "alias"));
    let bytes = encode(BASE, symbols).unwrap();
    let table = SymbolTable::new(&bytes).unwrap();
    table.verify().unwrap();
    assert_eq!(table.len(), 41);
    assert_eq!(table.lookup_name("drop_in_place"), Some(BASE));
    assert!(table.resolve(BASE + 1).unwrap().name == "alias");
}

#[test]
fn long_names_are_cut_at_a_character() {
    let long = "ä".repeat(MAX_NAME) + "x";
    let bytes = encode(BASE, [(BASE, 1, &long), (BASE + 1, 1, &format!("a{long}"))]).unwrap();
    let table = SymbolTable::new(&bytes).unwrap();
    let mut buffer: NameBuffer = [0; MAX_NAME];
    assert_eq!(
        table.resolve(BASE).unwrap().name.copy_to(&mut buffer).len(),
        MAX_NAME
    );
    assert_eq!(
        table
            .resolve(BASE + 1)
            .unwrap()
            .name
            .copy_to(&mut buffer)
            .len(),
        MAX_NAME - 1
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    for (address, size) in [
        (BASE - 1, 1),
        (BASE, 1 << 32),
        (u64::MAX, 2),
        (BASE, u64::MAX),
    ] {
        let error = encode(BASE, [(address, size, "f")]).unwrap_err();
        assert_eq!(
            error,
            EncodeError::OutOfRange {
                name: "f".into(),
                address
            }
        );
    }
    assert!(encode(BASE, [(u64::MAX - 1, 1, "f")]).is_ok());
    assert!(encode(BASE, [(u64::MAX, 1, "f")]).is_err());
}

#[test]
fn damage_is_named() {
    let good = sample(40);
    let with = |at: usize, value: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let error = |bytes: &[u8]| SymbolTable::new(bytes).unwrap_err();
    assert_eq!(error(&good[..31]), SymbolsError::NotASymbolTable);
    assert_eq!(error(&with(0, 0)), SymbolsError::NotASymbolTable);
    assert_eq!(error(&with(8, 2)), SymbolsError::Version(2));
    assert!(matches!(
        error(&with(12, u32::MAX)),
        SymbolsError::Length { .. }
    ));
    assert!(matches!(
        error(&good[..good.len() - 1]),
        SymbolsError::Length { .. }
    ));
    let mut too_high = with(20, u32::MAX);
    too_high[16..20].fill(0xff);
    assert_eq!(error(&too_high), SymbolsError::Addresses);
    let blocks = 32 + 40 * 8;
    assert_eq!(error(&with(blocks, 1)), SymbolsError::Blocks);
    assert_eq!(error(&with(blocks + 8, u32::MAX)), SymbolsError::Blocks);
    // The order of addresses is not looked at on opening, but by `verify`.
    let unsorted = with(32 + 4, 0x7000);
    assert_eq!(
        SymbolTable::new(&unsorted).unwrap().verify(),
        Err(SymbolsError::Symbol(1))
    );
    let wrong_rank = with(32 + 160, 39);
    assert!(SymbolTable::new(&wrong_rank).unwrap().verify().is_err());
}

#[test]
fn every_truncation_and_every_byte() {
    let good = sample(40);
    for length in 0..good.len() {
        assert!(SymbolTable::new(&good[..length]).is_err());
    }
    for at in 0..good.len() {
        for value in [
            0,
            1,
            0x7f,
            0x80,
            0xff,
            good[at] ^ 1,
            good[at].wrapping_add(1),
        ] {
            let mut bytes = good.clone();
            bytes[at] = value;
            exercise(&bytes);
        }
    }
}

#[test]
fn sharing_prefixes_saves_space() {
    let names: usize = (0..1000)
        .map(|i| format!("kernel::part{}::f{i}", i % 7).len())
        .sum();
    let table = sample(1000).len() - 32 - 1000 * 8;
    assert!(
        table < names * 2 / 3,
        "{table} bytes for {names} bytes of names"
    );
}

proptest! {
    #[test]
    fn round_trip(
        symbols in prop::collection::btree_map(0u64..0x4000, ("[a-c:]{0,6}|\\PC{0,20}", 1u64..64), 0..120),
        probes in prop::collection::vec(0u64..0x4100, 20),
    ) {
        let list: Vec<_> = symbols.iter().map(|(&o, (n, s))| (BASE + o, *s, n.as_str())).collect();
        let bytes = encode(BASE, list.iter().rev().copied()).unwrap();
        prop_assert_eq!(&bytes, &encode(BASE, list.iter().copied()).unwrap());
        let table = SymbolTable::new(&bytes).unwrap();
        table.verify().unwrap();
        let read: Vec<_> = table.iter().map(|(address, name)| (address, name.to_string())).collect();
        let written: Vec<_> = list.iter().map(|&(a, _, n)| (a, n.to_string())).collect();
        prop_assert_eq!(read, written);
        let end = list.iter().map(|&(a, s, _)| a + s).max().unwrap_or(0);
        for address in probes.into_iter().map(|o| BASE + o) {
            let expected = list.iter().rev().find(|&&(a, _, _)| a <= address && address < end);
            let found = table.resolve(address);
            prop_assert_eq!(found.map(|s| s.address), expected.map(|s| s.0));
            if let (Some(found), Some(expected)) = (found, expected) {
                prop_assert!(found.name == expected.2);
                prop_assert_eq!(found.offset, address - expected.0);
            }
        }
        for &(_, _, name) in &list {
            let lowest = list.iter().find(|s| s.2 == name).unwrap().0;
            prop_assert_eq!(table.lookup_name(name), Some(lowest));
        }
    }

    #[test]
    fn damaged_tables_never_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut bytes = sample(40);
        for (at, value) in damage {
            let at = at.index(bytes.len() - 12) + 12;
            bytes[at] = value;
        }
        exercise(&bytes);
    }
}
