//! The ramdisk: a tar file that is the same whenever its members are.

use anyhow::Context;

/// Packs members, in this order.
///
/// # Errors
///
/// A member's name that tar cannot express.
pub fn pack(members: &[(&str, &[u8])]) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        archive
            .append_data(&mut header, name, *bytes)
            .with_context(|| format!("cannot pack {name}"))?;
    }
    archive.into_inner().context("cannot end the archive")
}

#[cfg(test)]
mod tests {
    use kernel_base::ramdisk::Ramdisk;

    use super::*;

    #[test]
    fn the_kernel_reads_what_is_packed() {
        let bytes = pack(&[("kernel", b"one"), ("symbols", b"")]).unwrap();
        let ramdisk = Ramdisk::new(&bytes).unwrap();
        assert_eq!(ramdisk.find("kernel"), Some(&b"one"[..]));
        assert_eq!(ramdisk.find("symbols"), Some(&b""[..]));
        assert_eq!(ramdisk.members().count(), 2);
    }

    #[test]
    fn the_same_members_make_the_same_bytes() {
        let members: [(&str, &[u8]); 1] = [("a", b"b")];
        assert_eq!(pack(&members).unwrap(), pack(&members).unwrap());
    }
}
