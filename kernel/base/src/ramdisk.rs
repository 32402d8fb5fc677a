//! The ramdisk: one ustar archive, handed over by the boot loader.
//!
//! The members are plain files with short names: `kernel`, `symbols`,
//! `cmdline`. Reading is `tar-no-std`'s, which checks header checksums, type
//! flags and sizes once, when the archive is opened. What it leaves open is
//! checked here, also once: names must be UTF-8, not empty, at most 100 bytes
//! long and unique. After that, finding a member cannot fail in surprising ways.

use core::fmt;

use tar_no_std::{CorruptDataError, PosixHeader, TarArchiveRef};

/// Headers and data come in blocks of this size.
const BLOCK: usize = 512;

/// Why the bytes are not a ramdisk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RamdiskError {
    /// The structure of the archive is damaged.
    Corrupt(CorruptDataError),
    /// The name in the header at this block is empty or not UTF-8.
    BadName {
        /// Index of the 512-byte block of the header.
        block: usize,
    },
    /// The name in the header at this block is longer than 100 bytes.
    LongName {
        /// Index of the 512-byte block of the header.
        block: usize,
    },
    /// An earlier member has the same name as that of the header at this block.
    DuplicateName {
        /// Index of the 512-byte block of the header.
        block: usize,
    },
}

impl fmt::Display for RamdiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(error) => fmt::Display::fmt(error, f),
            Self::BadName { block } => {
                write!(f, "the name in block {block} is empty or not UTF-8")
            }
            Self::LongName { block } => {
                write!(f, "the name in block {block} is longer than 100 bytes")
            }
            Self::DuplicateName { block } => {
                write!(f, "the name in block {block} came before")
            }
        }
    }
}

impl core::error::Error for RamdiskError {}

/// A checked ramdisk.
///
/// ```no_run
/// # fn example(bytes: &[u8]) -> Result<(), kernel_base::ramdisk::RamdiskError> {
/// use kernel_base::ramdisk::Ramdisk;
/// let ramdisk = Ramdisk::new(bytes)?;
/// let symbols: Option<&[u8]> = ramdisk.find("symbols");
/// for (name, data) in ramdisk.members() {
///     println!("{name}: {} bytes", data.len());
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Invariants
/// `archive` is a view of `bytes` that passed every check of [`Ramdisk::new`].
#[derive(Clone, Debug)]
pub struct Ramdisk<'a> {
    bytes: &'a [u8],
    archive: TarArchiveRef<'a>,
}

impl<'a> Ramdisk<'a> {
    /// Checks the archive in `bytes`: its whole length must be the archive's.
    pub fn new(bytes: &'a [u8]) -> Result<Self, RamdiskError> {
        let archive = TarArchiveRef::new(bytes).map_err(RamdiskError::Corrupt)?;
        let ramdisk = Self { bytes, archive };
        for (block, header) in ramdisk.file_headers() {
            if !header.prefix.is_empty() {
                return Err(RamdiskError::LongName { block });
            }
            let name = member_name(header).ok_or(RamdiskError::BadName { block })?;
            let came_before = ramdisk
                .file_headers()
                .take_while(|&(earlier, _)| earlier < block)
                .any(|(_, header)| member_name(header) == Some(name));
            if came_before {
                return Err(RamdiskError::DuplicateName { block });
            }
        }
        Ok(ramdisk)
    }

    /// The data of the member called `name`.
    pub fn find(&self, name: &str) -> Option<&'a [u8]> {
        self.members()
            .find(|&(member, _)| member == name)
            .map(|(_, data)| data)
    }

    /// Name and data of each file, in the order of the archive. Directories,
    /// links and other special entries are passed over.
    pub fn members(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let bytes = self.bytes;
        self.file_headers().filter_map(move |(block, header)| {
            let start = (block + 1).checked_mul(BLOCK)?;
            let size = header.size.as_number::<usize>().ok()?;
            let data = bytes.get(start..start.checked_add(size)?)?;
            Some((member_name(header)?, data))
        })
    }

    /// Size of the whole archive in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    fn file_headers(&self) -> impl Iterator<Item = (usize, &'a PosixHeader)> + use<'a> {
        self.archive.headers().filter(|(_, header)| {
            header
                .typeflag
                .try_to_type_flag()
                .is_ok_and(|flag| flag.is_regular_file())
        })
    }
}

/// The name in `header`, without the `./` that `tar cf x ./file` puts before it.
fn member_name(header: &PosixHeader) -> Option<&str> {
    let name = header.name.as_str().ok()?;
    let name = name.strip_prefix("./").unwrap_or(name);
    (!name.is_empty()).then_some(name)
}
