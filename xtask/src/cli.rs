//! The command line of `cargo xtask`.

mod bench_args;
mod examples;
mod machine_args;
mod test_args;
mod torture_args;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use bench_args::BenchArgs;
pub use machine_args::{AccelChoice, MachineArgs};
pub use test_args::TestArgs;
pub use torture_args::TortureArgs;

/// Build Granary, boot it in QEMU, test it, debug it.
#[derive(Debug, Parser)]
#[command(
    name = "xtask",
    bin_name = "cargo xtask",
    version,
    after_help = examples::TOP,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot the kernel: a shell on the serial console, or the commands given
    #[command(after_help = examples::RUN)]
    Run(RunArgs),
    /// Run the host tests of every crate and the tests inside the kernel
    #[command(after_help = examples::TEST)]
    Test(TestArgs),
    /// Measure the workloads inside the kernel, and compare with a baseline
    #[command(after_help = examples::BENCH)]
    Bench(BenchArgs),
    /// Make a UEFI disk image, for real machines and for --firmware uefi
    #[command(after_help = examples::IMAGE)]
    Image(ImageArgs),
    /// Boot paused under GDB and stop at the kernel's main
    #[command(after_help = examples::GDB)]
    Gdb(GdbArgs),
    /// List what is needed, what is there, and how to get the rest
    #[command(after_help = examples::DOCTOR)]
    Doctor,
    /// Check formatting, lints and documentation of every crate
    #[command(after_help = examples::CHECK)]
    Check,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,

    /// Let a debugger attach to this TCP port of 127.0.0.1 (see `gdb --attach`)
    #[arg(long, value_name = "PORT")]
    pub gdb_port: Option<u16>,

    /// Shell commands to run instead of a shell, separated by `;`
    #[arg(last = true, value_name = "COMMANDS")]
    pub commands: Vec<String>,
}

/// Options of `image`.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// Build without overflow checks and debug assertions
    #[arg(long)]
    pub release: bool,

    /// Kernel command line to put into the image
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub cmdline: String,

    /// Where to write the image [default: under target/]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Options of `gdb`.
#[derive(Debug, Args)]
pub struct GdbArgs {
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,

    /// Attach to a running guest instead: HOST:PORT, :PORT or a socket's path
    #[arg(long, value_name = "ADDRESS")]
    pub attach: Option<String>,

    /// Options for GDB itself; the first one that is not listed here, and all that follow
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "GDB OPTIONS"
    )]
    pub gdb: Vec<String>,
}

/// A mistake in the command line that the parser cannot see; ends with status 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(shlex::split(&format!("xtask {line}")).unwrap())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command.clone().render_help().to_string();
            let example = format!("cargo xtask {}", command.get_name());
            assert!(
                help.contains("Examples:") && help.contains(&example),
                "{help}"
            );
        }
    }

    #[test]
    fn commands_follow_two_dashes() {
        let Command::Run(args) = parse("run --cpus 2 -- 'mem; cpus'").unwrap().command else {
            panic!("not run");
        };
        assert_eq!(args.machine.cpus, Some(2));
        assert_eq!(args.commands, ["mem; cpus"]);
        assert!(parse("run mem").is_err());
    }

    #[test]
    fn filters_are_split_at_commas() {
        let Command::Bench(args) = parse("bench --machine icount --filter pair,sched/*")
            .unwrap()
            .command
        else {
            panic!("not bench");
        };
        assert_eq!(args.filter, ["pair", "sched/*"]);
        assert_eq!(args.rounds, 5);
    }

    #[test]
    fn gdb_options_pass_through() {
        let Command::Gdb(args) = parse("gdb --cpus 2 --batch -ex 'info threads' -ex bt")
            .unwrap()
            .command
        else {
            panic!("not gdb");
        };
        assert_eq!(args.machine.cpus, Some(2));
        assert_eq!(args.gdb, ["--batch", "-ex", "info threads", "-ex", "bt"]);
    }

    #[test]
    fn wrong_values_are_refused() {
        for line in [
            "run --cpus 0",
            "run --cpus 4096",
            "run --nodes 0",
            "run --mem 512Q",
            "run --accel fast",
            "run --timeout never",
            "run --no-such-option",
            "bench",
            "bench --machine fast",
            "bench --machine icount --rounds 0",
            "bench --machine icount --allow-other-tools",
            "walk",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
