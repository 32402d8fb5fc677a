//! The words that protocols are written with: the processor's atomics, or, in the model
//! build (`platform/model`), those of the model checker, which explores every order that
//! the memory model allows.
//!
//! Protocols of `platform`, `rcu` and `mm` take atomics, fences and cells from here, never
//! from `core`; what is not part of a protocol (a statistic, a name) may come from `core`.

#[cfg(not(model))]
mod words {
    pub use core::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, fence,
    };

    /// Keeps the compiler from moving accesses across: order between a CPU and its own
    /// interrupts, which the processor keeps anyway.
    #[inline(always)]
    pub fn compiler_fence(order: super::Ordering) {
        core::sync::atomic::compiler_fence(order);
    }

    /// Contents that a protocol guards.
    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub struct Cell<T: ?Sized>(core::cell::UnsafeCell<T>);

    /// Evidence of a shared access to a [`Cell`].
    #[derive(Debug)]
    pub struct Shared<T: ?Sized>(*const T);

    /// Evidence of an exclusive access to a [`Cell`].
    #[derive(Debug)]
    pub struct Exclusive<T: ?Sized>(*mut T);

    impl<T> Cell<T> {
        /// A cell.
        pub const fn new(value: T) -> Self {
            Self(core::cell::UnsafeCell::new(value))
        }

        /// The contents.
        pub fn into_inner(self) -> T {
            self.0.into_inner()
        }
    }

    impl<T: ?Sized> Cell<T> {
        /// Begins a shared access; it lasts until the result is dropped.
        #[inline(always)]
        pub fn shared(&self) -> Shared<T> {
            Shared(self.0.get())
        }

        /// Begins an exclusive access; it lasts until the result is dropped.
        #[inline(always)]
        pub fn exclusive(&self) -> Exclusive<T> {
            Exclusive(self.0.get())
        }

        /// The contents' address, for what the protocol does not guard.
        #[inline(always)]
        pub fn get_mut(&mut self) -> &mut T {
            self.0.get_mut()
        }
    }

    impl<T: ?Sized> Shared<T> {
        /// The contents.
        ///
        /// # Safety
        ///
        /// Nobody may have exclusive access while the reference lives.
        #[inline(always)]
        pub unsafe fn get(&self) -> &T {
            // SAFETY: the pointer is a cell's, alive as the caller promises.
            unsafe { &*self.0 }
        }
    }

    impl<T: ?Sized> Exclusive<T> {
        /// The contents.
        ///
        /// # Safety
        ///
        /// Nobody else may have access while the reference lives.
        #[inline(always)]
        pub unsafe fn get(&self) -> &T {
            // SAFETY: as the caller promises.
            unsafe { &*self.0 }
        }

        /// The contents, to be changed.
        ///
        /// # Safety
        ///
        /// Nobody else may have access while the reference lives.
        #[inline(always)]
        #[allow(
            clippy::mut_from_ref,
            reason = "the access, not this value, is exclusive"
        )]
        pub unsafe fn get_mut(&self) -> &mut T {
            // SAFETY: as the caller promises.
            unsafe { &mut *self.0 }
        }
    }
}

#[cfg(model)]
mod words {
    pub use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, fence,
    };

    /// Nothing: what runs on one CPU of the model is one thread.
    pub fn compiler_fence(_order: super::Ordering) {}

    /// Contents that a protocol guards; the model checker reports accesses that collide.
    #[derive(Debug)]
    pub struct Cell<T>(loom::cell::UnsafeCell<T>);

    /// Evidence of a shared access to a [`Cell`].
    pub struct Shared<T>(loom::cell::ConstPtr<T>);

    /// Evidence of an exclusive access to a [`Cell`].
    pub struct Exclusive<T>(loom::cell::MutPtr<T>);

    impl<T> Cell<T> {
        /// A cell.
        pub fn new(value: T) -> Self {
            Self(loom::cell::UnsafeCell::new(value))
        }

        /// The contents.
        pub fn into_inner(self) -> T {
            self.0.into_inner()
        }

        /// The contents' address, for what the protocol does not guard.
        pub fn get_mut(&mut self) -> &mut T {
            let access = self.0.get_mut();
            // SAFETY: the cell is borrowed exclusively; the model checks that the accesses
            // of other threads came before.
            unsafe { &mut *core::ptr::from_mut(access.deref()) }
        }

        /// Begins a shared access; it lasts until the result is dropped.
        pub fn shared(&self) -> Shared<T> {
            Shared(self.0.get())
        }

        /// Begins an exclusive access; it lasts until the result is dropped.
        pub fn exclusive(&self) -> Exclusive<T> {
            Exclusive(self.0.get_mut())
        }
    }

    impl<T> Shared<T> {
        /// The contents.
        ///
        /// # Safety
        ///
        /// Nobody may have exclusive access while the reference lives; the model checks it.
        pub unsafe fn get(&self) -> &T {
            // SAFETY: as the caller promises.
            unsafe { self.0.deref() }
        }
    }

    impl<T> Exclusive<T> {
        /// The contents.
        ///
        /// # Safety
        ///
        /// Nobody else may have access while the reference lives; the model checks it.
        pub unsafe fn get(&self) -> &T {
            // SAFETY: as the caller promises.
            unsafe { self.0.deref() }
        }

        /// The contents, to be changed.
        ///
        /// # Safety
        ///
        /// Nobody else may have access while the reference lives; the model checks it.
        #[allow(
            clippy::mut_from_ref,
            reason = "the access, not this value, is exclusive"
        )]
        pub unsafe fn get_mut(&self) -> &mut T {
            // SAFETY: as the caller promises.
            unsafe { self.0.deref() }
        }
    }
}

pub use core::sync::atomic::Ordering;
pub use words::*;

/// A constructor that is `const`, but for the model, whose words cannot be made so.
#[macro_export]
macro_rules! const_unless_model {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $ret:ty $body:block) => {
        #[cfg(not(model))]
        $(#[$meta])*
        $vis const fn $name($($arg: $type),*) -> $ret $body

        #[cfg(model)]
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) -> $ret $body
    };
}
pub use const_unless_model;
