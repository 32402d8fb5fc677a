//! FADT and HPET: power management, clocks and reset.

use acpi::address::{AddressSpace, GenericAddress, RawGenericAddress};
use acpi::sdt::fadt::Fadt;
use acpi::sdt::hpet::HpetTable;

use super::layout::{Table, copy_padded, copy_whole};
use super::{Platform, ProblemKind};

/// The shortest FADT: that of ACPI 1.0.
const FADT_SIZE_1_0: usize = 116;
/// The flag of a FADT whose reset register may be used.
const RESET_SUPPORTED: u32 = 1 << 10;

/// Where a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterSpace {
    /// In memory, at a physical address.
    Memory,
    /// At an I/O port.
    Port,
    /// In the configuration space of a device on PCI bus 0.
    PciConfig,
}

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// Where it is.
    pub space: RegisterSpace,
    /// Its address or port, never 0.
    pub address: u64,
    /// Its width in bits; 0 where the firmware does not say.
    pub bits: u8,
}

impl Register {
    /// The port of a register that is one.
    pub fn port(self) -> Option<u16> {
        match self.space {
            RegisterSpace::Port => u16::try_from(self.address).ok(),
            _ => None,
        }
    }
}

/// The power management timer, which runs at 3.579545 MHz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PmTimer {
    /// Where to read it.
    pub register: Register,
    /// Whether it counts 32 bits; otherwise 24.
    pub is_32_bit: bool,
}

/// How to reset the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Where to write.
    pub register: Register,
    /// What to write.
    pub value: u8,
}

/// What the FADT says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Physical address of the DSDT.
    pub dsdt: Option<u64>,
    /// Interrupt of the hardware that the FADT describes.
    pub sci: u16,
    /// Port to which `acpi_enable` is written to switch ACPI on; 0 if it is on.
    pub smi_command: u32,
    /// What to write to `smi_command`.
    pub acpi_enable: u8,
    /// The first register that power-off writes to.
    pub pm1a_control: Option<Register>,
    /// The second, on machines that have two.
    pub pm1b_control: Option<Register>,
    /// The power management timer.
    pub pm_timer: Option<PmTimer>,
    /// The reset register.
    pub reset: Option<Reset>,
    /// Index of the century in the clock's memory; 0 if it has none.
    pub century: u8,
    /// Whether the machine lacks the hardware that most of the FADT describes.
    pub hardware_reduced: bool,
}

/// Reads the FADT into `platform`.
pub(super) fn read_fadt(table: Table<'_>, platform: &mut Platform) {
    if table.bytes.len() < FADT_SIZE_1_0 {
        return platform.report(table.name, ProblemKind::Length(table.bytes.len() as u32));
    }
    // What an older table does not have is 0 here: "not there".
    let fadt: Fadt = copy_padded(table.bytes);
    let revision = table.revision();
    // SAFETY: the whole of `fadt` is initialised, whatever the revision says.
    let (pm1a, pm1b) = unsafe {
        let (pm1a, pm1b) = (fadt.x_pm1a_control_block, fadt.x_pm1b_control_block);
        (pm1a.access(revision), pm1b.access(revision))
    };
    let mut register = |extended: Option<RawGenericAddress>, port: u32, bits: u8| {
        let found = extended.map_or(Ok(None), register);
        match found {
            Ok(Some(found)) => return Some(found),
            Ok(None) => {}
            Err(()) => platform.report(table.name, ProblemKind::BadRegister),
        }
        let address = u64::from(port);
        (port != 0).then_some(Register {
            space: RegisterSpace::Port,
            address,
            bits,
        })
    };
    let pm1_bits = fadt.pm1_control_length.saturating_mul(8);
    let pm1a_control = register(pm1a, fadt.pm1a_control_block, pm1_bits);
    let pm1b_control = register(pm1b, fadt.pm1b_control_block, pm1_bits);
    let flags = crate::bytes::u32_at(table.bytes, 112).unwrap_or(0);
    let reset = (flags & RESET_SUPPORTED != 0).then(|| register(Some(fadt.reset_reg), 0, 8));
    let reset = reset.flatten().map(|register| Reset {
        register,
        value: fadt.reset_value,
    });

    let timer = fadt.pm_timer_block().unwrap_or_else(|_| {
        platform.report(table.name, ProblemKind::BadRegister);
        None
    });
    let is_32_bit = { fadt.flags }.pm_timer_is_32_bit();
    let timer = timer.and_then(|timer| from_generic(timer).ok().flatten());
    platform.fixed = Some(Fixed {
        dsdt: fadt.dsdt_address().ok().map(|address| address as u64),
        sci: fadt.sci_interrupt,
        smi_command: fadt.smi_cmd_port,
        acpi_enable: fadt.acpi_enable,
        pm1a_control,
        pm1b_control,
        pm_timer: timer.map(|register| PmTimer {
            register,
            is_32_bit,
        }),
        reset,
        century: fadt.century,
        hardware_reduced: { fadt.flags }.system_is_hw_reduced_acpi(),
    });
}

/// Reads the HPET's table into `platform`.
pub(super) fn read_hpet(table: Table<'_>, platform: &mut Platform) {
    let Some(hpet) = copy_whole::<HpetTable>(table.bytes) else {
        return platform.report(table.name, ProblemKind::Length(table.bytes.len() as u32));
    };
    match register(hpet.base_address) {
        Ok(Some(Register {
            space: RegisterSpace::Memory,
            address,
            ..
        })) => {
            // A machine may have several; the first is the one that boots.
            platform.hpet = Some(address);
        }
        _ => platform.report(table.name, ProblemKind::BadRegister),
    }
}

/// A register as the tables write it; `None` if it is not there.
fn register(raw: RawGenericAddress) -> Result<Option<Register>, ()> {
    from_generic(GenericAddress::from_raw(raw).map_err(|_| ())?)
}

fn from_generic(generic: GenericAddress) -> Result<Option<Register>, ()> {
    if generic.address == 0 {
        return Ok(None);
    }
    let space = match generic.address_space {
        AddressSpace::SystemMemory => RegisterSpace::Memory,
        AddressSpace::SystemIo if generic.address <= 0xffff => RegisterSpace::Port,
        AddressSpace::PciConfigSpace => RegisterSpace::PciConfig,
        _ => return Err(()),
    };
    Ok(Some(Register {
        space,
        address: generic.address,
        bits: generic.bit_width,
    }))
}
