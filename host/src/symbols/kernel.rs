//! Names of the kernel's addresses, from /proc/kallsyms.

use std::ops::Range;
use std::sync::OnceLock;

use super::with_offset;

/// Bytes behind a symbol at most that are taken to be its own: no function is as long, and few variables are. The list
/// does not say where what it names ends.
const LONGEST: u64 = 1 << 20;
/// The kernel's half of all addresses.
const LOWEST: u64 = 1 << 63;
/// Where the kernel itself ends, and nothing more is its own.
const END: &str = "_end";

/// There is one kernel, and its list is read when the first name is wanted: some 200,000 lines.
static SYMBOLS: OnceLock<Symbols> = OnceLock::new();

/// The name of what lies there.
pub fn name(address: u64) -> String {
    read().name(address)
}

/// Whether the list has been read.
pub fn is_read() -> bool {
    SYMBOLS.get().is_some()
}

/// Reads the list, unless it has been.
pub fn read() -> &'static Symbols {
    SYMBOLS.get_or_init(|| Symbols::new(std::fs::read("/proc/kallsyms").unwrap_or_default()))
}

/// The kernel's symbols.
pub struct Symbols {
    /// Names of symbols are not always UTF-8.
    text: Vec<u8>,
    /// Addresses, and where in the text the name stands, with its module behind it. Sorted; the first of several names
    /// of one address.
    sorted: Vec<(u64, Range<u32>)>,
}

impl Symbols {
    fn new(text: Vec<u8>) -> Symbols {
        let (mut sorted, mut start) = (Vec::new(), 0);
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            // `ffffffff814b9be0 T name`, and behind it perhaps `\t[module]`.
            let mut words = line.trim_ascii_end().splitn(3, |byte| *byte == b' ');
            if let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next()) {
                let address = std::str::from_utf8(address).ok().and_then(|word| u64::from_str_radix(word, 16).ok());
                let end = start + line.trim_ascii_end().len();
                // Where addresses are hidden, all are 0. What each CPU has of its own is told by small numbers, at
                // which nothing lies.
                if let (Some(address @ LOWEST..), Ok(end)) = (address, u32::try_from(end)) {
                    sorted.push((address, end - name.len() as u32..end));
                }
            }
            start += line.len();
        }
        sorted.sort_by_key(|(address, _)| *address);
        sorted.dedup_by_key(|(address, _)| *address);
        Symbols { text, sorted }
    }

    fn name(&self, address: u64) -> String {
        self.found(address).unwrap_or_else(|| format!("{address:#x}"))
    }

    fn found(&self, address: u64) -> Option<String> {
        let behind = self.sorted.partition_point(|(symbol, _)| *symbol <= address);
        let (symbol, name) = self.sorted.get(behind.checked_sub(1)?)?;
        let name = String::from_utf8_lossy(&self.text[name.start as usize..name.end as usize]);
        let offset = address - symbol;
        if offset >= LONGEST || name == END {
            return None;
        }
        let (name, module) = name.split_once('\t').map_or((&*name, None), |(name, module)| (name, Some(module)));
        let shown = with_offset(name, offset);
        Some(module.map_or(shown.clone(), |module| format!("{shown} {module}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_addresses() {
        let text = "0000000000000000 A fixed\n0000000000001000 A cpu_debug_store\nffffffff81000100 T vfs_read\nffffffff81000100 T alias\nffffffff81000000 T _text\n\
            ffffffff81000200 d caf\u{e9}\nffffffff81000300 B _end\nffffffffc0000000 t ext4_x\t[ext4]\nbroken\n";
        let symbols = Symbols::new(text.as_bytes().to_vec());
        for (address, name) in [
            (0xffff_ffff_8100_0100, "vfs_read"),
            (0xffff_ffff_8100_0112, "vfs_read+0x12"),
            (0xffff_ffff_8100_0000, "_text"),
            (0xffff_ffff_8100_02ff, "caf\u{e9}+0xff"),
            (0xffff_ffff_8100_0300, "0xffffffff81000300"),
            (0xffff_ffff_8100_0400, "0xffffffff81000400"),
            (0xffff_ffff_c000_0007, "ext4_x+0x7 [ext4]"),
            (0xffff_ffff_c010_0000, "0xffffffffc0100000"),
            (0xffff_ffff_80ff_ffff, "0xffffffff80ffffff"),
            (0, "0x0"),
            (0x1000, "0x1000"),
        ] {
            assert_eq!(symbols.name(address), name);
        }
    }

    #[test]
    fn hidden_addresses_are_none() {
        let symbols = Symbols::new(b"0000000000000000 T vfs_read\n".to_vec());
        assert_eq!(symbols.name(0xffff_ffff_8100_0100), "0xffffffff81000100");
        assert_eq!(symbols.name(0), "0x0");
        assert_eq!(Symbols::new(Vec::new()).name(7), "0x7");
    }
}
