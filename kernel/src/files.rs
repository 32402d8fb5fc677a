//! Files that are not on any disk: names, functions that write their text, and for some of
//! them functions that take a value. The shell's `ls`, `cat` and `write` use them.
//!
//! Files that are always there are lines of [`FILES`]; the folders that hold them are what
//! stands before a `/` in a name. Where what there is changes (a folder for each cache), a
//! [`Tree`] answers for everything below its place in [`TREES`].

mod caches;
mod table;

use core::fmt::{self, Write};

pub use table::FILES;

/// What may be done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is only read.
    Read,
    /// It is read and written.
    ReadWrite,
}

/// What has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A file.
    File(Mode),
    /// A folder.
    Folder,
    /// Another name for this entry of the same folder.
    Link(&'a str),
}

/// What is in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name, without a `/`.
    pub name: &'a str,
    /// What it is.
    pub kind: Kind<'a>,
}

/// Why a file is not read, written or listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nothing has this name.
    Missing,
    /// It is a folder.
    IsFolder,
    /// It is no folder.
    NotFolder,
    /// It cannot be written.
    ReadOnly,
    /// The value is not what this says.
    NotA(&'static str),
    /// What was asked for did not go well, for this reason.
    Failed(&'static str),
    /// Whoever takes the text does not take it.
    Output,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no such file"),
            Self::IsFolder => f.write_str("is a folder"),
            Self::NotFolder => f.write_str("is no folder"),
            Self::ReadOnly => f.write_str("cannot be written"),
            Self::NotA(what) => write!(f, "the value is not {what}"),
            Self::Failed(why) => f.write_str(why),
            Self::Output => f.write_str("its text cannot be shown"),
        }
    }
}

impl core::error::Error for Error {}

impl From<fmt::Error> for Error {
    fn from(_: fmt::Error) -> Self {
        Self::Output
    }
}

/// Folders and files whose names are found when they are asked for. `path` is what follows
/// the tree's own place, without a `/` at either end; "" is the tree itself. All functions may
/// sleep.
pub trait Tree: Sync {
    /// Calls `each` with what is in a folder, by name.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], [`Error::NotFolder`].
    fn list(&self, path: &str, each: &mut dyn FnMut(&Entry<'_>)) -> Result<(), Error>;

    /// Writes the text of a file.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], [`Error::IsFolder`], [`Error::Output`].
    fn show(&self, path: &str, out: &mut dyn Write) -> Result<(), Error>;

    /// Gives a file a value.
    ///
    /// # Errors
    ///
    /// All but [`Error::Output`] and [`Error::NotFolder`].
    fn store(&self, path: &str, value: &str) -> Result<(), Error>;
}

/// A tree and its place.
pub struct Place {
    /// From `/` on.
    pub path: &'static str,
    /// What is there.
    pub tree: &'static dyn Tree,
}

/// All trees. None lies in another, and no file of [`FILES`] lies in one.
pub static TREES: &[Place] = &[Place {
    path: "/sys/kernel/slab",
    tree: &caches::SlabTree,
}];

/// The tree that a path leads into, and the rest of the path.
fn tree_of(path: &str) -> Option<(&'static dyn Tree, &str)> {
    TREES.iter().find_map(|place| {
        let rest = path.strip_prefix(&place.path[1..])?;
        let inside = rest.is_empty() || rest.starts_with('/');
        inside.then(|| (place.tree, rest.trim_matches('/')))
    })
}

/// Calls `each` with what is in a folder, by name. A `/` at the begin or end of `path` makes no
/// difference, here and below. May sleep.
///
/// # Errors
///
/// [`Error::Missing`], [`Error::NotFolder`].
pub fn list(path: &str, each: &mut dyn FnMut(&Entry<'_>)) -> Result<(), Error> {
    let path = path.trim_matches('/');
    if let Some((tree, rest)) = tree_of(path) {
        return tree.list(rest, each);
    }
    if static_file(path).is_some() {
        return Err(Error::NotFolder);
    }
    let mut last = "";
    loop {
        // What follows the last one; there are few, and they need not be in one table.
        let paths = FILES.iter().map(|file| (file.path, false));
        let trees = TREES.iter().map(|place| (place.path, true));
        let next = paths
            .chain(trees)
            .filter_map(|(name, is_tree)| child(path, &name[1..], is_tree))
            .filter(|entry| entry.name > last)
            .min_by_key(|entry| entry.name);
        let Some(entry) = next else { break };
        each(&entry);
        last = entry.name;
    }
    if last.is_empty() && !path.is_empty() {
        return Err(Error::Missing);
    }
    Ok(())
}

/// What of `path` is in `folder`.
fn child(folder: &str, path: &'static str, is_tree: bool) -> Option<Entry<'static>> {
    let rest = match folder {
        "" => path,
        _ => path.strip_prefix(folder)?.strip_prefix('/')?,
    };
    let (name, is_folder) = match rest.split_once('/') {
        Some((name, _)) => (name, true),
        None => (rest, is_tree),
    };
    let kind = if is_folder {
        Kind::Folder
    } else {
        Kind::File(Mode::Read)
    };
    Some(Entry { name, kind })
}

fn static_file(path: &str) -> Option<&'static table::File> {
    FILES.iter().find(|file| file.path[1..] == *path)
}

/// [`Error::IsFolder`] or [`Error::Missing`], for what is no file of the table.
fn no_file(path: &str) -> Error {
    match list(path, &mut |_| ()) {
        Ok(()) => Error::IsFolder,
        Err(_) => Error::Missing,
    }
}

/// Writes the text of a file. May sleep.
///
/// # Errors
///
/// [`Error::Missing`], [`Error::IsFolder`], [`Error::Output`].
pub fn show(path: &str, out: &mut dyn Write) -> Result<(), Error> {
    let path = path.trim_matches('/');
    if let Some((tree, rest)) = tree_of(path) {
        return tree.show(rest, out);
    }
    let file = static_file(path).ok_or_else(|| no_file(path))?;
    Ok((file.show)(out)?)
}

/// Gives a file a value. May sleep.
///
/// # Errors
///
/// All but [`Error::Output`] and [`Error::NotFolder`].
pub fn store(path: &str, value: &str) -> Result<(), Error> {
    let path = path.trim_matches('/');
    match tree_of(path) {
        Some((tree, rest)) => tree.store(rest, value),
        None if static_file(path).is_some() => Err(Error::ReadOnly),
        None => Err(no_file(path)),
    }
}

/// Calls `offer` with the paths that begin with `word`, as far as the next `/`.
pub fn complete(word: &str, offer: &mut dyn FnMut(&str)) {
    let folder = word.rfind('/').map_or("", |slash| &word[..=slash]);
    let mut path = alloc::string::String::new();
    let _ = list(folder, &mut |entry| {
        path.clear();
        let end = if matches!(entry.kind, Kind::File(_)) {
            ""
        } else {
            "/"
        };
        // Without a begin, everything is below the root.
        let begin = if folder.is_empty() { "/" } else { folder };
        // A `String` takes everything.
        let _ = write!(path, "{begin}{}{end}", entry.name);
        offer(&path);
    });
}
