//! `cargo xtask check`: formatting, lints and documentation of every crate.

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::toolchain::{DISTRIBUTION_CLIPPY, Road, Toolchain};
use crate::{packages, ui, workspace};

/// The crates that only exist in the guest.
const BARE: [&str; 3] = ["boot", "kernel", "kernel-early"];

/// The package of the host's benchmarks, a workspace of its own.
const HOST_BENCH: &str = "mm/bench";

/// The documentation is for those who work on the project: it shows private items, so it may
/// link to them.
const DOC_FLAGS: &str = "-D warnings -A rustdoc::private_intra_doc_links";

/// Runs it.
pub fn run() -> anyhow::Result<ExitCode> {
    let toolchain = Toolchain::require()?;
    if toolchain.road == Road::Distribution && !Path::new("/usr/bin/cargo-clippy").exists() {
        packages::install(&[DISTRIBUTION_CLIPPY], "clippy for the bare-metal crates")?;
    }
    let mut failed = 0;
    let mut step = |doing: &str, command: Command| {
        if let Err(error) = ui::step(doing, command) {
            ui::error(&format!("{error:#}"));
            failed += 1;
        }
    };
    step("checking the format", host(&["fmt", "--all", "--check"]));
    let mut image_builder = host(&["fmt", "--check"]);
    image_builder.current_dir(workspace::root().join("boot/uefi"));
    step("checking the format of the image builder", image_builder);
    let mut host_bench = host(&["fmt", "--check"]);
    host_bench.current_dir(workspace::root().join(HOST_BENCH));
    step("checking the format of the host's benchmarks", host_bench);
    step(
        "linting the host crates",
        host(&[
            "clippy",
            "--locked",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    );
    // Without what needs a C++ compiler.
    let mut host_bench = host(&["clippy", "--locked", "--target-dir"]);
    host_bench.arg(workspace::target().join("mm-bench"));
    host_bench.args(["--", "-D", "warnings"]);
    host_bench.current_dir(workspace::root().join(HOST_BENCH));
    step("linting the host's benchmarks", host_bench);
    let mut bare = toolchain.bare("clippy");
    bare.args(["--locked", "--profile", "checked"]);
    bare.args(BARE.iter().flat_map(|name| ["-p", name]))
        .args(["--", "-D", "warnings"]);
    step("linting the bare-metal crates", bare);
    let mut bare = toolchain.bare("clippy");
    bare.args(["--locked", "--profile", "checked", "-p", "kernel"]);
    bare.args(["--features", "rcu_preemptible,slab_stats"]);
    bare.args(["--", "-D", "warnings"]);
    step("linting the kernel with its features", bare);
    let mut docs = host(&[
        "doc",
        "--locked",
        "--no-deps",
        "--document-private-items",
        "--features",
        "granary-mm/hosted,granary-platform/hosted",
    ]);
    docs.env("RUSTDOCFLAGS", DOC_FLAGS);
    step("documenting the host crates", docs);
    let mut bare = toolchain.bare("doc");
    // In the same profile as above: what it needs is there.
    bare.args(["--locked", "--profile", "checked"]);
    bare.args(["--no-deps", "--document-private-items"]);
    bare.args(BARE.iter().flat_map(|name| ["-p", name]))
        .env("RUSTDOCFLAGS", DOC_FLAGS);
    step("documenting the bare-metal crates", bare);
    if failed > 0 {
        ui::error(&format!("{failed} checks failed"));
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// The cargo that runs xtask.
fn host(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(workspace::root());
    command
}
