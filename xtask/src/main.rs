//! The program behind `cargo xtask`.

use std::process::ExitCode;

use clap::Parser;
use xtask::cli::{Cli, Command, Usage};
use xtask::{cmd, signals, test, ui};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = signals::install().and_then(|()| match &cli.command {
        Command::Run(args) => cmd::run::run(args),
        Command::Test(args) => test::run(args),
        Command::Bench(args) => cmd::bench::run(args),
        Command::Image(args) => cmd::image::run(args),
        Command::Gdb(args) => cmd::gdb::run(args),
        Command::Doctor => cmd::doctor::run(),
        Command::Check => cmd::check::run(),
    });
    result.unwrap_or_else(|error| {
        ui::error(&format!("{error:#}"));
        ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
    })
}
