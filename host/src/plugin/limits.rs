//! How much a plugin may use.

use std::time::Duration;

use wasmtime::ResourceLimiter;

/// Entries of all of a plugin's tables together at most; each takes a pointer. Tables hold functions, and Python's have
/// some 20,000.
const TABLE_ELEMENTS: usize = 1 << 20;

/// What a plugin may use. The defaults are the ones that wit/guest.wit and wit/host.wit promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all its linear memories together.
    pub memory: usize,
    /// Time of one call of a handler: while its Wasm runs, and while it waits in a host function.
    pub handler: Duration,
    /// Bytes of rows, records and log lines that one call of a handler may send.
    pub output: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory: 64 << 20, handler: Duration::from_secs(1), output: 8 << 20 }
    }
}

/// Counts a plugin's memory. Refuses what is beyond the limit, and remembers that it did: a guest whose allocation
/// fails usually answers with a trap that does not say why.
#[derive(Debug)]
pub struct Memory {
    limit: usize,
    used: usize,
    elements: usize,
    exceeded: bool,
}

impl Memory {
    /// Of `limit` bytes.
    pub fn new(limit: usize) -> Memory {
        Memory { limit, used: 0, elements: 0, exceeded: false }
    }

    /// Whether more was asked for than the plugin may have since this was last called.
    pub fn take_exceeded(&mut self) -> bool {
        std::mem::take(&mut self.exceeded)
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // Beyond its own maximum a memory fails to grow without our doing.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(grow(&mut self.used, self.limit, current, desired, &mut self.exceeded))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(grow(&mut self.elements, TABLE_ELEMENTS, current, desired, &mut self.exceeded))
    }

    fn instances(&self) -> usize {
        256
    }

    fn tables(&self) -> usize {
        256
    }

    fn memories(&self) -> usize {
        64
    }
}

/// Adds the growth to `used` if it stays within the limit.
fn grow(used: &mut usize, limit: usize, current: usize, desired: usize, exceeded: &mut bool) -> bool {
    match used.checked_add(desired.saturating_sub(current)) {
        Some(sum) if sum <= limit => {
            *used = sum;
            true
        }
        _ => {
            *exceeded = true;
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_share_one_limit() {
        let mut memory = Memory::new(100);
        assert!(memory.memory_growing(0, 60, None).unwrap());
        assert!(memory.memory_growing(0, 40, None).unwrap());
        assert!(!memory.take_exceeded());
        assert!(!memory.memory_growing(60, 61, None).unwrap());
        assert!(memory.take_exceeded());
        assert!(!memory.take_exceeded());
    }

    #[test]
    fn a_memory_at_its_own_maximum_is_not_out_of_memory() {
        let mut memory = Memory::new(100);
        assert!(!memory.memory_growing(0, 60, Some(50)).unwrap());
        assert!(!memory.take_exceeded());
    }
}
