//! QEMU's firmware configuration device, read by its I/O ports: how the kernel's command
//! line comes in, whichever loader started the kernel.

use ::x86_64::instructions::port::{Port, PortWriteOnly};

const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;
const KEY_SIGNATURE: u16 = 0x0000;
const KEY_DIRECTORY: u16 = 0x0019;
/// A directory longer than this is not believed.
const MAX_FILES: u32 = 512;

/// Reads the file `name` into `buffer` and returns its content, or `None` when there is no
/// such device or file. A file longer than the buffer is cut; the true length is second.
pub fn read<'b>(name: &str, buffer: &'b mut [u8]) -> Option<(&'b [u8], usize)> {
    let (key, size) = find(name)?;
    let len = (size as usize).min(buffer.len());
    select(key);
    read_bytes(&mut buffer[..len]);
    Some((&buffer[..len], size as usize))
}

/// Finds a file's key and size in the device's directory.
fn find(name: &str) -> Option<(u16, u32)> {
    let mut signature = [0; 4];
    select(KEY_SIGNATURE);
    read_bytes(&mut signature);
    if &signature != b"QEMU" {
        return None;
    }
    select(KEY_DIRECTORY);
    let mut count = [0; 4];
    read_bytes(&mut count);
    for _ in 0..u32::from_be_bytes(count).min(MAX_FILES) {
        // struct: size (be32), key (be16), reserved (16), name (56 bytes, NUL-padded)
        let mut entry = [0; 64];
        read_bytes(&mut entry);
        let name_len = entry[8..].iter().position(|b| *b == 0).unwrap_or(56);
        if &entry[8..8 + name_len] == name.as_bytes() {
            let size = u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]);
            let key = u16::from_be_bytes([entry[4], entry[5]]);
            return Some((key, size));
        }
    }
    None
}

fn select(key: u16) {
    // SAFETY: on a machine with fw_cfg this sets the device's read position; on others the
    // port is unassigned and the write has no effect.
    unsafe { PortWriteOnly::<u16>::new(SELECTOR).write(key) };
}

fn read_bytes(into: &mut [u8]) {
    let mut data = Port::<u8>::new(DATA);
    for byte in into {
        // SAFETY: reading advances the device's position; an absent device reads 0xff.
        *byte = unsafe { data.read() };
    }
}
