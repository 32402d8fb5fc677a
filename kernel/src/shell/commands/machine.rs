//! Commands that end or restart the machine.

use crate::exit;
use crate::shell::shell_command;

shell_command! {
    name: "poweroff",
    usage: "",
    summary: "switch the machine off",
    arguments: (0, 0),
    run: |_| exit::poweroff(),
}

shell_command! {
    name: "reboot",
    usage: "",
    summary: "restart the machine",
    arguments: (0, 0),
    run: |_| exit::reboot(),
}
