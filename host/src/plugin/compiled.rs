//! Which compiled component is which, among what [`crate::cache`] keeps.

use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};
use wasmtime::Engine;

use crate::cache::Key;

/// The entry of what `engine` makes of these bytes.
pub fn key(engine: &Engine, component: &[u8]) -> Key {
    Key::of(|digest| {
        engine.precompile_compatibility_hash().hash(&mut DigestHasher(digest));
        digest.update([0]);
        digest.update(component);
    })
}

/// Lets a digest be fed by what is [`Hash`].
struct DigestHasher<'a>(&'a mut Sha256);

impl Hasher for DigestHasher<'_> {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        // Nobody asks: the digest itself is the result.
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_depend_on_component_and_engine() {
        let engine = Engine::default();
        assert_eq!(key(&engine, b"a"), key(&engine, b"a"));
        assert_ne!(key(&engine, b"a"), key(&engine, b"b"));
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        assert_ne!(key(&engine, b"a"), key(&Engine::new(&config).unwrap(), b"a"));
    }
}
