//! The lock order, checked when the program is compiled.

use super::Class;

/// Evidence that a lock is held, by which an inner lock's place is checked: a guard.
pub trait Held {
    /// The held lock's class.
    type Class: Class;
}

/// Compiles only if a lock of class `Inner` may be taken while one of class `Outer` is held.
///
/// ```
/// platform::lock_class! {
///     struct Tree = ("tree", 10);
///     struct Leaf = ("leaf", 20);
/// }
/// platform::lock::assert_above::<Leaf, Tree>();
/// ```
///
/// ```compile_fail,E0080
/// platform::lock_class! {
///     struct Tree = ("tree", 10);
///     struct Leaf = ("leaf", 20);
/// }
/// platform::lock::assert_above::<Tree, Leaf>();
/// ```
#[inline(always)]
pub const fn assert_above<Inner: Class, Outer: Class>() {
    const {
        assert!(
            Inner::LEVEL > Outer::LEVEL,
            "lock order: the inner lock's level must be above the outer's"
        );
    }
}
