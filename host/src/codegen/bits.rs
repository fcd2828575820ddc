//! Sets of small numbers, as bits.
//!
//! A function has some hundred registers, most of them alive together with few others: a set of them is a few words,
//! and what is asked of all of it is asked of 64 at once. A set for each register is needed for each function anew, so
//! all of them are one allocation, which crates for single sets of bits do not offer.
//!
//! Invariant: all sets that are combined have the same bound.

/// Sets of numbers below a common bound, all in one piece.
pub struct Rows {
    words: usize,
    bits: Vec<u64>,
}

impl Rows {
    /// So many empty sets of numbers below `bound`.
    pub fn new(rows: usize, bound: usize) -> Rows {
        let words = bound.div_ceil(64);
        Rows { words, bits: vec![0; rows * words] }
    }

    pub fn row(&self, row: usize) -> &[u64] {
        &self.bits[row * self.words..][..self.words]
    }

    pub fn row_mut(&mut self, row: usize) -> &mut [u64] {
        &mut self.bits[row * self.words..][..self.words]
    }

    /// Adds the one set to the other.
    pub fn add(&mut self, to: usize, from: usize) {
        for word in 0..self.words {
            self.bits[to * self.words + word] |= self.bits[from * self.words + word];
        }
    }

    /// Puts `a` into the set of `b` wherever `b` is in the set of `a`, and no number into its own.
    pub fn mirror(&mut self) {
        let rows = self.bits.len().checked_div(self.words).unwrap_or(0);
        for row in 0..rows {
            remove(self.row_mut(row), row as u32);
            for word in 0..self.words {
                for bit in members(&[self.bits[row * self.words + word]]) {
                    insert(self.row_mut(word * 64 + bit as usize), row as u32);
                }
            }
        }
    }
}

pub fn contains(set: &[u64], n: u32) -> bool {
    set[n as usize / 64] & (1 << (n % 64)) != 0
}

pub fn insert(set: &mut [u64], n: u32) {
    set[n as usize / 64] |= 1 << (n % 64);
}

pub fn remove(set: &mut [u64], n: u32) {
    set[n as usize / 64] &= !(1 << (n % 64));
}

/// Adds all of `more` to the set.
pub fn add(set: &mut [u64], more: &[u64]) {
    set.iter_mut().zip(more).for_each(|(word, more)| *word |= more);
}

/// Adds all of `more` but this one.
pub fn add_but(set: &mut [u64], more: &[u64], but: Option<u32>) {
    let absent = but.filter(|n| !contains(set, *n));
    add(set, more);
    if let Some(n) = absent {
        remove(set, n);
    }
}

/// How many are in both.
pub fn count_common(a: &[u64], b: &[u64]) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a & b).count_ones()).sum()
}

/// How many there are.
pub fn count(set: &[u64]) -> u32 {
    set.iter().map(|word| word.count_ones()).sum()
}

/// All of them, in ascending order.
pub fn members(set: &[u64]) -> Members<'_> {
    Members { words: set, word: 0, left: set.first().copied().unwrap_or(0) }
}

/// The members of a set, in ascending order.
pub struct Members<'a> {
    words: &'a [u64],
    word: usize,
    /// What has not been told of the word.
    left: u64,
}

impl Iterator for Members<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        while self.left == 0 {
            self.word += 1;
            self.left = *self.words.get(self.word)?;
        }
        let bit = self.left.trailing_zeros();
        self.left &= self.left - 1;
        Some(self.word as u32 * 64 + bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_in_order() {
        let mut rows = Rows::new(2, 200);
        for n in [199, 0, 63, 64, 128, 64] {
            insert(rows.row_mut(1), n);
        }
        remove(rows.row_mut(1), 63);
        assert_eq!(members(rows.row(1)).collect::<Vec<_>>(), [0, 64, 128, 199]);
        assert_eq!((members(rows.row(0)).next(), members(&[]).next()), (None, None));
        assert!(contains(rows.row(1), 128) && !contains(rows.row(1), 63));
        rows.add(0, 1);
        assert_eq!((count(rows.row(0)), count_common(rows.row(0), &[1, 0, 1])), (4, 2));
    }

    #[test]
    fn one_is_left_out_unless_it_is_there() {
        let mut set = [0b0001];
        add_but(&mut set, &[0b0111], Some(1));
        assert_eq!(set, [0b0101]);
        add_but(&mut set, &[0b1110], Some(2));
        assert_eq!(set, [0b1111]);
        add_but(&mut set, &[0b10000], None);
        assert_eq!(set, [0b11111]);
    }

    #[test]
    fn a_mirror_is_the_same_from_both_sides() {
        let mut rows = Rows::new(70, 70);
        for (a, b) in [(0, 69), (69, 3), (5, 5), (3, 69)] {
            insert(rows.row_mut(a), b);
        }
        rows.mirror();
        let pairs: Vec<_> = (0..70).flat_map(|a| members(rows.row(a)).map(move |b| (a, b))).collect();
        assert_eq!(pairs, [(0, 69), (3, 69), (69, 0), (69, 3)]);
        Rows::new(0, 0).mirror();
    }
}
