//! Barns under a model checker: CPUs exchange sheaves, and no sheaf is lost, doubled or used by
//! two. The barn is the allocator's own.

use std::{
    alloc::{Layout, alloc, dealloc},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicUsize as Plain, Ordering::SeqCst},
    },
};

use loom::cell::UnsafeCell;
use mm::slab::{
    Mode,
    barn::{Barn, MAX_EMPTY, MAX_FULL, Refused},
    sheaf::Sheaf,
};
use platform::model::{self, Model, Setup};

/// Objects of a sheaf.
const CAPACITY: u32 = 1;
const SHEAF: Layout = match Layout::from_size_align(Sheaf::bytes(CAPACITY), 8) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};

/// A barn, and sheaves with a cell each that only a sheaf's owner uses: the checker reports two that
/// do, and one who does not see what the last one did.
struct World {
    barn: Barn<Model>,
    sheaves: Vec<(NonNull<Sheaf>, UnsafeCell<usize>)>,
}

// SAFETY: that accesses are ordered is what the tests prove.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    /// With so many full sheaves and so many empty ones in the barn, and `held` empty ones outside.
    fn new(full: usize, empty: usize, held: usize) -> Arc<Self> {
        let sheaves = (0..full + empty + held).map(|_| {
            // SAFETY: not of size 0, and as large as said.
            let sheaf = unsafe {
                let memory = NonNull::new(alloc(SHEAF)).expect("memory");
                Sheaf::init(memory, CAPACITY)
            };
            (sheaf, UnsafeCell::new(0))
        });
        let world = Self {
            barn: Barn::new(),
            sheaves: sheaves.collect(),
        };
        for (index, (sheaf, _)) in world.sheaves.iter().enumerate() {
            // SAFETY: nobody else knows of them.
            unsafe {
                if index < full {
                    Sheaf::push(*sheaf, NonNull::dangling());
                    world.barn.put_full(*sheaf, Mode::Spin).unwrap();
                } else if index < full + empty {
                    world.barn.put_empty(*sheaf, Mode::Spin).unwrap();
                }
            }
        }
        Arc::new(world)
    }

    /// A sheaf of the caller's is used; it becomes full, or empty.
    fn turn(&self, sheaf: NonNull<Sheaf>) {
        let (_, used) = self
            .sheaves
            .iter()
            .find(|(known, _)| *known == sheaf)
            .expect("one of them");
        // SAFETY: only its owner does this; the checker watches.
        unsafe {
            used.with_mut(|used| *used += 1);
            if Sheaf::pop(sheaf).is_none() {
                Sheaf::push(sheaf, NonNull::dangling());
            }
        }
    }

    fn held(&self, number: usize) -> NonNull<Sheaf> {
        self.sheaves[self.sheaves.len() - 1 - number].0
    }

    /// All sheaves are in the barn or in `held`, each once, and are what they should be.
    fn check(&self, held: &[NonNull<Sheaf>]) {
        let mut all: Vec<_> = held.to_vec();
        let mut sheaves = self.barn.take_all();
        assert!(sheaves.full.len <= MAX_FULL && sheaves.empty.len <= MAX_EMPTY);
        while let Some(sheaf) = sheaves.full.pop() {
            // SAFETY: taken out.
            assert_eq!(unsafe { Sheaf::len(sheaf) }, 1, "a full sheaf is not");
            all.push(sheaf);
        }
        while let Some(sheaf) = sheaves.empty.pop() {
            // SAFETY: taken out.
            assert_eq!(unsafe { Sheaf::len(sheaf) }, 0, "an empty sheaf is not");
            all.push(sheaf);
        }
        all.iter().for_each(|sheaf| self.turn(*sheaf));
        all.sort();
        let mut known: Vec<_> = self.sheaves.iter().map(|(sheaf, _)| *sheaf).collect();
        known.sort();
        assert_eq!(all, known);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for (sheaf, _) in &self.sheaves {
            // SAFETY: allocated so.
            unsafe { dealloc(sheaf.as_ptr().cast(), SHEAF) };
        }
    }
}

/// Who has an empty sheaf wants a full one, and who has a full one an empty one: in every order
/// each has one sheaf afterwards, and both orders of the two are met.
#[test]
fn exchanges_lose_nothing() {
    static GOT_FULL: [Plain; 2] = [const { Plain::new(0) }; 2];
    Setup::new(2).preemptions(3).blocking_locks().check(|| {
        let world = World::new(0, 1, 2);
        let there = Arc::clone(&world);
        let kept = Arc::new(loom::sync::Mutex::new(None));
        let keep = Arc::clone(&kept);
        // (The one who only reads the counts is the later one: see `platform::model`.)
        let other = model::cpu(1, move || {
            let mut own = there.held(0);
            // SAFETY: this CPU's, and empty.
            match unsafe { there.barn.exchange_empty(own, Mode::Spin) } {
                Ok((full, surplus)) => {
                    assert_eq!(surplus, None);
                    there.turn(full);
                    own = full;
                    GOT_FULL[1].fetch_add(1, SeqCst);
                }
                Err(refused) => {
                    assert_eq!(refused, Refused::NoOther);
                    GOT_FULL[0].fetch_add(1, SeqCst);
                }
            }
            *keep.lock().unwrap() = Some(own.as_ptr().expose_provenance());
        });
        let full = world.held(1);
        world.turn(full);
        // SAFETY: this CPU's.
        let empty = unsafe { world.barn.exchange_full(full, Mode::Spin) };
        let empty = empty.expect("there is one, and room");
        world.turn(empty);
        // SAFETY: as above; full, now.
        unsafe { world.barn.put_full(empty, Mode::Spin) }.expect("there is room");
        other.join();
        let address = kept.lock().unwrap().expect("it has one");
        let sheaf = std::ptr::with_exposed_provenance_mut(address);
        world.check(&[NonNull::new(sheaf).expect("a sheaf")]);
    });
    let met = GOT_FULL.each_ref().map(|times| times.load(SeqCst) > 0);
    assert_eq!(met, [true, true], "with nothing, with a full sheaf");
}

/// Three CPUs, of which one never waits: it finds the lock taken in some orders, and then has
/// what it had.
#[test]
fn who_does_not_wait_keeps_what_it_has() {
    static BUSY: Plain = Plain::new(0);
    static DONE: Plain = Plain::new(0);
    Setup::new(3).preemptions(2).blocking_locks().check(|| {
        let world = World::new(1, 1, 2);
        let one = Arc::clone(&world);
        let getter = model::cpu(1, move || {
            if let Some(full) = one.barn.get_full(Mode::Spin) {
                one.turn(full);
                // SAFETY: this CPU's, and empty now.
                unsafe { one.barn.put_empty(full, Mode::Spin) }.expect("there is room");
            }
        });
        let two = Arc::clone(&world);
        let waiter = model::cpu(2, move || {
            let own = two.held(1);
            two.turn(own);
            // SAFETY: this CPU's, and full.
            unsafe { two.barn.put_full(own, Mode::Spin) }.expect("there is room");
        });
        let mut own = world.held(0);
        // SAFETY: this CPU's, and empty.
        match unsafe { world.barn.exchange_empty(own, Mode::NoLock) } {
            Ok((full, surplus)) => {
                assert_eq!(surplus, None);
                world.turn(full);
                own = full;
                DONE.fetch_add(1, SeqCst);
            }
            Err(Refused::Busy) => {
                BUSY.fetch_add(1, SeqCst);
            }
            Err(_) => {}
        }
        getter.join();
        waiter.join();
        world.check(&[own]);
    });
    assert!(BUSY.load(SeqCst) > 0, "the lock was never met taken");
    assert!(DONE.load(SeqCst) > 0, "it never got one");
}

/// The last place: one gets it, the other keeps its sheaf.
#[test]
fn there_are_never_too_many() {
    Setup::new(2).preemptions(3).blocking_locks().check(|| {
        let world = World::new(0, MAX_EMPTY - 1, 2);
        let there = Arc::clone(&world);
        let kept = Arc::new(loom::sync::Mutex::new(Vec::new()));
        let also = Arc::clone(&kept);
        let other = model::cpu(1, move || {
            let own = there.held(1);
            there.turn(own);
            there.turn(own);
            // SAFETY: this CPU's, and empty.
            if unsafe { there.barn.put_empty(own, Mode::Spin) }.is_err() {
                also.lock().unwrap().push(own.as_ptr().expose_provenance());
            }
        });
        let mut held = Vec::new();
        let own = world.held(0);
        // SAFETY: as above.
        if unsafe { world.barn.put_empty(own, Mode::Spin) }.is_err() {
            held.push(own);
        }
        other.join();
        for address in kept.lock().unwrap().iter() {
            let sheaf = std::ptr::with_exposed_provenance_mut(*address);
            held.push(NonNull::new(sheaf).expect("a sheaf"));
        }
        assert_eq!(held.len(), 1, "one place for two");
        world.check(&held);
    });
}
