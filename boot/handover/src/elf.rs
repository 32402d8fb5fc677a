//! The kernel's ELF file: checked in full before a byte of it is used.

use crate::{Error, PAGE, slots::check_range};
use arrayvec::ArrayVec;
use bootloader_api::{BootloaderConfig, info::TlsTemplate};
use core::ops::Range;
use elf::{
    ElfBytes,
    abi::{
        EM_X86_64, ET_EXEC, PF_R, PF_W, PF_X, PT_DYNAMIC, PT_GNU_RELRO, PT_INTERP, PT_LOAD, PT_TLS,
        SHT_NOBITS,
    },
    endian::LittleEndian,
    file::Class,
    segment::ProgramHeader,
};

type ElfFile<'a> = ElfBytes<'a, LittleEndian>;

/// The most loadable segments that are accepted.
const MAX_SEGMENTS: usize = 16;

/// Where the kernel belongs: everything from here up is the upper half.
const UPPER_HALF: u64 = 0xffff_8000_0000_0000;

/// A part of the kernel as it must appear in memory.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Virtual address, page-aligned.
    pub address: u64,
    /// Bytes in memory; those after `data` are zero.
    pub size: u64,
    /// What the file has of it.
    pub data: &'a [u8],
    /// Whether it may be written.
    pub writable: bool,
    /// Whether it may be executed (never along with `writable`).
    pub executable: bool,
}

impl Segment<'_> {
    /// The whole pages it covers.
    pub fn pages(&self) -> Range<u64> {
        // No overflow: the constructor keeps clear of the last page.
        self.address..(self.address + self.size).next_multiple_of(PAGE)
    }
}

/// A kernel that has passed all checks.
#[derive(Debug)]
pub struct KernelImage<'a> {
    /// The file.
    pub file: &'a [u8],
    /// Loadable segments in the order of their addresses, no two on one page.
    pub segments: ArrayVec<Segment<'a>, MAX_SEGMENTS>,
    /// Address of the first instruction, within an executable segment.
    pub entry: u64,
    /// What the kernel asks of its loader.
    pub config: BootloaderConfig,
    /// Template for thread-local storage, if there is any.
    pub tls: Option<TlsTemplate>,
    /// Pages that are to be read-only although their segment is writable.
    pub relro: Option<Range<u64>>,
}

impl<'a> KernelImage<'a> {
    /// Reads and checks an ELF file.
    pub fn parse(file: &'a [u8]) -> Result<Self, Error> {
        let elf = ElfFile::minimal_parse(file)
            .map_err(|_| Error::Elf("not a little-endian ELF file with its headers inside"))?;
        let header = &elf.ehdr;
        if header.class != Class::ELF64 || header.e_machine != EM_X86_64 {
            return Err(Error::Elf("not for 64-bit x86"));
        }
        if header.e_type != ET_EXEC {
            return Err(Error::Elf("not linked at a fixed address (ET_EXEC)"));
        }
        let programs = elf.segments().ok_or(Error::Elf("no program headers"))?;

        let config = read_config(&elf)?;
        let mut image = Self {
            file,
            segments: ArrayVec::new(),
            entry: header.e_entry,
            config,
            tls: None,
            relro: None,
        };
        for program in programs.iter() {
            match program.p_type {
                PT_LOAD => image.add_segment(&elf, &program)?,
                PT_INTERP | PT_DYNAMIC => return Err(Error::Elf("dynamically linked")),
                _ => {}
            }
        }
        image.check_segments()?;
        for program in programs.iter() {
            match program.p_type {
                PT_TLS => image.add_tls(&program)?,
                PT_GNU_RELRO => image.add_relro(&program)?,
                _ => {}
            }
        }
        Ok(image)
    }

    fn add_segment(&mut self, elf: &ElfFile<'a>, program: &ProgramHeader) -> Result<(), Error> {
        let size = program.p_memsz;
        if size == 0 {
            return Ok(());
        }
        let index = self.segments.len();
        let fail = |problem| Err(Error::Segment { index, problem });
        let address = program.p_vaddr;
        let flags = program.p_flags;
        let has = |flag| flags & flag == flag;
        if program.p_filesz > size {
            return fail("larger in the file than in memory");
        }
        let Ok(data) = elf.segment_data(program) else {
            return fail("reaches beyond the end of the file");
        };
        // The last page of the address space stays free, so that ends can be computed.
        if address < UPPER_HALF
            || size
                .checked_add(address)
                .is_none_or(|end| end > PAGE.wrapping_neg())
        {
            return fail("not in the upper half of the address space");
        }
        if !address.is_multiple_of(PAGE) {
            return fail("not page-aligned");
        }
        if !has(PF_R) {
            return fail("not readable");
        }
        let (writable, executable) = (has(PF_W), has(PF_X));
        if writable && executable {
            return fail("both writable and executable");
        }
        self.segments
            .try_push(Segment {
                address,
                size,
                data,
                writable,
                executable,
            })
            .map_err(|_| Error::Elf("too many loadable segments"))
    }

    fn check_segments(&mut self) -> Result<(), Error> {
        if self.segments.is_empty() {
            return Err(Error::Elf("no loadable segment"));
        }
        self.segments
            .sort_unstable_by_key(|segment| segment.address);
        for (index, pair) in self.segments.windows(2).enumerate() {
            if pair[0].pages().end > pair[1].address {
                let index = index + 1;
                let problem = "shares a page with the segment below it";
                return Err(Error::Segment { index, problem });
            }
        }
        let entry = self.entry;
        let holds_entry = |segment: &Segment<'_>| {
            segment.executable && (segment.address..segment.address + segment.size).contains(&entry)
        };
        if !self.segments.iter().any(holds_entry) {
            return Err(Error::Elf("entry point is not in an executable segment"));
        }
        Ok(())
    }

    /// Whether `size` bytes at `address` lie within one segment.
    fn is_loaded(&self, address: u64, size: u64) -> bool {
        self.segments.iter().any(|segment| {
            address
                .checked_sub(segment.address)
                .and_then(|offset| offset.checked_add(size))
                .is_some_and(|end| end <= segment.size)
        })
    }

    fn add_tls(&mut self, program: &ProgramHeader) -> Result<(), Error> {
        let template = TlsTemplate {
            start_addr: program.p_vaddr,
            file_size: program.p_filesz,
            mem_size: program.p_memsz,
        };
        if template.file_size > template.mem_size
            || !self.is_loaded(template.start_addr, template.file_size)
        {
            return Err(Error::Elf("thread-local template is not loaded"));
        }
        if self.tls.replace(template).is_some() {
            return Err(Error::Elf("more than one thread-local template"));
        }
        Ok(())
    }

    fn add_relro(&mut self, program: &ProgramHeader) -> Result<(), Error> {
        let (start, size) = (program.p_vaddr, program.p_memsz);
        if size == 0 {
            return Ok(());
        }
        // The linker pads the range to a page, which may be past the segment's end.
        if !self.is_loaded(start, 1) || check_range("relro", start, size, 1).is_err() {
            return Err(Error::Elf("read-only-after-relocation range is not loaded"));
        }
        let end = (start + (size - 1)) | (PAGE - 1);
        self.relro = Some(start & !(PAGE - 1)..end);
        Ok(())
    }

    /// Whether the page at `address`, of a writable segment, is to be read-only.
    pub fn is_relro(&self, address: u64) -> bool {
        self.relro
            .as_ref()
            .is_some_and(|range| range.contains(&address))
    }
}

/// Bytes of the serialised configuration that hold the version of the API.
const VERSION: Range<usize> = 16..23;

fn version(config: &[u8]) -> [u16; 3] {
    let number = |i: usize| {
        let at = VERSION.start + 2 * i;
        u16::from_le_bytes([config[at], config[at + 1]])
    };
    [0, 1, 2].map(number)
}

fn read_config(elf: &ElfFile<'_>) -> Result<BootloaderConfig, Error> {
    let section = elf
        .section_header_by_name(".bootloader-config")
        .map_err(|_| Error::Elf("malformed section headers"))?
        .filter(|section| section.sh_type != SHT_NOBITS)
        .ok_or(Error::Config("no such section"))?;
    let (raw, _) = elf
        .section_data(&section)
        .map_err(|_| Error::Config("reaches beyond the end of the file"))?;
    let config = BootloaderConfig::deserialize(raw).map_err(Error::Config)?;
    // The crate compares no versions, and does not expose the one it read.
    let own = BootloaderConfig::new_default().serialize();
    if raw[VERSION] != own[VERSION] {
        return Err(Error::ApiVersion {
            kernel: version(raw),
            stub: version(&own),
        });
    }
    Ok(config)
}
