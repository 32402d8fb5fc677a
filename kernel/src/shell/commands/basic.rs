//! Commands that need nothing but the console.

use crate::shell::{Args, Status, shell_command};

shell_command! {
    name: "true",
    usage: "",
    summary: "do nothing, with success",
    arguments: (0, usize::MAX),
    run: |_| Status::SUCCESS,
}

shell_command! {
    name: "false",
    usage: "",
    summary: "do nothing, without success",
    arguments: (0, usize::MAX),
    run: |_| Status::FAILURE,
}

shell_command! {
    name: "clear",
    usage: "",
    summary: "clear the screen",
    arguments: (0, 0),
    run: clear,
}

fn clear(_: Args<'_>) -> Status {
    crate::print!("\x1b[2J\x1b[H");
    Status::SUCCESS
}
