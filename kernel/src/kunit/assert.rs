//! Assertions: they print both values and the place, and end the case.

use alloc::format;
use alloc::string::String;
use core::fmt;

use super::{Stop, output};

/// Ends the case as failed unless the condition holds. A message with arguments
/// may follow, as for `format!`.
macro_rules! kassert {
    ($condition:expr $(, $($message:tt)+)?) => {
        if !$condition {
            return Err($crate::kunit::fail(
                $crate::kunit::kassert!(@place),
                format_args!("{} is false", stringify!($condition)),
                $crate::kunit::kassert!(@message $($($message)+)?),
            ));
        }
    };
    (@place) => { (file!(), line!()) };
    (@message) => { None };
    (@message $($message:tt)+) => { Some(format_args!($($message)+)) };
}

/// Ends the case as failed unless the two values are equal.
macro_rules! kassert_eq {
    ($left:expr, $right:expr $(, $($message:tt)+)?) => {
        match (&$left, &$right) {
            (left, right) => {
                if !(*left == *right) {
                    return Err($crate::kunit::differ(
                        $crate::kunit::kassert!(@place),
                        (stringify!($left), left),
                        (stringify!($right), right),
                        $crate::kunit::kassert!(@message $($($message)+)?),
                    ));
                }
            }
        }
    };
}

/// Ends the case as failed if the two values are equal.
macro_rules! kassert_ne {
    ($left:expr, $right:expr $(, $($message:tt)+)?) => {
        match (&$left, &$right) {
            (left, right) => {
                if *left == *right {
                    return Err($crate::kunit::same(
                        $crate::kunit::kassert!(@place),
                        (stringify!($left), stringify!($right)),
                        left,
                        $crate::kunit::kassert!(@message $($($message)+)?),
                    ));
                }
            }
        }
    };
}

/// The value in an `Ok` or `Some`; anything else ends the case as failed.
macro_rules! kassert_ok {
    ($value:expr $(, $($message:tt)+)?) => {
        match $crate::kunit::Good::good($value) {
            Ok(value) => value,
            Err(other) => {
                return Err($crate::kunit::fail(
                    $crate::kunit::kassert!(@place),
                    format_args!("{} == {other:?}", stringify!($value)),
                    $crate::kunit::kassert!(@message $($($message)+)?),
                ));
            }
        }
    };
}

/// Ends the case as failed, with a message.
macro_rules! kfail {
    ($($message:tt)+) => {
        return Err($crate::kunit::fail(
            $crate::kunit::kassert!(@place),
            format_args!($($message)+),
            None,
        ))
    };
}

/// Ends the case as skipped, for the reason given.
macro_rules! kskip {
    ($($reason:tt)+) => {
        return Err($crate::kunit::skip(format_args!($($reason)+)))
    };
}

/// Prints a line of diagnostics.
macro_rules! knote {
    ($($message:tt)+) => {
        $crate::kunit::note(format_args!($($message)+))
    };
}

pub(crate) use {kassert, kassert_eq, kassert_ne, kassert_ok, kfail, knote, kskip};

/// What [`kassert_ok!`] takes.
pub trait Good {
    /// What is inside if all is well.
    type Value;
    /// What is there otherwise.
    type Other: fmt::Debug;

    /// Tells the two apart.
    fn good(self) -> Result<Self::Value, Self::Other>;
}

impl<T, E: fmt::Debug> Good for Result<T, E> {
    type Value = T;
    type Other = E;

    fn good(self) -> Result<T, E> {
        self
    }
}

impl<T> Good for Option<T> {
    type Value = T;
    type Other = Option<()>;

    fn good(self) -> Result<T, Option<()>> {
        self.ok_or(None)
    }
}

/// File and line of an assertion.
pub type Place = (&'static str, u32);

/// Prints the failure of a condition.
#[cold]
pub fn fail(place: Place, what: fmt::Arguments<'_>, message: Option<fmt::Arguments<'_>>) -> Stop {
    head(place);
    output::diagnostic(format_args!("  {what}"));
    tail(message)
}

/// Prints two values that should be equal.
#[cold]
pub fn differ(
    place: Place,
    left: (&str, &dyn fmt::Debug),
    right: (&str, &dyn fmt::Debug),
    message: Option<fmt::Arguments<'_>>,
) -> Stop {
    head(place);
    output::diagnostic(format_args!("  {} == {}", left.0, shown(left.1)));
    output::diagnostic(format_args!("  {} == {}", right.0, shown(right.1)));
    tail(message)
}

/// Prints the one value of two expressions that should not be equal.
#[cold]
pub fn same(
    place: Place,
    (left, right): (&str, &str),
    value: &dyn fmt::Debug,
    message: Option<fmt::Arguments<'_>>,
) -> Stop {
    head(place);
    output::diagnostic(format_args!("  {left} == {}", shown(value)));
    output::diagnostic(format_args!("  {right} is the same, but should not be"));
    tail(message)
}

/// Prints a line of diagnostics.
pub fn note(text: fmt::Arguments<'_>) {
    let name = output::current();
    output::diagnostic(format_args!("{name}: {text}"));
}

/// Makes the reason of a skipped case.
pub fn skip(reason: fmt::Arguments<'_>) -> Stop {
    Stop::Skipped(format!("{reason}"))
}

/// A value as text; a large number in hexadecimal as well, since it may be an address.
fn shown(value: &dyn fmt::Debug) -> String {
    let text = format!("{value:?}");
    if text.len() > 4 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return format!("{text} ({value:#x?})");
    }
    text
}

fn head((file, line): Place) {
    let name = output::current();
    output::diagnostic(format_args!("{name}: EXPECTATION FAILED at {file}:{line}"));
}

fn tail(message: Option<fmt::Arguments<'_>>) -> Stop {
    if let Some(message) = message {
        output::diagnostic(format_args!("  {message}"));
    }
    Stop::Failed
}
