//! CPUs that come and go.

use alloc::string::String;
use alloc::vec::Vec;

use platform::CpuId;

use crate::shell::{Args, Status, bad_argument, shell_command};
use crate::{hotplug, smp, time};

shell_command! {
    name: "cpu",
    usage: "[on N|off N|fail STEP]",
    summary: "show which CPUs are online; bring one up, or take one offline",
    details: "on N: starts CPU N. off N: threads that run there go on elsewhere, those that are \
bound to it too, until it is back; CPU 0 stays. fail STEP: that step fails once, the next time \
that a CPU comes or goes, and what was done is undone ('fail none': it does not).",
    arguments: (0, 2),
    complete: |offer| ["on", "off", "fail"].into_iter().for_each(offer),
    run: cpu,
}

fn cpu(arguments: Args<'_>) -> Status {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => show(),
        ["on", number] => walk(number, hotplug::on),
        ["off", number] => walk(number, hotplug::off),
        ["fail", "none"] => Status::from_bool(hotplug::fail(None)),
        ["fail", step] => fail(step),
        [word @ ("on" | "off")] => {
            crate::println!("cpu: '{word}' needs the number of a CPU");
            Status::USAGE
        }
        ["fail"] => {
            crate::println!("cpu: 'fail' needs the name of a step");
            Status::USAGE
        }
        [word, ..] => bad_argument("cpu", word, "on, off or fail"),
    }
}

/// Takes a CPU up or down.
fn walk(number: &str, action: fn(CpuId) -> Result<(), hotplug::Error>) -> Status {
    // `parse` alone would take a sign.
    let digits = number.starts_with(|c: char| c.is_ascii_digit());
    let Some(number) = number.parse::<u32>().ok().filter(|_| digits) else {
        return bad_argument("cpu", number, "the number of a CPU");
    };
    let Some(cpu) = CpuId::new(number) else {
        crate::println!("cpu: there is no CPU {number}; there are {}", smp::cpus());
        return Status::FAILURE;
    };
    match action(cpu) {
        Ok(()) => Status::SUCCESS,
        Err(error) => {
            crate::println!("cpu: {error}");
            Status::FAILURE
        }
    }
}

/// Makes a step fail once.
fn fail(step: &str) -> Status {
    if hotplug::fail(Some(step)) {
        return Status::SUCCESS;
    }
    let names = hotplug::step_names().join(", ");
    crate::println!(
        "cpu: there is no step '{}'; there are {names}",
        step.escape_debug()
    );
    Status::FAILURE
}

fn show() -> Status {
    let _stay = hotplug::read_lock();
    crate::println!("cpu  state          since  steps");
    for cpu in smp::cpus() {
        let status = hotplug::status(cpu);
        let state = if status.online { "online" } else { "offline" };
        let us = status.since_ns / 1_000;
        crate::println!(
            "{:>3}  {state:<7}  {:>4}.{:06}  {} of {}",
            cpu.number(),
            us / 1_000_000,
            us % 1_000_000,
            status.done,
            status.steps,
        );
    }
    let names = hotplug::step_names().join(" ");
    crate::println!("steps, in the order of coming up: {names}");
    let us = time::now_ns() / 1_000;
    crate::println!("now {}.{:06} s", us / 1_000_000, us % 1_000_000);
    Status::SUCCESS
}
