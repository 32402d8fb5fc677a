//! `/sys/kernel/slab`: a folder for each cache, and a link to it for each further name.

use alloc::{string::ToString, vec::Vec};
use core::fmt::Write;

use mm::slab::{
    Caches, KmemCache,
    text::{Attribute, StoreError},
};

use super::{Entry, Error, Kind, Mode, Tree};
use crate::machine::Kernel;
use crate::memory::slab::slabs;
use crate::symbols;

/// The tree.
pub struct SlabTree;

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::ReadOnly => Self::ReadOnly,
            StoreError::NotA(what) => Self::NotA(what),
            StoreError::NotHere(why) => Self::Failed(why),
        }
    }
}

/// A cache's name, and an attribute's.
fn parts(path: &str) -> (&str, Option<&str>) {
    match path.split_once('/') {
        Some((cache, attribute)) => (cache, Some(attribute)),
        None => (path, None),
    }
}

fn cache_of<'a>(
    caches: &'a Caches<'_, Kernel>,
    name: &str,
) -> Result<&'a KmemCache<Kernel>, Error> {
    caches.find(name).ok_or(Error::Missing)
}

/// The attribute that a path within a cache's folder names.
fn attribute_of(name: Option<&str>) -> Result<&'static Attribute, Error> {
    Attribute::named(name.ok_or(Error::IsFolder)?).ok_or(Error::Missing)
}

fn mode_of(attribute: &Attribute) -> Mode {
    if attribute.is_writable() {
        Mode::ReadWrite
    } else {
        Mode::Read
    }
}

/// Calls `each` with all names of caches, in order.
fn list_caches(caches: &Caches<'_, Kernel>, each: &mut dyn FnMut(&Entry<'_>)) {
    let mut names = Vec::new();
    for cache in caches.iter() {
        let own = cache.title().to_string();
        let aliases = caches.aliases(cache);
        names.extend(aliases.map(|alias| (alias.name.to_string(), Some(own.clone()))));
        names.push((own, None));
    }
    names.sort_unstable();
    for (name, target) in &names {
        let kind = match target {
            None => Kind::Folder,
            Some(target) => Kind::Link(target),
        };
        each(&Entry { name, kind });
    }
}

impl Tree for SlabTree {
    fn list(&self, path: &str, each: &mut dyn FnMut(&Entry<'_>)) -> Result<(), Error> {
        let caches = slabs().caches();
        if path.is_empty() {
            list_caches(&caches, each);
            return Ok(());
        }
        let (name, attribute) = parts(path);
        cache_of(&caches, name)?;
        if let Some(attribute) = attribute {
            return match Attribute::named(attribute) {
                Some(_) => Err(Error::NotFolder),
                None => Err(Error::Missing),
            };
        }
        for attribute in Attribute::all() {
            each(&Entry {
                name: attribute.name,
                kind: Kind::File(mode_of(attribute)),
            });
        }
        Ok(())
    }

    fn show(&self, path: &str, out: &mut dyn Write) -> Result<(), Error> {
        let caches = slabs().caches();
        let (name, attribute) = parts(path);
        if name.is_empty() {
            return Err(Error::IsFolder);
        }
        let cache = cache_of(&caches, name)?;
        let attribute = attribute_of(attribute)?;
        if let (Some(constructor), "ctor") = (cache.constructor(), attribute.name) {
            // By its name, as Linux has it.
            let address = constructor as usize as u64;
            match symbols::resolve(address) {
                Some(symbol) => writeln!(out, "{symbol}")?,
                None => writeln!(out, "{address:#x}")?,
            }
            return Ok(());
        }
        Ok(attribute.show(&caches, cache, out)?)
    }

    fn store(&self, path: &str, value: &str) -> Result<(), Error> {
        let caches = slabs().caches();
        let (name, attribute) = parts(path);
        if name.is_empty() {
            return Err(Error::IsFolder);
        }
        let cache = cache_of(&caches, name)?;
        Ok(attribute_of(attribute)?.store(cache, value)?)
    }
}
