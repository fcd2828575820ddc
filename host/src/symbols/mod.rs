//! Names of addresses: of the kernel's, and of processes'.
//!
//! Nothing is looked up before a name is shown. The kernel's list is read once, for all plugins ([`kernel`]); what
//! processes have mapped is read anew for each batch, as far as it is asked for, and the symbols of the files are kept
//! ([`process`]). Where a name cannot be had, the address stands for itself.
//!
//! A process decides what its functions are called, and may call them anything of up to 4 KiB. So the names of a batch
//! are bounded together, those for the plugin and those for its rows: beyond that, too, an address stands for itself.
//! And a stack that is shown has a bound of its own: it says how many frames are left out.

mod kernel;
mod process;
mod reading;

use std::time::Duration;

use crate::plugin::{Frames, Row, Value};
use process::Processes;

/// Bytes of names that are found in a batch at most. A batch that is nothing but stacks has some 130,000 frames.
const NAMES: usize = 16 << 20;
/// Bytes of a stack's names that are shown at most: 127 frames of 500 bytes.
const STACK: usize = 64 << 10;

/// Finds names. What it finds of processes it keeps.
pub struct Symbols {
    processes: Processes,
    /// Bytes of names that may still be found in this batch.
    left: usize,
}

impl Default for Symbols {
    fn default() -> Symbols {
        Symbols { processes: Processes::default(), left: NAMES }
    }
}

impl Symbols {
    /// Begins a batch: as much may be found as in any other, and what was known of processes may not be so any more.
    pub fn begin(&mut self) {
        self.processes.forget();
        self.left = NAMES;
    }

    /// Puts names in the place of a row's addresses.
    pub fn name(&mut self, row: &mut Row) {
        for (_, value) in &mut row.columns {
            match value {
                Value::KernelSymbol(_) | Value::UserSymbol(..) => *value = Value::Text(self.names(value).concat()),
                Value::KernelStack(frames) | Value::UserStack(_, frames) => {
                    let (count, cut) = (frames.addresses.len(), frames.cut);
                    *value = Value::Names(stack(self.found(value), count, cut));
                }
                _ => {}
            }
        }
    }

    /// One name for an address, one for each frame of a stack, none for any other value.
    pub fn names(&mut self, value: &Value) -> Vec<String> {
        self.found(value).collect()
    }

    /// The time that reading has taken in this batch.
    pub fn reading(&mut self) -> Duration {
        self.processes.reading().spent()
    }

    /// How many names it has.
    pub fn count(value: &Value) -> usize {
        match value {
            Value::KernelSymbol(_) | Value::UserSymbol(..) => 1,
            Value::KernelStack(frames) | Value::UserStack(_, frames) => frames.addresses.len(),
            _ => 0,
        }
    }

    /// The names, each of which is looked for when it is taken.
    fn found<'a>(&'a mut self, value: &'a Value) -> impl Iterator<Item = String> + 'a {
        let (process, addresses) = match value {
            Value::KernelSymbol(address) => (None, std::slice::from_ref(address)),
            Value::KernelStack(Frames { addresses, .. }) => (None, &addresses[..]),
            Value::UserSymbol(process, address) => (Some(*process), std::slice::from_ref(address)),
            Value::UserStack(process, Frames { addresses, .. }) => (Some(*process), &addresses[..]),
            _ => (None, &[][..]),
        };
        addresses.iter().map(move |address| self.found_at(process, *address))
    }

    fn found_at(&mut self, process: Option<u32>, address: u64) -> String {
        let itself = || format!("{address:#x}");
        if self.left == 0 {
            return itself();
        }
        let name = match process {
            None => {
                if !kernel::is_read() {
                    self.processes.reading().read_anyway(kernel::read);
                }
                kernel::name(address)
            }
            Some(process) => self.processes.name(process, address),
        };
        let left = self.left.checked_sub(name.len());
        self.left = left.unwrap_or(0);
        if left.is_some() { name } else { itself() }
    }
}

/// The names of a stack of `count` frames as they are shown, and behind them what has been left out: here, because they
/// are too long together, or when the stack was collected.
fn stack(names: impl Iterator<Item = String>, count: usize, cut: bool) -> Vec<String> {
    let mut length = 0;
    let mut shown: Vec<String> = names
        .take_while(|name| {
            length += name.len();
            length <= STACK
        })
        .collect();
    let left_out = count - shown.len();
    shown.extend(match (left_out, cut) {
        (0, false) => None,
        (0, true) => Some("…".to_owned()),
        (1, false) => Some("… 1 frame".to_owned()),
        (_, false) => Some(format!("… {left_out} frames")),
        (1, true) => Some("… 1 frame and more".to_owned()),
        (_, true) => Some(format!("… {left_out} frames and more")),
    });
    shown
}

/// `name+0x12`, or the name alone where the address is its own.
fn with_offset(name: &str, offset: u64) -> String {
    if offset == 0 { name.to_owned() } else { format!("{name}+{offset:#x}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_that_are_too_long_say_what_is_left_out() {
        let shown = |length: usize, count: usize, cut| {
            let mut shown = stack((0..count).map(|_| "f".repeat(length)), count, cut);
            let last = shown.pop_if(|last| last.starts_with('…')).unwrap_or_default();
            assert!(shown.iter().all(|name| name.len() == length) && shown.concat().len() <= STACK);
            (shown.len(), last)
        };
        let names = |count: usize, last: &str| (count, last.to_owned());
        assert_eq!(shown(100, 127, false), names(127, ""));
        assert_eq!(shown(100, 127, true), names(127, "…"));
        assert_eq!(shown(4096, 16, false), names(16, ""));
        assert_eq!(shown(4096, 17, false), names(16, "… 1 frame"));
        assert_eq!(shown(4096, 17, true), names(16, "… 1 frame and more"));
        assert_eq!(shown(4096, 127, false), names(16, "… 111 frames"));
        assert_eq!(shown(4096, 127, true), names(16, "… 111 frames and more"));
    }

    #[test]
    fn names_of_a_batch_are_bounded() {
        let mut symbols = Symbols::default();
        let stack = || Value::UserStack(u32::MAX, Frames { addresses: vec![0x1000; 3], cut: false });
        let rows = |symbols: &mut Symbols| {
            let columns = vec![("a".to_owned(), stack()), ("b".to_owned(), Value::KernelSymbol(0x2000))];
            let mut row = Row { name: "r".into(), time: None, columns };
            symbols.name(&mut row);
            row.columns.into_iter().map(|(_, value)| value).collect::<Vec<_>>()
        };
        let whole = rows(&mut symbols);
        assert_eq!(whole, [Value::Names(vec!["0x1000".into(); 3]), Value::Text("0x2000".into())]);
        assert_eq!(symbols.left, NAMES - 4 * "0x1000".len());
        // For the plugin and for its rows there is one measure.
        assert_eq!(symbols.names(&stack()), ["0x1000"; 3]);
        assert_eq!(symbols.left, NAMES - 7 * "0x1000".len());
        symbols.begin();
        assert_eq!(symbols.left, NAMES);
    }

    #[test]
    fn root_addresses_stand_for_themselves_where_too_much_is_named() {
        let mut symbols = Symbols::default();
        let (own, of) = (names_of_a_batch_are_bounded as fn() as *const () as u64, std::process::id());
        let value = Value::UserStack(of, Frames { addresses: vec![own; 3], cut: false });
        let names = symbols.names(&value);
        assert!(names[0].starts_with("porthole::symbols::tests::names_of_a_batch_are_bounded ["), "{names:?}");
        let address = format!("{own:#x}");
        symbols.left = 2 * names[0].len() + 1;
        assert_eq!(symbols.names(&value), [names[0].clone(), names[0].clone(), address.clone()]);
        assert_eq!(symbols.names(&value), vec![address; 3]);
        symbols.begin();
        assert_eq!(symbols.names(&value), names);
    }
}
