//! The initial ramdisk: one tar archive, whose member `kernel` is started.

use crate::Error;
use tar_no_std::TarArchiveRef;

/// Returns the contents of the archive's first regular member named `kernel`.
pub fn find_kernel(archive: &[u8]) -> Result<&[u8], Error> {
    TarArchiveRef::new(archive)
        .map_err(Error::Archive)?
        .entries()
        .find(|entry| entry.filename().as_str() == Ok("kernel"))
        .map(|entry| entry.data())
        .ok_or(Error::NoKernel)
}
