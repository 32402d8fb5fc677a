//! The command that measures.

use alloc::string::String;
use alloc::vec::Vec;

use crate::bench::{self, Options};
use crate::shell::{Args, Status, bad_argument, shell_command};

shell_command! {
    name: "bench",
    usage: "[--list] [GLOB ...]",
    summary: "run benchmarks",
    details: "Runs the benchmarks that match one of the GLOBs, all without one, and prints a line \
              for each.\nA GLOB without a slash also names all of a group: sched. --list only \
              lists them.\nThe status is 1 if one went wrong, a GLOB matches none, or there is \
              no figure.\nBoot with bench.rounds=N for other than 5 rounds.",
    arguments: (0, usize::MAX),
    complete: |offer| {
        offer("--list");
        bench::workloads().iter().for_each(|workload| offer(workload.name));
    },
    run: run_bench,
}

fn run_bench(arguments: Args<'_>) -> Status {
    let mut options = Options::all();
    let mut list = false;
    let mut patterns = Vec::new();
    for argument in arguments {
        match argument.as_str() {
            "--list" => list = true,
            option if option.starts_with('-') => {
                return bad_argument("bench", option, "an option (only --list and --help are)");
            }
            glob => patterns.extend(glob.split(',').map(String::from)),
        }
    }
    if !patterns.is_empty() {
        options.patterns = patterns;
    }
    Status::from_bool(if list {
        bench::list(&options)
    } else {
        bench::run(&options)
    })
}
