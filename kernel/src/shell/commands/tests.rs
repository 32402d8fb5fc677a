//! Commands that run tests and provoke crashes.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::kunit::{self, Options};
use crate::panic_tests;
use crate::shell::{Args, Status, bad_argument, shell_command};

shell_command! {
    name: "kunit",
    usage: "[--list] [GLOB ...]",
    summary: "run in-kernel tests",
    details: "Runs the cases whose suite.case matches one of the GLOBs, all without one, and \
              prints the\nresults as KTAP. A GLOB without a dot names suites. --list only lists \
              them.\nThe status is 1 if a case failed, or if none matches.",
    arguments: (0, usize::MAX),
    complete: |offer| {
        offer("--list");
        kunit::suites().iter().for_each(|suite| offer(suite.name));
    },
    run: run_kunit,
}

fn run_kunit(arguments: Args<'_>) -> Status {
    let mut options = Options::all();
    let mut list = false;
    let mut patterns = Vec::new();
    for argument in arguments {
        match argument.as_str() {
            "--list" => list = true,
            option if option.starts_with('-') => {
                return bad_argument("kunit", option, "an option (only --list and --help are)");
            }
            glob => patterns.extend(glob.split(',').map(String::from)),
        }
    }
    if !patterns.is_empty() {
        options.patterns = patterns;
    }
    if list {
        return Status::from_bool(kunit::list(&kunit::suites(), &options) > 0);
    }
    Status::from_bool(kunit::run(&options))
}

shell_command! {
    name: "panic",
    usage: "[HOW]",
    summary: "crash the kernel on purpose",
    details: "HOW is 'plain' (the default) or another way to crash; a wrong one lists them all.",
    arguments: (0, 1),
    complete: |offer| panic_tests::WAYS.iter().for_each(|(name, _, _)| offer(name)),
    run: panic,
}

fn panic(arguments: Args<'_>) -> Status {
    let how = arguments.first().map_or("plain", String::as_str);
    match panic_tests::trigger(how) {
        Ok(()) => {
            crate::println!("panic: '{how}' was survived");
            Status::FAILURE
        }
        Err(ways) => bad_argument("panic", how, &format!("one of: {ways}")),
    }
}
