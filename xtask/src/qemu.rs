//! The QEMU command line of a machine.

mod cmdline;
mod console;

use std::path::Path;

use crate::build::Images;
use crate::machine::{Accel, Firmware, Machine};
use crate::tools::Ovmf;

pub use cmdline::{assignment, kernel_cmdline};
pub use console::{Console, Debugger};

/// The program.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// QEMU's arguments for `machine`, without the program's name.
///
/// # Errors
///
/// If the machine is impossible, or the images for its firmware are not there.
pub fn arguments(
    machine: &Machine,
    images: &Images,
    cmdline: &str,
    console: &Console,
    debugger: Option<&Debugger>,
) -> anyhow::Result<Vec<String>> {
    machine.check()?;
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));

    add(&[
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]);
    add(&["-machine", machine.model.name(), "-cpu", &machine.cpu]);
    add(&[
        "-smp",
        &machine.cpus.to_string(),
        "-m",
        &machine.mem.to_string(),
    ]);
    add(machine.accel.arguments());
    let nodes = machine.nodes.arguments(machine.cpus, machine.mem)?;
    add(&nodes.iter().map(String::as_str).collect::<Vec<_>>());
    add(&["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    let cmdline = kernel_cmdline(cmdline, machine.accel == Accel::Icount);
    add(&[
        "-fw_cfg",
        &format!(
            "name=opt/org.granary/cmdline,string={}",
            double_commas(&cmdline)
        ),
    ]);

    match machine.firmware {
        Firmware::Pvh => {
            add(&[
                "-kernel",
                text(&images.boot)?,
                "-initrd",
                text(&images.ramdisk)?,
            ]);
        }
        Firmware::Uefi => {
            let Some(disk) = &images.disk else {
                anyhow::bail!("there is no disk image to boot by UEFI");
            };
            let Ovmf { code, vars } = Ovmf::find()?;
            // What the firmware and the guest write is not kept.
            let flash = |unit, file: &Path, mode| -> anyhow::Result<String> {
                Ok(format!(
                    "if=pflash,format=raw,unit={unit},file={},{mode}=on",
                    double_commas(text(file)?)
                ))
            };
            add(&["-drive", &flash(0, &code, "readonly")?]);
            add(&["-drive", &flash(1, &vars, "snapshot")?]);
            add(&[
                "-drive",
                &format!("format=raw,file={},snapshot=on", double_commas(text(disk)?)),
            ]);
        }
    }

    let console = console.arguments();
    add(&console.iter().map(String::as_str).collect::<Vec<_>>());
    if let Some(debugger) = debugger {
        let words = debugger.arguments();
        add(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }
    Ok(arguments)
}

/// A command line as a person can paste it into a shell.
pub fn quoted(arguments: &[String]) -> String {
    let words = std::iter::once(PROGRAM).chain(arguments.iter().map(String::as_str));
    words.map(quote).collect::<Vec<_>>().join(" ")
}

fn quote(word: &str) -> String {
    // QEMU's options are full of commas and equals signs, which a shell leaves alone.
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-+./:,=@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    // Only a NUL cannot be quoted, and no argument has one: they come from arguments and
    // paths.
    shlex::try_quote(word).map_or_else(|_| word.replace('\0', ""), |quoted| quoted.into_owned())
}

/// QEMU separates the parts of an option by commas; a doubled one is a comma.
fn double_commas(text: &str) -> String {
    text.replace(',', ",,")
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .ok_or_else(|| anyhow::anyhow!("the path {} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::machine::Nodes;

    fn images() -> Images {
        Images {
            boot: PathBuf::from("/t/granary-boot"),
            kernel: PathBuf::from("/t/granary"),
            stripped: PathBuf::from("/t/kernel"),
            ramdisk: PathBuf::from("/t/ram disk.tar"),
            disk: None,
        }
    }

    fn line(machine: &Machine, cmdline: &str) -> String {
        quoted(&arguments(machine, &images(), cmdline, &Console::ByHand, None).unwrap())
    }

    #[test]
    fn a_plain_machine() {
        let machine = Machine {
            cpus: 1,
            nodes: Nodes::Untold,
            ..Machine::default()
        };
        assert_eq!(
            line(&machine, ""),
            "qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -machine q35 -cpu max \
             -smp 1 -m 512M -accel tcg,thread=multi -device isa-debug-exit,iobase=0xf4,iosize=4 \
             -fw_cfg name=opt/org.granary/cmdline,string=debug_exit=0xf4 \
             -kernel /t/granary-boot -initrd '/t/ram disk.tar' -serial mon:stdio"
        );
    }

    #[test]
    fn the_line_splits_back_into_its_words() {
        let cmdline = r#"run="echo 'a, b'; mem" x=\"#;
        let words = arguments(
            &Machine::default(),
            &images(),
            cmdline,
            &Console::ByHand,
            None,
        )
        .unwrap();
        let back = shlex::split(&quoted(&words)).unwrap();
        assert_eq!(back[1..], words);
    }

    #[test]
    fn commas_are_doubled() {
        assert!(line(&Machine::default(), "kunit=a.*,b.c").contains("kunit=a.*,,b.c"));
    }

    #[test]
    fn exact_machines() {
        let machine = Machine {
            accel: Accel::Icount,
            ..Machine::default()
        };
        let line = line(&machine, "");
        assert!(
            line.contains(
                "-smp 4 -m 512M -accel tcg,thread=single -icount shift=0,sleep=off -seed 1 \
                 -rtc base=2026-01-01,clock=vm"
            ),
            "{line}"
        );
        assert!(line.contains("tsc_khz=1000000"));
    }

    #[test]
    fn uefi_needs_an_image() {
        let machine = Machine {
            firmware: Firmware::Uefi,
            ..Machine::default()
        };
        assert!(arguments(&machine, &images(), "", &Console::ByHand, None).is_err());
    }
}
