//! What Tab offers: commands, and the arguments that a command suggests.

use alloc::string::String;
use alloc::vec::Vec;

use super::editor::Candidates;
use super::{find, registered};

/// The words that could stand at the end of `before`, the text before the cursor.
pub fn candidates(before: &str) -> Candidates {
    // Good enough without quotes; with them, nothing will match.
    let command = before.rsplit(';').next().unwrap_or(before).trim_start();
    let word = command.rsplit(' ').next().unwrap_or(command);
    let mut words = Vec::new();
    let mut offer = |candidate: &str| {
        if candidate.starts_with(word) {
            words.push(String::from(candidate));
        }
    };
    match command.split_once(' ') {
        None => registered().iter().for_each(|command| offer(command.name)),
        Some((name, _)) => {
            if let Some(command) = find(name) {
                (command.complete)(word, &mut offer);
                // Only if typed: it would make every other completion ambiguous.
                if word.starts_with('-') {
                    offer("--help");
                }
            }
        }
    }
    words.sort_unstable();
    words.dedup();
    Candidates {
        prefix: word.len(),
        words,
    }
}
