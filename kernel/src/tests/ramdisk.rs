//! The ramdisk of this boot, and archives that are damaged.

use alloc::vec;
use alloc::vec::Vec;

use kernel_base::ramdisk::Ramdisk;

use crate::boot;
use crate::kunit::{Ctx, Outcome, kassert, kassert_eq, kassert_ok, kskip, kunit_suite};

kunit_suite! {
    name: "ramdisk",
    cases: [
        own_ramdisk,
        well_formed,
        damaged => { over: DAMAGES },
        every_truncation,
        random_damage,
    ],
}

const BLOCK: usize = 512;

fn own_ramdisk(_: &mut Ctx) -> Outcome {
    let Some(ramdisk) = boot::ramdisk() else {
        kskip!("this boot has no ramdisk");
    };
    let mut total = 0;
    for (name, data) in ramdisk.members() {
        kassert!(!name.is_empty());
        kassert_eq!(
            ramdisk.find(name).map(<[u8]>::as_ptr),
            Some(data.as_ptr()),
            "{name}"
        );
        total += data.len();
    }
    kassert!(total <= ramdisk.size());
    kassert!(
        ramdisk.find("symbols").is_some(),
        "backtraces would have no names"
    );
    kassert!(ramdisk.find("no such member").is_none());
    Ok(())
}

/// A member as `tar` writes it, its data filled up to whole blocks.
fn member(name: &[u8], data: &[u8]) -> Vec<u8> {
    let mut header = vec![0; BLOCK];
    header[..name.len()].copy_from_slice(name);
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    octal(&mut header[124..135], data.len());
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = b'0';
    header[257..263].copy_from_slice(b"ustar\0");
    header[263..265].copy_from_slice(b"00");
    seal(&mut header);
    header.extend_from_slice(data);
    header.resize(header.len().next_multiple_of(BLOCK), 0);
    header
}

/// Writes `value` in octal, with leading zeros.
fn octal(field: &mut [u8], mut value: usize) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (value % 8) as u8;
        value /= 8;
    }
}

/// Puts the right checksum into a header.
fn seal(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum = header[..BLOCK].iter().map(|&byte| usize::from(byte)).sum();
    octal(&mut header[148..154], sum);
    header[154] = 0;
}

/// Two members and the end mark.
fn archive() -> Vec<u8> {
    let mut bytes = member(b"one", b"first");
    bytes.extend(member(b"two", &[7; 700]));
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}

/// The helpers make what the kernel takes; else the cases below prove nothing.
fn well_formed(_: &mut Ctx) -> Outcome {
    let bytes = archive();
    let ramdisk = kassert_ok!(Ramdisk::new(&bytes));
    kassert_eq!(ramdisk.find("one"), Some(&b"first"[..]));
    kassert_eq!(ramdisk.find("two").map(<[u8]>::len), Some(700));
    kassert_eq!(ramdisk.members().count(), 2);
    Ok(())
}

/// Damages a well-formed archive.
type Damage = fn(&mut Vec<u8>);

const DAMAGES: &[(&str, Damage)] = &[
    ("empty", Vec::clear),
    ("not-whole-blocks", |bytes| bytes.truncate(700)),
    ("noise", |bytes| bytes.fill(0xa5)),
    ("bad-checksum", |bytes| bytes[0] ^= 1),
    ("size-not-a-number", |bytes| {
        bytes[124..135].fill(b'z');
        seal(bytes);
    }),
    ("size-beyond-the-end", |bytes| {
        bytes[124..135].fill(b'7');
        seal(bytes);
    }),
    ("no-name", |bytes| {
        bytes[..100].fill(0);
        seal(bytes);
    }),
    ("name-not-utf8", |bytes| {
        bytes[0] = 0xff;
        seal(bytes);
    }),
    ("same-name-twice", |bytes| {
        // The second member's header follows one block of data.
        bytes[2 * BLOCK..2 * BLOCK + 3].copy_from_slice(b"one");
        seal(&mut bytes[2 * BLOCK..]);
    }),
];

fn damaged(_: &mut Ctx, damage: Damage) -> Outcome {
    let mut bytes = archive();
    damage(&mut bytes);
    kassert!(Ramdisk::new(&bytes).is_err(), "it was taken for a ramdisk");
    Ok(())
}

/// A part of an archive is refused or has no more in it than the whole.
fn every_truncation(_: &mut Ctx) -> Outcome {
    let bytes = archive();
    for length in 0..bytes.len() {
        if let Ok(ramdisk) = Ramdisk::new(&bytes[..length]) {
            for (name, data) in ramdisk.members() {
                kassert!(name == "one" || name == "two", "{name:?} at {length}");
                kassert!(
                    data.len() == 5 || data.len() == 700,
                    "{} at {length}",
                    data.len()
                );
            }
        }
    }
    Ok(())
}

/// Whatever the bytes are, the data of a member lies inside the archive.
fn random_damage(ctx: &mut Ctx) -> Outcome {
    for _ in 0..300 {
        let mut bytes = archive();
        for _ in 0..=ctx.rng().below(3) {
            let at = ctx.rng().below(bytes.len() as u64) as usize;
            bytes[at] = ctx.rng().next_u64() as u8;
        }
        // Half of the time with a right checksum, to get past that test.
        if ctx.rng().below(2) == 0 {
            seal(&mut bytes);
        }
        let range = bytes.as_ptr_range();
        if let Ok(ramdisk) = Ramdisk::new(&bytes) {
            for (_, data) in ramdisk.members() {
                let inside = data.as_ptr_range();
                kassert!(range.start <= inside.start && inside.end <= range.end);
            }
        }
    }
    Ok(())
}
