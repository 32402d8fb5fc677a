//! A machine's memory with ACPI tables in it, as QEMU's `q35` writes them.

/// Where everything starts.
pub const BASE: u64 = 0x7ff_0000;

/// The tables of a machine, in order; each starts where the one before ends.
#[derive(Clone)]
pub struct Machine {
    /// Name and body; header and checksum are added.
    pub tables: Vec<(&'static str, u8, Vec<u8>)>,
    /// Whether an XSDT is written too.
    pub xsdt: bool,
}

/// Memory as written by [`Machine::write`].
#[derive(Clone)]
pub struct Image {
    pub bytes: Vec<u8>,
    /// Offset and length of each table, by name.
    pub places: Vec<(&'static str, usize, usize)>,
    pub rsdp: u64,
}

impl Image {
    pub fn read(&self, address: u64, length: usize) -> Option<&[u8]> {
        let start = usize::try_from(address.checked_sub(BASE)?).ok()?;
        self.bytes.get(start..start.checked_add(length)?)
    }

    pub fn place(&self, name: &str) -> (usize, usize) {
        let place = self.places.iter().find(|place| place.0 == name);
        place.map(|place| (place.1, place.2)).unwrap()
    }

    pub fn discover(&self) -> kernel_base::acpi::Platform {
        kernel_base::acpi::Platform::discover(self.rsdp, &|address, length| {
            self.read(address, length)
        })
    }

    /// Makes the bytes of the table add up to 0 again.
    pub fn fix_checksum(&mut self, name: &str) {
        let (start, length) = self.place(name);
        fix_sum(&mut self.bytes[start..start + length], 9);
    }
}

fn fix_sum(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    let sum = bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
    bytes[at] = 0u8.wrapping_sub(sum);
}

fn table(name: &str, revision: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(name.as_bytes());
    bytes.extend((36 + body.len() as u32).to_le_bytes());
    bytes.extend([revision, 0]);
    bytes.extend(b"BOCHS BXPC    \x01\0\0\0BXPC\x01\0\0\0");
    bytes.extend(body);
    fix_sum(&mut bytes, 9);
    bytes
}

impl Machine {
    /// 4 CPUs and 2 GiB, half on each of 2 nodes.
    pub fn q35() -> Self {
        Self {
            tables: vec![
                ("DSDT", 1, dsdt()),
                ("FACP", 3, fadt()),
                ("APIC", 3, madt(4)),
                ("HPET", 1, hpet()),
                ("SRAT", 1, srat()),
                ("SLIT", 1, slit(&[&[10, 20], &[20, 10]])),
                ("MCFG", 1, vec![0; 24]),
                ("WAET", 1, vec![2, 0, 0, 0]),
            ],
            xsdt: false,
        }
    }

    pub fn body(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self
            .tables
            .iter_mut()
            .find(|table| table.0 == name)
            .unwrap()
            .2
    }

    pub fn without(mut self, name: &str) -> Self {
        self.tables.retain(|table| table.0 != name);
        self
    }

    pub fn write(&self) -> Image {
        let mut bytes = Vec::new();
        let mut places = Vec::new();
        let mut dsdt_address = 0;
        for (name, revision, body) in &self.tables {
            let mut body = body.clone();
            if *name == "FACP" && body.len() >= 8 {
                body[4..8].copy_from_slice(&(dsdt_address as u32).to_le_bytes());
            }
            if *name == "DSDT" {
                dsdt_address = BASE + bytes.len() as u64;
            }
            let table = table(name, *revision, &body);
            places.push((*name, bytes.len(), table.len()));
            bytes.extend(table);
        }
        let listed: Vec<u64> = places
            .iter()
            .filter(|p| p.0 != "DSDT")
            .map(|p| BASE + p.1 as u64)
            .collect();
        let mut root = |name: &'static str, body: Vec<u8>| {
            let table = table(name, 1, &body);
            let at = bytes.len();
            places.push((name, at, table.len()));
            bytes.extend(table);
            BASE + at as u64
        };
        let rsdt = root(
            "RSDT",
            listed
                .iter()
                .flat_map(|&a| (a as u32).to_le_bytes())
                .collect(),
        );
        let xsdt = if self.xsdt {
            root(
                "XSDT",
                listed.iter().flat_map(|&a| a.to_le_bytes()).collect(),
            )
        } else {
            0
        };
        let mut rsdp = Vec::from(b"RSD PTR \0BOCHS ");
        rsdp.push(if self.xsdt { 2 } else { 0 });
        rsdp.extend((rsdt as u32).to_le_bytes());
        fix_sum(&mut rsdp, 8);
        if self.xsdt {
            rsdp.extend(36u32.to_le_bytes());
            rsdp.extend(xsdt.to_le_bytes());
            rsdp.extend([0; 4]);
            fix_sum(&mut rsdp, 32);
        }
        places.push(("RSDP", bytes.len(), rsdp.len()));
        let address = BASE + bytes.len() as u64;
        bytes.extend(rsdp);
        Image {
            bytes,
            places,
            rsdp: address,
        }
    }
}

fn dsdt() -> Vec<u8> {
    let mut aml = vec![0x10, 0x06, b'\\', 0, 0xa3, 0xa3];
    // A name that only looks like the one wanted.
    aml.extend(b"_S5_");
    aml.extend([0x08]);
    aml.extend(b"_S3_\x12\x06\x04\x01\x01\0\0");
    aml.extend([0x08]);
    aml.extend(b"_S5_\x12\x07\x04\x0a\x05\0\0\0");
    aml.extend([0xa3; 8]);
    aml
}

/// The body of a FADT of revision 3 (244 bytes with the header).
pub fn fadt() -> Vec<u8> {
    let mut table = vec![0; 244];
    let mut put = |at: usize, value: &[u8]| table[at..at + value.len()].copy_from_slice(value);
    put(46, &9u16.to_le_bytes());
    put(48, &0xb2u32.to_le_bytes());
    put(52, &[2, 3]);
    put(56, &0x600u32.to_le_bytes());
    put(64, &0x604u32.to_le_bytes());
    put(76, &0x608u32.to_le_bytes());
    put(88, &[4, 2, 0, 4]);
    put(108, &[0x32]);
    put(112, &(1u32 << 10 | 0x8084).to_le_bytes());
    put(116, &[1, 8, 0, 0, 0xf9, 0x0c]);
    put(128, &[0x0f]);
    put(172, &[1, 16, 0, 0, 0x04, 0x06]);
    put(208, &[1, 32, 0, 0, 0x08, 0x06]);
    table.split_off(36)
}

pub fn local_apic(uid: u8, apic_id: u8, flags: u32) -> Vec<u8> {
    [&[0, 8, uid, apic_id], flags.to_le_bytes().as_slice()].concat()
}

pub fn local_x2apic(uid: u32, apic_id: u32, flags: u32) -> Vec<u8> {
    [
        &[9, 16, 0, 0],
        &apic_id.to_le_bytes()[..],
        &flags.to_le_bytes(),
        &uid.to_le_bytes(),
    ]
    .concat()
}

pub fn source_override(irq: u8, global: u32, flags: u16) -> Vec<u8> {
    [
        &[2, 10, 0, irq],
        global.to_le_bytes().as_slice(),
        &flags.to_le_bytes(),
    ]
    .concat()
}

/// The body of a MADT with `cpus` CPUs.
pub fn madt(cpus: u8) -> Vec<u8> {
    let mut body = Vec::from(0xfee0_0000u32.to_le_bytes());
    body.extend(1u32.to_le_bytes());
    for cpu in 0..cpus {
        body.extend(local_apic(cpu, cpu, 1));
    }
    body.extend([1, 12, cpus, 0]);
    body.extend(0xfec0_0000u32.to_le_bytes());
    body.extend(0u32.to_le_bytes());
    body.extend(source_override(0, 2, 0));
    for irq in [5, 9, 10, 11] {
        body.extend(source_override(irq, u32::from(irq), 0xd));
    }
    body.extend([4, 6, 0xff, 0, 0, 1]);
    body
}

fn hpet() -> Vec<u8> {
    let mut body = Vec::from(0x8086_a201u32.to_le_bytes());
    body.extend([0, 0, 0, 0]);
    body.extend(0xfed0_0000u64.to_le_bytes());
    body.extend([0; 4]);
    body
}

pub fn cpu_affinity(apic_id: u8, domain: u8, flags: u32) -> Vec<u8> {
    [
        &[0, 16, domain, apic_id],
        flags.to_le_bytes().as_slice(),
        &[0; 8],
    ]
    .concat()
}

pub fn x2apic_affinity(apic_id: u32, domain: u32) -> Vec<u8> {
    [
        &[2, 24, 0, 0],
        &domain.to_le_bytes()[..],
        &apic_id.to_le_bytes(),
        &[1, 0, 0, 0],
        &[0; 8],
    ]
    .concat()
}

pub fn memory_affinity(start: u64, length: u64, domain: u32, flags: u32) -> Vec<u8> {
    [
        &[1, 40],
        &domain.to_le_bytes()[..],
        &[0; 2],
        &start.to_le_bytes(),
        &length.to_le_bytes(),
        &[0; 4],
        &flags.to_le_bytes(),
        &[0; 8],
    ]
    .concat()
}

/// The fields before the entries of a SRAT.
pub fn srat_start() -> Vec<u8> {
    [&1u32.to_le_bytes()[..], &[0; 8]].concat()
}

fn srat() -> Vec<u8> {
    let mut body = srat_start();
    for cpu in 0..4 {
        body.extend(cpu_affinity(cpu, cpu / 2, 1));
    }
    body.extend(memory_affinity(0, 0xa_0000, 0, 1));
    body.extend(memory_affinity(0x10_0000, 0x3ff0_0000, 0, 1));
    body.extend(memory_affinity(0x4000_0000, 0x4000_0000, 1, 1));
    // QEMU fills up with entries that are not enabled.
    body.extend(memory_affinity(0, 0, 0, 0));
    body
}

pub fn slit(rows: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::from((rows.len() as u64).to_le_bytes());
    body.extend(rows.concat());
    body
}
