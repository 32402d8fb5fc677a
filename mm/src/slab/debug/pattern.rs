//! The byte values that debug caches fill memory with, all as on Linux, and the comparison.

use core::{
    ptr::NonNull,
    sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
};

/// The red zones of an object that is not allocated.
pub const RED_INACTIVE: u8 = 0xbb;
/// The red zones of an object that is.
pub const RED_ACTIVE: u8 = 0xcc;
/// What a free object is filled with.
pub const POISON_FREE: u8 = 0x6b;
/// Its last byte.
pub const POISON_END: u8 = 0xa5;
/// Bytes of a slab that nobody uses.
pub const PADDING: u8 = 0x5a;

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The first one, from the beginning of what was compared.
    pub first: usize,
    /// The last one.
    pub last: usize,
    /// How many.
    pub count: usize,
    /// What the first one is.
    pub found: u8,
}

/// A pattern: a byte, again and again, and another one at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// All but the last.
    pub byte: u8,
    /// The last one.
    pub end: u8,
}

impl Pattern {
    /// All bytes the same.
    pub const fn of(byte: u8) -> Self {
        Self { byte, end: byte }
    }

    /// The byte at `index` of `len`.
    pub const fn at(self, index: usize, len: usize) -> u8 {
        if index + 1 == len {
            self.end
        } else {
            self.byte
        }
    }

    /// Fills `len` bytes.
    ///
    /// # Safety
    ///
    /// They are the caller's to write.
    pub(crate) unsafe fn fill(self, start: NonNull<u8>, len: usize) {
        if let Some(last) = len.checked_sub(1) {
            // SAFETY: as the caller promises.
            unsafe {
                start.write_bytes(self.byte, last);
                start.add(last).write(self.end);
            }
        }
    }

    /// Looks for wrong bytes among the `len` from `start`.
    ///
    /// # Safety
    ///
    /// They can be read. They may be written meanwhile by those who should not: that is what
    /// this is for.
    pub(crate) unsafe fn compare(self, start: NonNull<u8>, len: usize) -> Option<Wrong> {
        let last = len.checked_sub(1)?;
        // SAFETY: as the caller promises.
        let body = unsafe { compare(start, last, self.byte) };
        // SAFETY: as above.
        let end = unsafe { compare(start.add(last), 1, self.end) };
        let Some(end) = end else { return body };
        let mut wrong = body.unwrap_or(Wrong {
            first: last,
            last,
            count: 0,
            found: end.found,
        });
        wrong.last = last;
        wrong.count += 1;
        Some(wrong)
    }
}

/// Looks for bytes other than `byte`.
///
/// # Safety
///
/// As for [`Pattern::compare`].
unsafe fn compare(start: NonNull<u8>, len: usize, byte: u8) -> Option<Wrong> {
    let at = |index: usize| {
        // SAFETY: one of the bytes. Atomic, for whoever writes there writes whenever it
        // likes. Relaxed: a byte stands for nothing but itself.
        unsafe { AtomicU8::from_ptr(start.as_ptr().add(index)) }.load(Relaxed)
    };
    // Up to a word's boundary byte by byte, then by words, as long as all is well.
    let head = start.align_offset(8).min(len);
    let mut good = (0..head).take_while(|index| at(*index) == byte).count();
    if good == head {
        let word = u64::from_ne_bytes([byte; 8]);
        while good + 8 <= len {
            // SAFETY: eight of the bytes, at a multiple of 8.
            let found = unsafe { AtomicU64::from_ptr(start.as_ptr().add(good).cast()) };
            if found.load(Relaxed) != word {
                break;
            }
            good += 8;
        }
    }
    let mut wrong: Option<Wrong> = None;
    for index in good..len {
        let found = at(index);
        if found != byte {
            let wrong = wrong.get_or_insert(Wrong {
                first: index,
                last: index,
                count: 0,
                found,
            });
            wrong.last = index;
            wrong.count += 1;
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{vec, vec::Vec};

    use super::*;

    fn compare_slice(bytes: &mut [u8]) -> Option<Wrong> {
        let start = NonNull::new(bytes.as_mut_ptr()).unwrap();
        // SAFETY: the slice's.
        unsafe { Pattern::of(PADDING).compare(start, bytes.len()) }
    }

    #[test]
    fn each_single_wrong_byte_is_found() {
        for from in 0..9 {
            for len in 0..40 {
                let mut memory: Vec<u8> = vec![0; 64];
                memory[from..from + len].fill(PADDING);
                assert_eq!(compare_slice(&mut memory[from..from + len]), None);
                for index in 0..len {
                    memory[from + index] = 7;
                    let wrong = Wrong {
                        first: index,
                        last: index,
                        count: 1,
                        found: 7,
                    };
                    assert_eq!(compare_slice(&mut memory[from..from + len]), Some(wrong));
                    memory[from + index] = PADDING;
                }
            }
        }
    }

    #[test]
    fn the_first_the_last_and_the_number_are_told() {
        let mut memory = vec![PADDING; 50];
        for index in [3, 17, 44] {
            memory[index] = index as u8;
        }
        let wrong = compare_slice(&mut memory).unwrap();
        assert_eq!(
            (wrong.first, wrong.last, wrong.count, wrong.found),
            (3, 44, 3, 3)
        );
    }
    #[test]
    fn the_last_byte_may_be_another_one() {
        let poison = Pattern {
            byte: POISON_FREE,
            end: POISON_END,
        };
        for len in 0..30 {
            let mut memory = vec![0; len];
            let start = NonNull::new(memory.as_mut_ptr()).unwrap();
            // SAFETY: the vector's bytes.
            unsafe {
                poison.fill(start, len);
                assert_eq!(poison.compare(start, len), None);
            }
            assert_eq!(memory.last().copied(), (len > 0).then_some(POISON_END));
            memory.fill(0);
            // SAFETY: as above.
            let wrong = unsafe { poison.compare(start, len) };
            assert_eq!(wrong.map_or(0, |wrong| wrong.count), len);
            let body: Vec<u8> = (0..len).map(|index| poison.at(index, len)).collect();
            memory.copy_from_slice(&body);
            // SAFETY: as above.
            assert_eq!(unsafe { poison.compare(start, len) }, None);
        }
    }
}
