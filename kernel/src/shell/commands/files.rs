//! Looking at files that are not on any disk, and writing to them.

use alloc::string::String;

use crate::console::Writer;
use crate::files::{self, Entry, Error, Kind, Mode};
use crate::shell::{Args, Status, shell_command};

/// Says why something did not work with a file.
fn failed(command: &str, path: &str, error: Error) -> Status {
    crate::println!("{command}: {}: {error}", path.escape_debug());
    Status::FAILURE
}

shell_command! {
    name: "cat",
    usage: "FILE...",
    summary: "show files",
    arguments: (1, 16),
    complete_word: files::complete,
    run: cat,
}

fn cat(arguments: Args<'_>) -> Status {
    let mut status = Status::SUCCESS;
    for path in arguments {
        if let Err(error) = files::show(path, &mut Writer) {
            status = failed("cat", path, error);
        }
    }
    status
}

shell_command! {
    name: "ls",
    usage: "[-l] [FOLDER]",
    summary: "list the files of a folder",
    details: "Folders end in '/', other names of an entry in '@'; -l shows what may be done with \
each file, and where\nother names lead.",
    arguments: (0, 2),
    complete_word: files::complete,
    run: ls,
}

fn ls(arguments: Args<'_>) -> Status {
    let mut arguments = arguments.iter().map(String::as_str).peekable();
    let show = match arguments.next_if_eq(&"-l") {
        Some(_) => long,
        None => short,
    };
    let path = arguments.next().unwrap_or("/");
    if arguments.next().is_some() {
        crate::println!("ls: one folder at a time; usage: ls [-l] [FOLDER]");
        return Status::USAGE;
    }
    match files::list(path, &mut |entry| show(entry)) {
        Ok(()) => Status::SUCCESS,
        Err(Error::NotFolder) => {
            crate::println!("{path}");
            Status::SUCCESS
        }
        Err(error) => failed("ls", path, error),
    }
}

fn short(entry: &Entry<'_>) {
    let end = match entry.kind {
        Kind::File(_) => "",
        Kind::Folder => "/",
        Kind::Link(_) => "@",
    };
    crate::println!("{}{end}", entry.name);
}

fn long(entry: &Entry<'_>) {
    let name = entry.name;
    match entry.kind {
        Kind::File(Mode::Read) => crate::println!("-r--------  {name}"),
        Kind::File(Mode::ReadWrite) => crate::println!("-rw-------  {name}"),
        Kind::Folder => crate::println!("dr-x------  {name}/"),
        Kind::Link(to) => crate::println!("lrwx------  {name} -> {to}"),
    }
}

shell_command! {
    name: "write",
    usage: "FILE VALUE...",
    summary: "give a file a value",
    details: "'ls -l' shows which files take one. A wrong value changes nothing.",
    arguments: (2, 16),
    complete_word: files::complete,
    run: write,
}

fn write(arguments: Args<'_>) -> Status {
    let [path, value @ ..] = arguments else {
        return Status::USAGE;
    };
    store("write", path, value)
}

fn store(command: &str, path: &str, value: &[String]) -> Status {
    match files::store(path, &value.join(" ")) {
        Ok(()) => Status::SUCCESS,
        Err(error) => failed(command, path, error),
    }
}

shell_command! {
    name: "echo",
    usage: "[WORD...] [> FILE]",
    summary: "print words, or give a file a value as in sh",
    arguments: (0, usize::MAX),
    complete_word: files::complete,
    run: echo,
}

fn echo(arguments: Args<'_>) -> Status {
    match arguments {
        [value @ .., arrow, path] if arrow == ">" => store("echo", path, value),
        [.., arrow] if arrow == ">" => {
            crate::println!("echo: no file follows '>'");
            Status::USAGE
        }
        [value @ .., last] if last.starts_with('>') => store("echo", &last[1..], value),
        words => {
            crate::println!("{}", words.join(" "));
            Status::SUCCESS
        }
    }
}
