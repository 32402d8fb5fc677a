//! The shell on the serial console.
//!
//! Commands register themselves in a link section with [`shell_command!`]; the
//! shell finds them by name, checks the number of their arguments and answers
//! `--help` for them. A command returns a [`Status`], 0 for success and at most
//! 31, because that is what can be told to the host when `run=` ends.
//!
//! Lines are taken apart by [`parse`]: words, quotes, `;`. Commands of a line run
//! one after the other, whether they succeed or not, and the status of the line is
//! that of the last one, as in `sh`.

mod commands;
mod complete;
mod editor;
mod keys;
mod parse;

use alloc::format;
use alloc::string::String;

use self::editor::{Event, LINE_MAX, LineEditor};
use self::keys::Decoder;
use crate::{boot, console, exit};

/// What stands before the cursor when the shell waits for a line.
const PROMPT: &str = "granary> ";

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(u8);

impl Status {
    /// All went well.
    pub const SUCCESS: Self = Self(0);
    /// The command could not do what it was asked for.
    pub const FAILURE: Self = Self(1);
    /// The command or its arguments were not understood.
    pub const USAGE: Self = Self(2);
    /// There is no such command: `sh`'s 127, which does not fit.
    pub const UNKNOWN: Self = Self(31);

    /// The number, 0 to 31.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// Success if `good`.
    pub const fn from_bool(good: bool) -> Self {
        if good { Self::SUCCESS } else { Self::FAILURE }
    }
}

/// The arguments of a command, without its name.
pub type Args<'a> = &'a [String];

/// Offers words that could be an argument, one by one. It is told how the word begins, and need
/// not leave out what begins otherwise.
pub type Suggest = fn(&str, &mut dyn FnMut(&str));

/// A command. Made by [`shell_command!`].
pub struct Command {
    /// What is typed to run it.
    pub name: &'static str,
    /// Its arguments, as shown in help.
    pub usage: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// More about it, or nothing.
    pub details: &'static str,
    /// The smallest and the greatest number of arguments.
    pub arguments: (usize, usize),
    /// Words that could be an argument.
    pub complete: Suggest,
    /// Runs it. The number of arguments is right.
    pub run: fn(Args<'_>) -> Status,
}

impl Command {
    /// `name arguments`, as typed.
    fn synopsis(&self) -> String {
        let blank = if self.usage.is_empty() { "" } else { " " };
        format!("{}{blank}{}", self.name, self.usage)
    }
}

/// Registers a shell command.
///
/// ```ignore
/// shell_command! {
///     name: "symbol",
///     usage: "ADDRESS|NAME",
///     summary: "look up a symbol",
///     details: "",             // this and `complete` may be left out
///     arguments: (1, 1),
///     complete: names,         // or `complete_word`, which is told how the word begins
///     run: symbol,
/// }
/// ```
macro_rules! shell_command {
    (
        name: $name:literal,
        usage: $usage:literal,
        summary: $summary:literal,
        $(details: $details:expr,)?
        arguments: $arguments:expr,
        $(complete: $complete:expr,)?
        $(complete_word: $complete_word:expr,)?
        run: $run:expr $(,)?
    ) => {
        const _: () = {
            static COMMAND: $crate::shell::Command = $crate::shell::Command {
                name: $name,
                usage: $usage,
                summary: $summary,
                details: concat!($($details)?),
                arguments: $arguments,
                complete: $crate::shell::shell_command!(@complete $($complete)? $(; $complete_word)?),
                run: $run,
            };
            #[used]
            #[unsafe(link_section = ".shell_commands")]
            static ENTRY: &$crate::shell::Command = &COMMAND;
        };
    };
    (@complete) => { |_, _| {} };
    (@complete ; $complete_word:expr) => { $complete_word };
    (@complete $complete:expr) => {
        |_, offer| {
            let complete: fn(&mut dyn FnMut(&str)) = $complete;
            complete(offer);
        }
    };
}

use shell_command;

/// All registered commands, in no particular order.
fn registered() -> &'static [&'static Command] {
    unsafe extern "C" {
        static __shell_commands_start: u8;
        static __shell_commands_end: u8;
    }
    let start = (&raw const __shell_commands_start).cast::<&'static Command>();
    let end = (&raw const __shell_commands_end).cast::<&'static Command>();
    // SAFETY: The linker script puts these two symbols around the section
    // `.shell_commands`, which holds nothing but the `&'static Command` of
    // `shell_command!`, so both are of one array of initialised references.
    unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

/// The command called `name`.
fn find(name: &str) -> Option<&'static Command> {
    registered()
        .iter()
        .copied()
        .find(|command| command.name == name)
}

/// Runs what `run=` on the command line says and exits with its status; without
/// it, reads and runs lines for ever.
pub fn main() -> ! {
    if let Some(line) = boot::command_line().run {
        let status = run_line(&format!("{line}"));
        match status {
            Status::SUCCESS => exit::success(),
            other => exit::status(other.code()),
        }
    }
    interact()
}

/// Runs the commands of `line`. The status is the last one's.
pub fn run_line(line: &str) -> Status {
    let commands = match parse::commands(line) {
        Ok(commands) => commands,
        Err(error) => {
            crate::println!("granary: {error}; nothing was run");
            return Status::USAGE;
        }
    };
    let mut status = Status::SUCCESS;
    for words in commands {
        if let [name, arguments @ ..] = words.as_slice() {
            status = run_command(name, arguments);
        }
    }
    status
}

fn run_command(name: &str, arguments: Args<'_>) -> Status {
    let Some(command) = find(name) else {
        crate::println!(
            "granary: unknown command '{}'; 'help' lists them",
            name.escape_debug()
        );
        return Status::UNKNOWN;
    };
    if arguments
        .first()
        .is_some_and(|argument| argument == "--help")
    {
        commands::print_help(command);
        return Status::SUCCESS;
    }
    let (least, most) = command.arguments;
    if arguments.len() < least {
        return misused(command, "too few arguments");
    }
    if arguments.len() > most {
        return misused(command, "too many arguments");
    }
    (command.run)(arguments)
}

/// Says what is wrong with the arguments of a command.
fn misused(command: &Command, problem: &str) -> Status {
    crate::println!("{}: {problem}; usage: {}", command.name, command.synopsis());
    Status::USAGE
}

/// Says that an argument of the command `name` is wrong: what it is, and what it
/// should be.
fn bad_argument(name: &str, argument: &str, expected: &str) -> Status {
    crate::println!("{name}: '{}' is not {expected}", argument.escape_debug());
    Status::USAGE
}

fn interact() -> ! {
    let mut keys = Decoder::new();
    let show = |text: &str| crate::print!("{text}");
    let mut editor = LineEditor::new(PROMPT, show, complete::candidates);
    editor.draw();
    loop {
        let Some(key) = keys.push(console::wait_byte()) else {
            continue;
        };
        match editor.press(key) {
            Event::Editing => continue,
            Event::Line(line) => {
                run_line(&line);
            }
            Event::TooLong => {
                crate::println!("granary: a line has at most {LINE_MAX} bytes; nothing was run");
            }
        }
        editor.draw();
    }
}
