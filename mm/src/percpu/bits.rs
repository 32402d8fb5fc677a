//! A fixed number of bits, searched a word at a time.

/// `64 * WORDS` bits, all clear at first.
#[derive(Debug, Clone)]
pub(super) struct Bits<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Bits<WORDS> {
    /// How many bits.
    pub(super) const LEN: usize = WORDS * 64;

    pub(super) const fn new() -> Self {
        Self([0; WORDS])
    }

    pub(super) fn get(&self, bit: usize) -> bool {
        self.0[bit / 64] & (1 << (bit % 64)) != 0
    }

    pub(super) fn set(&mut self, bit: usize, value: bool) {
        self.fill(bit, bit + 1, value);
    }

    /// Gives the bits from `start` up to `end` a value.
    pub(super) fn fill(&mut self, start: usize, end: usize, value: bool) {
        let mut at = start;
        while at < end {
            let (word, low) = (at / 64, at % 64);
            let count = (64 - low).min(end - at);
            let mask = (u64::MAX >> (64 - count)) << low;
            if value {
                self.0[word] |= mask;
            } else {
                self.0[word] &= !mask;
            }
            at += count;
        }
    }

    /// How many are set.
    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The first bit from `from` on that is set; else [`LEN`](Self::LEN).
    pub(super) fn next_set(&self, from: usize) -> usize {
        self.next(from, |word| word)
    }

    /// The first bit from `from` on that is clear; else [`LEN`](Self::LEN).
    pub(super) fn next_clear(&self, from: usize) -> usize {
        self.next(from, |word| !word)
    }

    fn next(&self, from: usize, wanted: impl Fn(u64) -> u64) -> usize {
        let mut keep = u64::MAX << (from % 64);
        for (index, word) in self.0.iter().enumerate().skip(from / 64) {
            let found = wanted(*word) & keep;
            if found != 0 {
                return index * 64 + found.trailing_zeros() as usize;
            }
            keep = u64::MAX;
        }
        Self::LEN
    }
}

#[cfg(test)]
mod tests {
    use super::Bits;

    #[test]
    fn fills_and_finds_across_words() {
        for start in 0..192 {
            for end in start..=192 {
                let mut bits = Bits::<3>::new();
                bits.fill(start, end, true);
                assert_eq!(bits.count(), end - start);
                assert_eq!(bits.next_set(0), if start == end { 192 } else { start });
                assert_eq!(bits.next_clear(start), end);
                assert!((0..192).all(|bit| bits.get(bit) == (start..end).contains(&bit)));
                bits.fill(0, 192, true);
                bits.fill(start, end, false);
                assert_eq!(bits.next_set(start), end);
                assert_eq!(bits.next_clear(0), if start == end { 192 } else { start });
            }
        }
    }
}
