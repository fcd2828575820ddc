//! Names of addresses: of the kernel's, and of processes'.
//!
//! Nothing is looked up before a name is shown. The kernel's list is read once, for all plugins ([`kernel`]); what processes have mapped is read anew for each batch, as far as it is
//! asked for, and the symbols of the files are kept ([`process`]). Where a name cannot be had, the address stands for itself.

mod kernel;
mod process;

use crate::plugin::{Frames, Row, Value};
use process::Processes;

/// Finds names. What it finds of processes it keeps.
#[derive(Default)]
pub struct Symbols {
    processes: Processes,
}

impl Symbols {
    /// Puts names in the place of a row's addresses.
    pub fn name(&mut self, row: &mut Row) {
        for (_, value) in &mut row.columns {
            match value {
                Value::KernelSymbol(_) | Value::UserSymbol(..) => *value = Value::Text(self.names(value).concat()),
                Value::KernelStack(frames) | Value::UserStack(_, frames) => {
                    let cut = frames.cut;
                    let mut names = self.names(value);
                    names.extend(cut.then(|| "…".to_owned()));
                    *value = Value::Names(names);
                }
                _ => {}
            }
        }
    }

    /// One name for an address, one for each frame of a stack, none for any other value.
    pub fn names(&mut self, value: &Value) -> Vec<String> {
        match value {
            Value::KernelSymbol(address) => vec![kernel::name(*address)],
            Value::KernelStack(Frames { addresses, .. }) => addresses.iter().map(|a| kernel::name(*a)).collect(),
            Value::UserSymbol(process, address) => vec![self.processes.name(*process, *address)],
            Value::UserStack(process, Frames { addresses, .. }) => {
                addresses.iter().map(|address| self.processes.name(*process, *address)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What is known of processes may not be so any more.
    pub fn forget_processes(&mut self) {
        self.processes.forget();
    }
}

/// `name+0x12`, or the name alone where the address is its own.
fn with_offset(name: &str, offset: u64) -> String {
    if offset == 0 { name.to_owned() } else { format!("{name}+{offset:#x}") }
}
