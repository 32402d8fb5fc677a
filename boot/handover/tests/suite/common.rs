//! Kernels to order: small ELF files, sound unless a test spoils them.

use bootloader_api::BootloaderConfig;

/// Where the test kernels are linked.
pub const BASE: u64 = 0xffff_ffff_8020_0000;
pub const PT_LOAD: u32 = 1;
pub const R: u32 = 4;
pub const W: u32 = 2;
pub const X: u32 = 1;

/// A program header and the bytes it refers to.
#[derive(Clone)]
pub struct Program {
    pub kind: u32,
    pub flags: u32,
    pub address: u64,
    pub data: Vec<u8>,
    pub file_size: u64,
    pub size: u64,
}

impl Program {
    pub fn load(flags: u32, address: u64, data: Vec<u8>, size: u64) -> Self {
        Self {
            kind: PT_LOAD,
            flags,
            address,
            file_size: data.len() as u64,
            data,
            size,
        }
    }
}

/// An ELF file in the making.
#[derive(Clone)]
pub struct Elf {
    pub class: u8,
    pub endian: u8,
    pub kind: u16,
    pub machine: u16,
    pub entry: u64,
    pub programs: Vec<Program>,
    pub config: Vec<u8>,
    pub config_name: &'static str,
    pub config_kind: u32,
}

impl Elf {
    /// Text of a page and a bit, one page of constants, data with room for zeroes.
    pub fn new(config: &BootloaderConfig) -> Self {
        let bytes = |seed: u8, len: usize| (0..len).map(|i| (i as u8) ^ seed).collect();
        Self {
            class: 2,
            endian: 1,
            kind: 2,
            machine: 62,
            entry: BASE + 0x10,
            programs: vec![
                Program::load(R | X, BASE, bytes(0x11, 5000), 5000),
                Program::load(R, BASE + 0x2000, bytes(0x22, 4096), 4096),
                Program::load(R | W, BASE + 0x3000, bytes(0x33, 4500), 20_000),
            ],
            config: config.serialize().to_vec(),
            config_name: ".bootloader-config",
            config_kind: 1,
        }
    }

    /// The file: headers, then data, then section headers.
    pub fn build(&self) -> Vec<u8> {
        let names = format!("\0{}\0.shstrtab\0", self.config_name);
        let mut body_at = 64 + 56 * self.programs.len() as u64;
        let mut programs = Vec::new();
        let mut body = Vec::new();
        let mut place = |bytes: &[u8]| {
            let at = body_at;
            body.extend_from_slice(bytes);
            body_at += bytes.len() as u64;
            at
        };
        for program in &self.programs {
            let at = place(&program.data);
            programs.extend(program.kind.to_le_bytes());
            programs.extend(program.flags.to_le_bytes());
            for field in [
                at,
                program.address,
                program.address,
                program.file_size,
                program.size,
                4096,
            ] {
                programs.extend(field.to_le_bytes());
            }
        }
        let config_at = place(&self.config);
        let names_at = place(names.as_bytes());
        let sections_at = place(&[]);

        let mut file = vec![0x7f, b'E', b'L', b'F', self.class, self.endian, 1];
        file.resize(16, 0);
        file.extend(self.kind.to_le_bytes());
        file.extend(self.machine.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        for field in [self.entry, 64, sections_at] {
            file.extend(field.to_le_bytes());
        }
        file.extend(0u32.to_le_bytes());
        for field in [64, 56, self.programs.len() as u16, 64, 3, 2] {
            file.extend(field.to_le_bytes());
        }
        file.extend(programs);
        file.extend(body);
        let config_len = self.config.len() as u64;
        let names_name = self.config_name.len() as u32 + 2;
        for (name, kind, at, len) in [
            (0, 0, 0, 0),
            (1, self.config_kind, config_at, config_len),
            (names_name, 3, names_at, names.len() as u64),
        ] {
            file.extend(name.to_le_bytes());
            file.extend(kind.to_le_bytes());
            for field in [0, 0, at, len] {
                file.extend(field.to_le_bytes());
            }
            file.extend([0; 8]);
            file.extend(1u64.to_le_bytes());
            file.extend(0u64.to_le_bytes());
        }
        file
    }
}

/// Numbers that look random and are the same every time (xorshift).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
