//! The real world: guests in QEMU, and xtask itself as a program.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use super::scenario::this_program;
use super::scenario::{Absent, Limits, World};
use super::subject::{Heard, Start, Subject};
use super::tier::Tier;
use crate::build::{self, Images};
use crate::cli::MachineArgs;
use crate::guest::{End, Event, Guest, GuestConfig};
use crate::machine::{Firmware, Machine};
use crate::symbolize::Symbolizer;
use crate::toolchain::Toolchain;
use crate::tools;
use crate::ui;

/// What guests boot, and where logs go.
pub struct Qemu {
    toolchain: Toolchain,
    images: Images,
    symbolizer: Symbolizer,
    logs: PathBuf,
    xtask: PathBuf,
    tier: Tier,
    /// The UEFI image, made when the first guest wants one; or why there is none.
    disk: Mutex<Option<Result<PathBuf, String>>>,
}

impl Qemu {
    /// Builds what the guests boot.
    ///
    /// # Errors
    ///
    /// A missing tool, or what the compiler complains of.
    pub fn prepare(args: &MachineArgs, tier: Tier, logs: PathBuf) -> anyhow::Result<Self> {
        tools::QEMU.require()?;
        // One scenario drives it; by its absence the others are not concerned.
        if let Err(error) = tools::GDB.require() {
            ui::say(&format!("{error:#}"));
        }
        let toolchain = Toolchain::require()?;
        let images = build::images(&toolchain, args.build())?;
        Self::new(toolchain, images, tier, logs)
    }

    /// A world in which guests boot `images`, which `toolchain` has made.
    ///
    /// # Errors
    ///
    /// If it cannot be told where this program is.
    pub fn new(
        toolchain: Toolchain,
        images: Images,
        tier: Tier,
        logs: PathBuf,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            symbolizer: Symbolizer::new(&images.kernel),
            toolchain,
            images,
            logs,
            xtask: this_program()?,
            tier,
            disk: Mutex::new(None),
        })
    }

    /// The QEMU command line that starts such a guest by hand.
    pub fn command_line(&self, machine: &Machine, cmdline: &str) -> anyhow::Result<String> {
        let mut images = self.images.clone();
        if machine.firmware == Firmware::Uefi {
            images.disk = Some(build::disk(&self.toolchain, &self.images, "")?);
        }
        let config = GuestConfig {
            machine: machine.clone(),
            cmdline: cmdline.to_owned(),
            images,
            deadline: Duration::MAX,
            silence: Duration::MAX,
            debugger: None,
        };
        config.command_line()
    }

    /// Makes the UEFI image, for those who will want it.
    pub fn make_disk(&self) {
        // Who wants it hears why there is none.
        let _ = self.disk();
    }

    /// The UEFI image. Where tools for it are missing that is a reason to skip, but not
    /// under CI.
    fn disk(&self) -> Result<PathBuf, Absent> {
        let mut disk = self
            .disk
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let made = disk.get_or_insert_with(|| {
            tools::Ovmf::find()
                .and_then(|_| build::disk(&self.toolchain, &self.images, ""))
                .map_err(|error| format!("{error:#}"))
        });
        made.clone().map_err(|reason| {
            if self.tier.is_strict() {
                Absent::Fail(reason)
            } else {
                Absent::Skip(reason)
            }
        })
    }
}

impl World for Qemu {
    fn starter(&self, machine: &Machine, limits: Limits) -> Result<Box<dyn Start + '_>, Absent> {
        let mut images = self.images.clone();
        if machine.firmware == Firmware::Uefi {
            images.disk = Some(self.disk()?);
        }
        Ok(Box::new(Starter {
            world: self,
            machine: machine.clone(),
            images,
            limits,
        }))
    }

    fn xtask(&self) -> PathBuf {
        self.xtask.clone()
    }

    fn logs(&self) -> &Path {
        &self.logs
    }
}

/// Starts guests of one machine.
struct Starter<'a> {
    world: &'a Qemu,
    machine: Machine,
    images: Images,
    limits: Limits,
}

impl Start for Starter<'_> {
    fn start(&self, cmdline: &str) -> anyhow::Result<Box<dyn Subject>> {
        let guest = Guest::start(&GuestConfig {
            machine: self.machine.clone(),
            cmdline: cmdline.to_owned(),
            images: self.images.clone(),
            deadline: self.limits.deadline,
            silence: self.limits.silence,
            debugger: None,
        })?;
        Ok(Box::new(InQemu(guest)))
    }

    fn symbolize(&self, line: &str) -> String {
        self.world.symbolizer.line(line)
    }
}

/// A guest in QEMU.
struct InQemu(Guest);

impl Subject for InQemu {
    fn next(&mut self) -> Heard {
        loop {
            return match self.0.next_event() {
                Event::Line(line) => Heard::Line(line),
                Event::Partial(_) => continue,
                Event::Ended(End::Silent) => Heard::Silence,
                Event::Ended(End::DeadlinePassed) => Heard::Deadline,
                Event::Ended(End::Exited(code)) => Heard::Ended(Some(code)),
                Event::Ended(End::Killed { .. }) => Heard::Ended(None),
            };
        }
    }

    fn inject_nmi(&mut self, grace: Duration) -> anyhow::Result<()> {
        self.0.inject_nmi(grace)
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.0.write(bytes)
    }

    fn kill(&mut self) {
        self.0.kill();
    }

    fn stderr(&mut self) -> String {
        self.0.stderr()
    }
}
