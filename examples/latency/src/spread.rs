//! Numbers of any size, sorted into buckets: how many there are, and below which most of them lie.
//!
//! A bucket is an eighth of a power of two wide, so what is told of a number is at most an eighth too much, and there
//! are 496 buckets for all that 64 bits hold.

/// Parts of a power of two, as bits.
const PARTS: u32 = 3;

#[derive(Default)]
pub struct Spread {
    /// As many as are needed for the greatest number so far.
    buckets: Vec<u64>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Spread {
    pub fn add(&mut self, number: u64) {
        let bucket = bucket(number);
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.sum += u128::from(number);
        self.max = self.max.max(number);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn mean(&self) -> u64 {
        // No more than the greatest.
        (self.sum / u128::from(self.count.max(1))) as u64
    }

    pub fn max(&self) -> u64 {
        self.max
    }

    /// So many of a hundred are no greater: it is one of them, or at most an eighth more.
    pub fn below(&self, percent: u64) -> u64 {
        let wanted = (u128::from(self.count) * u128::from(percent)).div_ceil(100);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= wanted {
                return last_of(bucket).min(self.max);
            }
        }
        self.max
    }
}

/// Small numbers have one each; behind them, the highest bit and those that follow it tell.
fn bucket(number: u64) -> usize {
    let above = number.checked_ilog2().unwrap_or(0).saturating_sub(PARTS);
    ((u64::from(above) << PARTS) + (number >> above)) as usize
}

/// The greatest number in a bucket.
fn last_of(bucket: usize) -> u64 {
    let above = ((bucket as u64) >> PARTS).saturating_sub(1);
    let first = (bucket as u64 - (above << PARTS)) << above;
    first + ((1 << above) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_in_the_bucket_that_ends_behind_it() {
        let near = |n: u64| [n.saturating_sub(1), n, n.saturating_add(1)];
        let numbers = (0..64).flat_map(|bit| near(1 << bit)).chain(0..5000).chain(near(u64::MAX));
        for number in numbers {
            let (bucket, last) = (bucket(number), last_of(bucket(number)));
            assert!(bucket < 496, "{number}: {bucket}");
            assert!(last >= number && last - number <= number / 8, "{number}: {last}");
            assert_eq!(super::bucket(last), bucket, "{number}");
            assert!(last == u64::MAX || super::bucket(last + 1) == bucket + 1, "{number}");
        }
    }

    #[test]
    fn most_lie_below() {
        let mut spread = Spread::default();
        (1..=1000).for_each(|n| spread.add(n * 1000));
        assert_eq!((spread.count(), spread.mean(), spread.max()), (1000, 500_500, 1_000_000));
        for (percent, exact) in [(1, 10_000), (50, 500_000), (90, 900_000), (99, 990_000), (100, 1_000_000)] {
            let told = spread.below(percent);
            assert!((exact..=exact + exact / 8).contains(&told), "{percent}: {told}");
        }
        assert_eq!(Spread::default().below(50), 0);
    }
}
