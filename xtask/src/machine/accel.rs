//! What executes the guest.

use std::fs::{self, OpenOptions};

use crate::cli::{AccelChoice, Usage};

/// What executes the guest, decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// Hardware virtualisation.
    Kvm,
    /// QEMU's translator, a host thread for each CPU.
    Tcg,
    /// The same, each instruction in a block of its own: QEMU looks for interrupts between
    /// any two.
    Stepped,
    /// QEMU's translator, all CPUs in one thread, with guest time counted in
    /// instructions: the same run twice gives the same output twice.
    Icount,
}

/// What the host says about KVM.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The CPU has the flag `vmx` or `svm`.
    pub virtualises: bool,
    /// `/dev/kvm` opens.
    pub device: bool,
}

impl Facts {
    /// Looks.
    pub fn gather() -> Self {
        let virtualises = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| {
            text.lines()
                .any(|line| line.starts_with("flags") && has_flag(line))
        });
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok();
        Self {
            virtualises,
            device,
        }
    }
}

fn has_flag(line: &str) -> bool {
    line.split_whitespace()
        .any(|word| word == "vmx" || word == "svm")
}

impl Accel {
    /// What `--accel` and `--icount` ask for on this host.
    ///
    /// `/dev/kvm` alone proves nothing: on some nested hosts it opens, and a
    /// guest hangs. `kvm` said in so many words is obeyed all the same.
    pub fn choose(
        choice: AccelChoice,
        icount: bool,
        singlestep: bool,
        facts: &Facts,
    ) -> Result<Self, Usage> {
        match choice {
            AccelChoice::Kvm if singlestep => Err(Usage(
                "--singlestep is the translator's, and KVM has none".into(),
            )),
            _ if singlestep => Ok(Self::Stepped),
            AccelChoice::Kvm if icount => Err(Usage(
                "--icount counts instructions, which KVM cannot do".into(),
            )),
            _ if icount => Ok(Self::Icount),
            AccelChoice::Kvm => Ok(Self::Kvm),
            AccelChoice::Auto if facts.virtualises && facts.device => Ok(Self::Kvm),
            AccelChoice::Auto | AccelChoice::Tcg => Ok(Self::Tcg),
        }
    }

    /// QEMU's arguments for it.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm"],
            Self::Tcg => &["-accel", "tcg,thread=multi"],
            // QEMU 8.1 gave it another name and kept this one for some versions.
            Self::Stepped => &["-accel", "tcg,thread=multi", "-singlestep"],
            Self::Icount => &[
                "-accel",
                "tcg,thread=single",
                "-icount",
                "shift=0,sleep=off",
                "-seed",
                "1",
                "-rtc",
                "base=2026-01-01,clock=vm",
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_needs_flag_and_device() {
        for (virtualises, device, accel) in [
            (true, true, Accel::Kvm),
            (true, false, Accel::Tcg),
            (false, true, Accel::Tcg),
            (false, false, Accel::Tcg),
        ] {
            let facts = Facts {
                virtualises,
                device,
            };
            assert_eq!(
                Accel::choose(AccelChoice::Auto, false, false, &facts).unwrap(),
                accel
            );
            assert_eq!(
                Accel::choose(AccelChoice::Kvm, false, false, &facts).unwrap(),
                Accel::Kvm
            );
            assert_eq!(
                Accel::choose(AccelChoice::Tcg, false, false, &facts).unwrap(),
                Accel::Tcg
            );
            assert_eq!(
                Accel::choose(AccelChoice::Auto, true, false, &facts).unwrap(),
                Accel::Icount
            );
            assert!(Accel::choose(AccelChoice::Kvm, true, false, &facts).is_err());
            assert!(Accel::choose(AccelChoice::Kvm, false, true, &facts).is_err());
            assert_eq!(
                Accel::choose(AccelChoice::Auto, false, true, &facts).unwrap(),
                Accel::Stepped
            );
        }
    }

    #[test]
    fn flags_are_whole_words() {
        assert!(has_flag("flags : fpu vmx sse"));
        assert!(!has_flag("flags : fpu vmx_exits kvm_pvm"));
    }
}
