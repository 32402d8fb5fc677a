//! The kernel's ELF file: what is accepted, and how everything else is refused.

use crate::common::{BASE, Elf, Program, R, Random, W, X};
use boot_handover::{Error, KernelImage};
use bootloader_api::{BootloaderConfig, config::Mapping, info::TlsTemplate};

fn sound() -> Elf {
    Elf::new(&BootloaderConfig::new_default())
}

/// The error of a kernel spoilt by `change`.
fn refused(change: impl FnOnce(&mut Elf)) -> Error {
    let mut elf = sound();
    change(&mut elf);
    KernelImage::parse(&elf.build()).expect_err("must be refused")
}

fn segment(index: usize, problem: &'static str) -> Error {
    Error::Segment { index, problem }
}

#[test]
fn a_sound_kernel_is_read_in_full() {
    let mut config = BootloaderConfig::new_default();
    config.kernel_stack_size = 12_345;
    config.mappings.physical_memory = Some(Mapping::FixedAddress(0xffff_8880_0000_0000));
    let mut elf = Elf::new(&config);
    // Order in the file does not matter.
    elf.programs.swap(0, 2);
    let file = elf.build();
    let image = KernelImage::parse(&file).unwrap();
    assert_eq!(image.config, config);
    assert_eq!(image.entry, BASE + 0x10);
    assert_eq!(image.tls, None);
    let shape: Vec<_> = image
        .segments
        .iter()
        .map(|s| (s.address, s.size, s.data.len(), s.writable, s.executable))
        .collect();
    assert_eq!(
        shape,
        [
            (BASE, 5000, 5000, false, true),
            (BASE + 0x2000, 4096, 4096, false, false),
            (BASE + 0x3000, 20_000, 4500, true, false),
        ]
    );
    assert_eq!(image.segments[2].data, elf.programs[0].data);
    assert_eq!(image.segments[2].pages(), BASE + 0x3000..BASE + 0x8000);
}

#[test]
fn other_kinds_of_file_are_refused() {
    assert!(matches!(KernelImage::parse(&[]), Err(Error::Elf(_))));
    assert!(matches!(KernelImage::parse(b"MZ"), Err(Error::Elf(_))));
    let wrong_machine = Error::Elf("not for 64-bit x86");
    assert_eq!(refused(|e| e.machine = 183), wrong_machine);
    assert!(matches!(refused(|e| e.class = 1), Error::Elf(_)));
    assert!(matches!(refused(|e| e.endian = 2), Error::Elf(_)));
    let not_fixed = Error::Elf("not linked at a fixed address (ET_EXEC)");
    assert_eq!(refused(|e| e.kind = 3), not_fixed);
    assert_eq!(refused(|e| e.kind = 1), not_fixed);
    let dynamic = Error::Elf("dynamically linked");
    assert_eq!(refused(|e| e.programs[1].kind = 2), dynamic);
    assert_eq!(refused(|e| e.programs[1].kind = 3), dynamic);
}

#[test]
fn segments_must_be_sound() {
    let upper = "not in the upper half of the address space";
    type Change = fn(&mut Elf);
    let cases: [(Change, Error); 12] = [
        (
            |e| e.programs[1].file_size = 1 << 40,
            segment(1, "larger in the file than in memory"),
        ),
        (
            |e| {
                e.programs[1].file_size = 1 << 40;
                e.programs[1].size = 1 << 40;
            },
            segment(1, "reaches beyond the end of the file"),
        ),
        (
            |e| {
                e.programs[1].file_size = u64::MAX;
                e.programs[1].size = u64::MAX;
            },
            segment(1, "reaches beyond the end of the file"),
        ),
        (|e| e.programs[2].size = u64::MAX, segment(2, upper)),
        (|e| e.programs[2].size = 0x7fdf_d000, segment(2, upper)),
        (|e| e.programs[0].address = 0x20_0000, segment(0, upper)),
        (
            |e| e.programs[0].address = 0x8000_0000_0000,
            segment(0, upper),
        ),
        (
            |e| e.programs[1].address += 0x10,
            segment(1, "not page-aligned"),
        ),
        (|e| e.programs[1].flags = W, segment(1, "not readable")),
        (
            |e| e.programs[2].flags = R | W | X,
            segment(2, "both writable and executable"),
        ),
        (
            |e| e.programs[1].address = BASE + 0x1000,
            segment(1, "shares a page with the segment below it"),
        ),
        (
            |e| e.programs[0].size = 0x2001,
            segment(1, "shares a page with the segment below it"),
        ),
    ];
    for (change, error) in cases {
        assert_eq!(refused(change), error);
    }
    let none = Error::Elf("no loadable segment");
    assert_eq!(
        refused(|e| e.programs.iter_mut().for_each(|p| p.size = 0)),
        {
            // Empty in memory, but not in the file: never mind, nothing is loaded.
            none
        }
    );
    let many = |e: &mut Elf| {
        for i in 0..20 {
            let address = BASE + 0x10_0000 + i * 0x1000;
            e.programs.push(Program::load(R, address, vec![1], 1));
        }
    };
    assert_eq!(refused(many), Error::Elf("too many loadable segments"));
}

#[test]
fn entry_point_must_be_text() {
    let error = Error::Elf("entry point is not in an executable segment");
    for entry in [0, BASE - 1, BASE + 5000, BASE + 0x2000, u64::MAX] {
        assert_eq!(refused(|e| e.entry = entry), error, "{entry:#x}");
    }
}

#[test]
fn configuration_must_be_sound_and_of_this_version() {
    let missing = Error::Config("no such section");
    assert_eq!(refused(|e| e.config_name = ".something-else!!"), missing);
    assert_eq!(refused(|e| e.config_kind = 8), missing);
    assert!(matches!(
        refused(|e| e.config.truncate(132)),
        Error::Config(_)
    ));
    assert!(matches!(refused(|e| e.config.push(0)), Error::Config(_)));
    assert!(matches!(refused(|e| e.config[0] ^= 1), Error::Config(_)));
    let error = refused(|e| e.config[20] += 1);
    let Error::ApiVersion { kernel, stub } = error else {
        panic!("{error}");
    };
    assert_eq!(kernel, [stub[0], stub[1], stub[2] + 1]);
    let text = error.to_string();
    assert!(
        text.contains("0.11.16") && text.contains("0.11.15"),
        "{text}"
    );
}

#[test]
fn thread_local_template_and_relro_are_found() {
    let with = |kind, address, file_size, size| {
        let mut elf = sound();
        let mut program = Program::load(R, address, vec![], size);
        program.kind = kind;
        program.file_size = file_size;
        elf.programs.push(program);
        elf.build()
    };
    let file = with(7, BASE + 0x3008, 16, 64);
    let template = TlsTemplate {
        start_addr: BASE + 0x3008,
        file_size: 16,
        mem_size: 64,
    };
    assert_eq!(KernelImage::parse(&file).unwrap().tls, Some(template));
    for (address, file_size, size) in [
        (BASE + 0x9000, 16, 64),
        (BASE + 0x3000, 65, 64),
        (u64::MAX, 16, 64),
    ] {
        let error = KernelImage::parse(&with(7, address, file_size, size)).unwrap_err();
        assert_eq!(error, Error::Elf("thread-local template is not loaded"));
    }

    let relro = 0x6474_e552;
    let file = with(relro, BASE + 0x3000, 0x800, 0x1000);
    let image = KernelImage::parse(&file).unwrap();
    assert!(image.is_relro(BASE + 0x3000) && !image.is_relro(BASE + 0x4000));
    assert!(!image.is_relro(BASE + 0x2000));
    for (address, size) in [(0, 1), (BASE + 0x3000, u64::MAX)] {
        let error = KernelImage::parse(&with(relro, address, 0, size)).unwrap_err();
        let expected = "read-only-after-relocation range is not loaded";
        assert_eq!(error, Error::Elf(expected));
    }
}

#[test]
fn truncated_files_are_refused() {
    let file = sound().build();
    for len in 0..file.len() {
        assert!(KernelImage::parse(&file[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn corrupt_headers_never_panic() {
    let file = sound().build();
    let headers = 64 + 3 * 56;
    let sections = file.len() - 3 * 64;
    let mut random = Random(0x5eed);
    for _ in 0..100_000 {
        let mut file = file.clone();
        for _ in 0..=random.below(3) {
            let at = match random.below(2) {
                0 => random.below(headers) as usize,
                _ => sections + random.below(3 * 64) as usize,
            };
            file[at] = match random.below(3) {
                0 => 0,
                1 => 0xff,
                _ => random.next() as u8,
            };
        }
        // What is accepted must keep its promises.
        if let Ok(image) = KernelImage::parse(&file) {
            let mut end = 0xffff_8000_0000_0000;
            for segment in &image.segments {
                assert!(segment.address >= end && segment.address % 4096 == 0);
                assert!(segment.data.len() as u64 <= segment.size);
                assert!(!(segment.writable && segment.executable));
                end = segment.pages().end;
            }
        }
    }
}
