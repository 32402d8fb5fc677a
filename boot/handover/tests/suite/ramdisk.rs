//! The tar archive: the kernel is found, broken archives are refused.

use crate::common::Random;
use boot_handover::{Error, find_kernel};

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        builder.append_data(&mut header, name, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Makes the checksum of the header at `at` right again.
fn seal(archive: &mut [u8], at: usize) {
    let header = &mut archive[at..at + 512];
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn kernel_is_found_among_other_members() {
    let kernel = vec![0xab; 1500];
    let archive = archive(&[
        ("cmdline", b"loglevel=debug"),
        ("kernel.old", b"no"),
        ("sub/kernel", b"no"),
        ("kernel", &kernel),
        ("symbols", &[1; 600]),
    ]);
    assert_eq!(find_kernel(&archive), Ok(&kernel[..]));
}

#[test]
fn a_missing_kernel_is_reported() {
    let empty = archive(&[]);
    let none = find_kernel(&empty);
    assert!(matches!(none, Err(Error::Archive(_))), "{none:?}");
    let other = archive(&[("kernel2", b"x"), ("cmdline", b"")]);
    assert_eq!(find_kernel(&other), Err(Error::NoKernel));
}

#[test]
fn truncated_archives_are_refused() {
    let whole = archive(&[("cmdline", b"a=b"), ("kernel", &[7; 2000])]);
    for len in 0..whole.len() - 512 {
        let result = find_kernel(&whole[..len]);
        assert!(
            matches!(result, Err(Error::Archive(_))),
            "{len}: {result:?}"
        );
    }
}

#[test]
fn lying_sizes_are_refused() {
    for size in [
        "00000004001\0",
        "77777777777\0",
        "0000000000x\0",
        "99999999999\0",
    ] {
        let mut archive = archive(&[("kernel", &[7; 2000])]);
        archive[124..136].copy_from_slice(size.as_bytes());
        seal(&mut archive, 0);
        let result = find_kernel(&archive);
        // A size that is merely too large by a bit reads on into the padding and the
        // final blocks, and then the archive has no end.
        assert!(
            matches!(result, Err(Error::Archive(_))),
            "{size}: {result:?}"
        );
    }
    // Sizes in base 256, for files beyond 8 GiB.
    let mut archive = archive(&[("kernel", &[7; 2000])]);
    archive[124..136].fill(0xff);
    seal(&mut archive, 0);
    assert!(matches!(find_kernel(&archive), Err(Error::Archive(_))));
}

#[test]
fn corrupt_headers_never_panic() {
    let whole = archive(&[("cmdline", b"a=b"), ("kernel", &[7; 600])]);
    let mut random = Random(99);
    for round in 0..50_000 {
        let mut archive = whole.clone();
        for _ in 0..=random.below(4) {
            let at = [0, 1024][random.below(2) as usize] + random.below(512) as usize;
            archive[at] = random.next() as u8;
        }
        // Half of the time the checksum is right all the same.
        if round % 2 == 0 {
            seal(&mut archive, 0);
            seal(&mut archive, 1024);
        }
        if let Ok(kernel) = find_kernel(&archive) {
            assert!(kernel.len() <= archive.len());
        }
    }
}
