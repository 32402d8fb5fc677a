//! The one thing needed of the AML programs: how to power off.

use super::layout::Table;

/// What to write into the sleep type field of the PM1 control registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SleepType {
    /// For the first register, 0 to 7.
    pub pm1a: u8,
    /// For the second register, 0 to 7.
    pub pm1b: u8,
}

/// Opcode before a name that gets a value.
const NAME_OP: u8 = 0x08;
/// Opcode of a list of values.
const PACKAGE_OP: u8 = 0x12;

/// Finds `Name (\_S5, Package {a, b, ...})` without running the program: every
/// machine writes it as this constant. Looks at each byte once.
pub(super) fn find_s5(table: Table<'_>) -> Option<SleepType> {
    let aml = table.body();
    let mut at = 0;
    // A sleep type of a place that only looks right must not win: go on.
    while let Some(found) = aml
        .get(at..)
        .and_then(|rest| rest.windows(4).position(|w| w == b"_S5_"))
    {
        let name = at + found;
        if is_named(&aml[..name])
            && let Some(sleep) = package(&aml[name + 4..])
        {
            return Some(sleep);
        }
        at = name + 4;
    }
    None
}

/// Whether what stands before a name makes it one that is defined.
fn is_named(before: &[u8]) -> bool {
    matches!(before, [.., NAME_OP] | [.., NAME_OP, b'\\'])
}

/// The first two numbers of a package.
fn package(aml: &[u8]) -> Option<SleepType> {
    let (&PACKAGE_OP, rest) = aml.split_first()? else {
        return None;
    };
    // The top bits of the first byte say how many more bytes of length follow.
    let length_bytes = 1 + usize::from(rest.first()? >> 6);
    let mut values = rest.get(length_bytes..)?;
    let (&count, rest) = values.split_first()?;
    values = rest;
    let pm1a = number(&mut values)?;
    // A package of one number means it for both.
    let pm1b = if count >= 2 {
        number(&mut values)?
    } else {
        pm1a
    };
    (count >= 1 && pm1a <= 7 && pm1b <= 7).then_some(SleepType { pm1a, pm1b })
}

/// Takes a number that fits a byte off the front of `aml`.
fn number(aml: &mut &[u8]) -> Option<u8> {
    let (&op, rest) = aml.split_first()?;
    let size = match op {
        0x00 | 0x01 => {
            *aml = rest;
            return Some(op);
        }
        0x0a => 1,
        0x0b => 2,
        0x0c => 4,
        0x0e => 8,
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(size)?;
    *aml = rest;
    let (&low, high) = value.split_first()?;
    high.iter().all(|&byte| byte == 0).then_some(low)
}
