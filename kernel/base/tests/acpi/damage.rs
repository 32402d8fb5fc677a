//! Tables that are cut or have wrong bytes: nothing may panic or hang.

use proptest::prelude::*;

use crate::builder::{Image, Machine};
use crate::check_invariants;

const TABLES: [&str; 10] = [
    "RSDP", "RSDT", "XSDT", "DSDT", "FACP", "APIC", "HPET", "SRAT", "SLIT", "MCFG",
];

fn machine() -> Machine {
    Machine {
        xsdt: true,
        ..Machine::q35()
    }
}

#[test]
fn every_end_of_memory() {
    let whole = machine().write();
    for length in 0..whole.bytes.len() {
        let mut image = whole.clone();
        image.bytes.truncate(length);
        check_invariants(&image.discover());
    }
}

#[test]
fn every_length_of_every_table() {
    // The length field, with the sum of the table made right again.
    for name in TABLES.into_iter().filter(|&name| name != "RSDP") {
        let whole = machine().write();
        let (start, length) = whole.place(name);
        for short in 0..length as u32 {
            let mut image = whole.clone();
            image.bytes[start + 4..start + 8].copy_from_slice(&short.to_le_bytes());
            image.fix_checksum(name);
            check_invariants(&image.discover());
        }
    }
}

#[test]
fn every_body_cut_short() {
    for name in TABLES {
        let Some(index) = machine().tables.iter().position(|table| table.0 == name) else {
            continue;
        };
        for length in 0..machine().tables[index].2.len() {
            let mut machine = machine();
            machine.tables[index].2.truncate(length);
            check_invariants(&machine.write().discover());
        }
    }
}

#[test]
fn every_byte_of_every_table() {
    let whole = machine().write();
    for name in TABLES {
        let (start, length) = whole.place(name);
        for at in start..start + length {
            for value in [
                0,
                1,
                2,
                0x7f,
                0x80,
                0xff,
                whole.bytes[at] ^ 1,
                whole.bytes[at] ^ 0x40,
            ] {
                let mut image = whole.clone();
                image.bytes[at] = value;
                check_invariants(&image.discover());
                if name != "RSDP" {
                    image.fix_checksum(name);
                    check_invariants(&image.discover());
                }
            }
        }
    }
}

fn damaged(damage: &[(prop::sample::Index, u8)]) -> Image {
    let mut image = machine().write();
    for (at, value) in damage {
        let at = at.index(image.bytes.len());
        image.bytes[at] = *value;
    }
    image
}

proptest! {
    #[test]
    fn many_wrong_bytes(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40)) {
        check_invariants(&damaged(&damage).discover());
    }

    #[test]
    fn noise_for_bodies(
        name in prop::sample::select(vec!["FACP", "APIC", "HPET", "SRAT", "SLIT", "DSDT"]),
        body in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..42], 0..600),
    ) {
        let mut machine = machine();
        *machine.body(name) = body;
        check_invariants(&machine.write().discover());
    }
}
