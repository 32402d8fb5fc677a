//! Looking at files that are not on any disk.

use alloc::string::String;

use crate::console::Writer;
use crate::files::{self, FILES, Found};
use crate::shell::{Args, Status, shell_command};

shell_command! {
    name: "cat",
    usage: "FILE...",
    summary: "show files",
    arguments: (1, 16),
    complete: |offer| FILES.iter().for_each(|file| offer(file.path)),
    run: cat,
}

fn cat(arguments: Args<'_>) -> Status {
    let mut status = Status::SUCCESS;
    for path in arguments {
        match files::find(path) {
            Some(Found::File(file)) => {
                // The console takes everything.
                let _ = (file.write)(&mut Writer);
            }
            found => {
                let problem = match found {
                    Some(_) => "is a folder",
                    None => "there is no such file",
                };
                crate::println!("cat: {}: {problem}", path.escape_debug());
                status = Status::FAILURE;
            }
        }
    }
    status
}

shell_command! {
    name: "ls",
    usage: "[FOLDER]",
    summary: "list the files of a folder",
    arguments: (0, 1),
    complete: |offer| FILES.iter().for_each(|file| offer(file.path)),
    run: ls,
}

fn ls(arguments: Args<'_>) -> Status {
    let path = arguments.first().map_or("/", String::as_str);
    match files::find(path) {
        Some(Found::Folder) => files::entries(path).for_each(|name| crate::println!("{name}")),
        Some(Found::File(file)) => crate::println!("{}", file.path),
        None => {
            crate::println!("ls: {}: there is no such file", path.escape_debug());
            return Status::FAILURE;
        }
    }
    Status::SUCCESS
}
