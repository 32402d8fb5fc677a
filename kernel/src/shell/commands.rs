//! The commands, by subject, and their help.

mod acpi;
mod basic;
mod bench;
mod cmdline;
mod cpu;
mod fault;
mod files;
mod inspect;
mod kfree_rcu;
mod locks;
mod machine;
mod page_debug;
mod rcu;
mod rcutorture;
mod slab;
mod tests;
mod threads;

use alloc::vec::Vec;

use super::{Args, Command, Status, find, registered, shell_command};

shell_command! {
    name: "help",
    usage: "[COMMAND]",
    summary: "list the commands, or explain one",
    arguments: (0, 1),
    complete: |offer| registered().iter().for_each(|command| offer(command.name)),
    run: help,
}

fn help(arguments: Args<'_>) -> Status {
    if let [name] = arguments {
        let Some(command) = find(name) else {
            crate::println!(
                "help: unknown command '{}'; 'help' lists them",
                name.escape_debug()
            );
            return Status::FAILURE;
        };
        print_help(command);
        return Status::SUCCESS;
    }
    let mut commands: Vec<&Command> = registered().to_vec();
    commands.sort_unstable_by_key(|command| command.name);
    let width = commands
        .iter()
        .map(|command| command.synopsis().len())
        .max()
        .unwrap_or(0);
    for command in commands {
        crate::println!("  {:width$}  {}", command.synopsis(), command.summary);
    }
    crate::println!(
        "\nCOMMAND --help explains one. ';' separates commands: all of them run, and the last\n\
         one's status counts. '...', \"...\" and \\ quote. Tab completes, arrows edit and go back."
    );
    Status::SUCCESS
}

/// Prints all there is to say about a command.
pub fn print_help(command: &Command) {
    crate::println!("usage: {}", command.synopsis());
    crate::println!("{}", command.summary);
    if !command.details.is_empty() {
        crate::println!("{}", command.details);
    }
}
