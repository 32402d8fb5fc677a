//! Hash tables that are read without a lock.
//!
//! A [`HashTable`] is a fixed number of [`List`]s, each with its own lock, and a hash function
//! that says which list a key belongs to. What is said there of readers, updaters and removed
//! elements holds here: a lookup takes no lock and writes nothing, and what it finds stays
//! until its section ends; a replaced or removed entry comes back [`Retired`].
//!
//! A lookup that runs beside updates of its key finds the entry of before or of after. While a
//! key is there it is found: an `insert` that replaces leaves no gap.
//!
//! The number of lists is chosen when the table is made and does not change.

use alloc::vec::Vec;
use core::{
    borrow::Borrow,
    fmt,
    hash::{BuildHasher, Hash},
};

use platform::lock::Class;

use crate::{
    Machine,
    boxed::RcuBox,
    engine::Rcu,
    list::{Element, List},
    reader::Guard,
    retired::Retired,
};

/// A key and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<K, V> {
    /// What it is found by.
    pub key: K,
    /// What is found.
    pub value: V,
}

/// What a table owns.
pub type Entry<K, V> = Element<Pair<K, V>>;

impl<K, V> Entry<K, V> {
    /// A boxed entry, in no table. `None`: no memory; both are dropped. Allocates.
    pub fn try_of(key: K, value: V) -> Option<RcuBox<Self>> {
        Self::try_new(Pair { key, value })
    }
}

/// The table. See the module. `C` is the class of its locks, one for each list, of which only
/// one is held at a time; keys are compared under it. `S` makes the hash function: where others
/// choose the keys, one with a secret.
///
/// ```
/// use core::hash::BuildHasher;
/// use platform::lock_class;
/// use rcu::{Machine, Rcu, hash::{Entry, HashTable}};
///
/// lock_class! { struct Names = ("names", 10); }
///
/// type Table<M, S> = HashTable<&'static str, u32, M, Names, S>;
///
/// fn number<M: Machine, S: BuildHasher>(table: &Table<M, S>, name: &str) -> Option<u32> {
///     let guard = rcu::read();
///     table.get(name, &guard).copied()
/// }
///
/// fn set<M: Machine, S: BuildHasher>(table: &Table<M, S>, name: &'static str, rcu: &Rcu<M>) {
///     let Some(entry) = Entry::try_of(name, 7) else { return };
///     // What was there is freed after a grace period.
///     table.insert(entry, rcu);
/// }
/// ```
///
/// What is found does not outlive the section:
///
/// ```compile_fail,E0515
/// # use core::hash::BuildHasher;
/// # platform::lock_class! { struct Class = ("some", 10); }
/// # use rcu::{Machine, hash::HashTable};
/// fn get<M: Machine, S: BuildHasher>(table: &HashTable<u32, u32, M, Class, S>) -> Option<&u32> {
///     let guard = rcu::read();
///     table.get(&1, &guard)
/// }
/// ```
pub struct HashTable<K, V, M, C, S>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    M: Machine,
    C: Class,
{
    /// A power of two of them.
    buckets: Vec<List<Pair<K, V>, M, C>>,
    hasher: S,
}

impl<K, V, M, C, S> HashTable<K, V, M, C, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    M: Machine,
    C: Class,
    S: BuildHasher,
{
    /// An empty table of `buckets` lists, or the next power of two. `None`: no memory.
    /// Allocates.
    pub fn try_new(buckets: usize, hasher: S) -> Option<Self> {
        let count = buckets.checked_next_power_of_two()?;
        let mut buckets = Vec::new();
        buckets.try_reserve_exact(count).ok()?;
        buckets.extend((0..count).map(|_| List::new()));
        Some(Self { buckets, hasher })
    }

    fn bucket<Q: Hash + ?Sized>(&self, key: &Q) -> &List<Pair<K, V>, M, C> {
        let mask = self.buckets.len() - 1;
        &self.buckets[self.hasher.hash_one(key) as usize & mask]
    }

    /// The value of a key. It stays what it is until the end of the section. Any context in
    /// which the key may be hashed and compared.
    pub fn get<'g, Q>(&'g self, key: &Q, guard: &'g Guard<M>) -> Option<&'g V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut pairs = self.bucket(key).iter(guard);
        let found = pairs.find(|pair| pair.key.borrow() == key);
        found.map(|pair| &pair.value)
    }

    /// Puts an entry into the table, in place of the one with an equal key. Task context;
    /// spins.
    pub fn insert<'r>(
        &self,
        entry: RcuBox<Entry<K, V>>,
        rcu: &'r Rcu<M>,
    ) -> Option<Retired<'r, Entry<K, V>, M>> {
        let mut updater = self.bucket(&entry.key).lock();
        let mut cursor = updater.cursor();
        cursor.seek(|pair| pair.key == entry.key);
        match cursor.replace(entry, rcu) {
            Ok(old) => Some(old),
            Err(entry) => {
                cursor.insert(entry);
                None
            }
        }
    }

    /// Takes out the entry of a key. Task context; spins.
    pub fn remove<'r, Q>(&self, key: &Q, rcu: &'r Rcu<M>) -> Option<Retired<'r, Entry<K, V>, M>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut updater = self.bucket(key).lock();
        let mut cursor = updater.cursor();
        cursor.seek(|pair| pair.key.borrow() == key);
        cursor.remove(rcu)
    }

    /// All pairs, list after list: see [`List::iter`]. An entry that is replaced meanwhile is
    /// met once, one that is taken out and put in again perhaps twice or not at all.
    pub fn iter<'g>(&'g self, guard: &'g Guard<M>) -> impl Iterator<Item = &'g Pair<K, V>> {
        self.buckets.iter().flat_map(|bucket| bucket.iter(guard))
    }
}

impl<K, V, M, C, S> fmt::Debug for HashTable<K, V, M, C, S>
where
    K: fmt::Debug + Send + Sync + 'static,
    V: fmt::Debug + Send + Sync + 'static,
    M: Machine,
    C: Class,
{
    /// Begins a section to show the pairs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guard = Guard::new();
        let pairs = self.buckets.iter().flat_map(|bucket| bucket.iter(&guard));
        f.debug_map()
            .entries(pairs.map(|pair| (&pair.key, &pair.value)))
            .finish()
    }
}
