//! Ramdisks, whole and damaged.

use kernel_base::ramdisk::{Ramdisk, RamdiskError};
use proptest::prelude::*;

fn header(name: &str, size: usize) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_size(size as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    header
}

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in members {
        builder.append(&header(name, data.len()), *data).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Puts the right checksum into the header at the start of `block`.
fn fix_checksum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block[..512].iter().map(|&b| u32::from(b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn walk(bytes: &[u8]) -> Option<usize> {
    let ramdisk = Ramdisk::new(bytes).ok()?;
    let total = ramdisk
        .members()
        .map(|(name, data)| name.len() + data.len())
        .sum();
    assert!(ramdisk.find("no such member").is_none());
    Some(total)
}

#[test]
fn finds_members() {
    let bytes = archive(&[("kernel", &[7; 1000]), ("symbols", b"s"), ("cmdline", b"")]);
    let ramdisk = Ramdisk::new(&bytes).unwrap();
    assert_eq!(ramdisk.find("kernel"), Some([7; 1000].as_slice()));
    assert_eq!(ramdisk.find("symbols"), Some(b"s".as_slice()));
    assert_eq!(ramdisk.find("cmdline"), Some(b"".as_slice()));
    assert_eq!(ramdisk.find("kern"), None);
    assert!(
        ramdisk
            .members()
            .map(|(name, _)| name)
            .eq(["kernel", "symbols", "cmdline"])
    );
    assert_eq!(ramdisk.size(), bytes.len());
}

#[test]
fn empty_archive_is_fine_but_no_bytes_are_not() {
    assert_eq!(Ramdisk::new(&[0; 1536]).unwrap().members().count(), 0);
    for length in [0, 1, 512, 1024] {
        assert!(matches!(
            Ramdisk::new(&vec![0; length]),
            Err(RamdiskError::Corrupt(_))
        ));
    }
}

#[test]
fn special_entries_are_passed_over() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut directory = header("modules/", 0);
    directory.set_entry_type(tar::EntryType::Directory);
    directory.set_cksum();
    builder.append(&directory, std::io::empty()).unwrap();
    builder
        .append(&header("./modules/a.ko", 3), b"abc".as_slice())
        .unwrap();
    let bytes = builder.into_inner().unwrap();
    let ramdisk = Ramdisk::new(&bytes).unwrap();
    assert_eq!(ramdisk.find("modules/a.ko"), Some(b"abc".as_slice()));
    assert_eq!(ramdisk.members().count(), 1);
}

#[test]
fn bad_names_are_refused() {
    let twice = archive(&[("a", b"1"), ("a", b"2")]);
    assert_eq!(
        Ramdisk::new(&twice).unwrap_err(),
        RamdiskError::DuplicateName { block: 2 }
    );

    let mut unreadable = archive(&[("abc", b"1")]);
    unreadable[1] = 0xff;
    fix_checksum(&mut unreadable);
    assert_eq!(
        Ramdisk::new(&unreadable).unwrap_err(),
        RamdiskError::BadName { block: 0 }
    );

    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    let error = Ramdisk::new(&archive(&[(&long, b"1")])).unwrap_err();
    assert_eq!(error, RamdiskError::LongName { block: 0 });
    assert!(error.to_string().contains("100 bytes"));
}

#[test]
fn sizes_beyond_the_archive_are_refused() {
    let good = archive(&[("kernel", &[7; 1000])]);
    for size in [
        "00000010000",
        "77777777777",
        "zzzzzzzzzzz",
        "-0000000001",
        "           ",
    ] {
        let mut bytes = good.clone();
        bytes[124..135].copy_from_slice(size.as_bytes());
        fix_checksum(&mut bytes);
        assert!(
            matches!(Ramdisk::new(&bytes), Err(RamdiskError::Corrupt(_))),
            "{size:?}"
        );
    }
}

#[test]
fn every_truncation_is_refused_or_read() {
    let bytes = archive(&[("kernel", &[7; 600]), ("symbols", b"s")]);
    for length in 0..bytes.len() {
        walk(&bytes[..length]);
    }
    // Cut within the members, the terminator is missing.
    assert!(Ramdisk::new(&bytes[..2048]).is_err());
}

#[test]
fn every_header_byte_may_be_anything() {
    let good = archive(&[("kernel", &[7; 600]), ("symbols", b"s")]);
    for at in 0..512 {
        for value in [
            0,
            1,
            b' ',
            b'/',
            b'0',
            b'7',
            b'8',
            0x7f,
            0x80,
            0xff,
            good[at] ^ 1,
        ] {
            let mut bytes = good.clone();
            bytes[at] = value;
            if value != good[at] && !(148..156).contains(&at) {
                assert_eq!(
                    walk(&bytes),
                    None,
                    "byte {at} = {value}: checksum must not fit"
                );
            }
            fix_checksum(&mut bytes);
            walk(&bytes);
        }
    }
}

proptest! {
    #[test]
    fn noise_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 512..4096), whole: bool) {
        if whole {
            bytes.truncate(bytes.len() / 512 * 512);
        }
        walk(&bytes);
        fix_checksum(&mut bytes);
        walk(&bytes);
    }

    #[test]
    fn flipped_bytes_never_panic(
        flips in prop::collection::vec((0usize..512, any::<u8>(), 0usize..2), 1..8),
    ) {
        let mut bytes = archive(&[("kernel", &[7; 600]), ("symbols", b"s")]);
        for (at, value, member) in flips {
            bytes[member * 1536 + at] = value;
        }
        fix_checksum(&mut bytes);
        fix_checksum(&mut bytes[1536..]);
        walk(&bytes);
    }

    #[test]
    fn what_was_written_is_read(
        members in prop::collection::btree_map("[a-z]{1,20}", prop::collection::vec(any::<u8>(), 0..2000), 1..6),
    ) {
        let list: Vec<_> = members.iter().map(|(n, d)| (n.as_str(), d.as_slice())).collect();
        let bytes = archive(&list);
        let ramdisk = Ramdisk::new(&bytes).unwrap();
        prop_assert!(ramdisk.members().eq(list));
    }
}
