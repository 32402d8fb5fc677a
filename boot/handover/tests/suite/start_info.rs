//! The structure behind `ebx`.

use boot_handover::{Error, Module, RawRegion, StartInfo};

fn bytes(fields: &[(usize, u64, usize)]) -> [u8; StartInfo::SIZE] {
    let mut bytes = [0; StartInfo::SIZE];
    for &(at, value, len) in fields {
        bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    }
    bytes
}

const SOUND: [(usize, u64, usize); 7] = [
    (0, 0x336e_c578, 4),
    (4, 1, 4),
    (12, 2, 4),
    (16, 0x1_2345_6789, 8),
    (32, 0xf_59d0, 8),
    (40, 0x9000, 8),
    (48, 9, 4),
];

#[test]
fn fields_are_read_from_their_places() {
    let expected = StartInfo {
        module_count: 2,
        modules: 0x1_2345_6789,
        rsdp: 0xf_59d0,
        memory_map: 0x9000,
        memory_map_count: 9,
    };
    assert_eq!(StartInfo::parse(&bytes(&SOUND)), Ok(expected));

    let mut module = [0; Module::SIZE];
    module[..16].copy_from_slice(&bytes(&[(0, 0x1000, 8), (8, 0x200, 8)])[..16]);
    let expected = Module {
        address: 0x1000,
        size: 0x200,
    };
    assert_eq!(Module::parse(&module), expected);

    let mut region = [0; RawRegion::SIZE];
    let fields = bytes(&[(0, 0x1000, 8), (8, 1 << 33, 8), (16, 2, 4)]);
    region.copy_from_slice(&fields[..RawRegion::SIZE]);
    let expected = RawRegion {
        start: 0x1000,
        size: 1 << 33,
        kind: 2,
    };
    assert_eq!(RawRegion::parse(&region), expected);
}

#[test]
fn what_cannot_be_used_is_refused() {
    for (index, value) in [(0, 0x2bad_b002), (1, 0), (3, 0), (5, 0), (6, 0)] {
        let mut fields = SOUND;
        fields[index].1 = value;
        let result = StartInfo::parse(&bytes(&fields));
        assert!(matches!(result, Err(Error::StartInfo(_))), "{fields:x?}");
    }
    assert!(StartInfo::parse(&[0xff; StartInfo::SIZE]).is_err());
}
