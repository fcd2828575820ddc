//! Functions and maps to an object file that libbpf opens.
//!
//! An object file is a relocatable ELF: each function in the section that says what kind of program it is, subprograms
//! in `.text`, maps as variables of `.maps`, and relocations where instructions refer to either. `.BTF` gives the
//! types, `.BTF.ext` tells which function and which line of source each instruction belongs to; the lines are the
//! instructions' [`Reason`]s, and the verifier's log quotes them. The form is that of `clang -target bpf -g`, as
//! libbpf's `libbpf.c` and the kernel's Documentation/bpf/btf.rst describe it.
//!
//! Nothing here knows of probes. The same object gives the same bytes.

mod btf;
mod check;
mod elf;
mod ext;
mod layout;
mod types;

use std::borrow::Cow;

use crate::bpf::{Code, Kfunc, Names, Reason, disassemble_named};

pub use check::WriteError;

/// What becomes one object file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// License of the programs, such as `GPL`; helpers and kfuncs that are GPL-only ask for one compatible with it.
    pub license: String,
    /// What [`FunctionIndex`](crate::bpf::FunctionIndex) counts.
    pub functions: Vec<Function>,
    /// What [`MapIndex`](crate::bpf::MapIndex) counts.
    pub maps: Vec<MapDef>,
    /// What [`KfuncIndex`](crate::bpf::KfuncIndex) counts.
    pub kfuncs: Vec<Kfunc>,
    /// What nothing can change, by its offset: the section `.rodata`.
    pub data: Vec<u8>,
    /// What [`ReasonId`](crate::bpf::ReasonId) counts.
    pub reasons: Vec<Reason>,
}

/// A function: a program of its own, or what programs call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// A C identifier. The kernel shows its first 15 bytes as the program's name.
    pub name: String,
    pub role: Role,
    pub code: Code,
}

/// Who calls a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The kernel, with the context's address in `r1`.
    Entry {
        /// Tells libbpf the program type and where to attach, such as `tracepoint/syscalls/sys_enter_openat`. Several
        /// functions can be in one section.
        section: String,
    },
    /// Other functions of the object, with `parameters` (at most 5) 64-bit integers in `r1` to `r5`.
    Subprogram { parameters: u8, linkage: Linkage },
}

/// How the verifier treats a subprogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    /// It goes through the body at each call, and knows what the arguments are there.
    Static,
    /// It goes through the body once, with arguments of which it knows nothing but their type.
    Global,
}

/// A map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapDef {
    /// A C identifier. The kernel shows its first 15 bytes as the map's name.
    pub name: String,
    pub kind: MapKind,
    /// Bytes; 0 for kinds without keys.
    pub key_size: u32,
    /// Bytes; 0 for kinds without values.
    pub value_size: u32,
    /// Entries; for [`MapKind::RingBuf`] bytes, a power of two of whole pages; for [`MapKind::Arena`] pages.
    pub max_entries: u32,
    /// `BPF_F_*` of include/uapi/linux/bpf.h.
    pub flags: u32,
}

/// The kinds of map that need no BTF of their keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    Hash,
    Array,
    ProgArray,
    PerfEventArray,
    PerCpuHash,
    PerCpuArray,
    StackTrace,
    CgroupArray,
    LruHash,
    LruPerCpuHash,
    LpmTrie,
    Queue,
    Stack,
    RingBuf,
    BloomFilter,
    UserRingBuf,
    /// Needs the flag `BPF_F_MMAPABLE`.
    Arena,
}

/// The bytes of the object file.
///
/// # Errors
///
/// See [`WriteError`]; all but the last two are faults of whoever made the object.
pub fn write(object: &Object) -> Result<Vec<u8>, WriteError> {
    check::check(object)?;
    let layout = layout::Layout::of(object);
    let types = types::Types::of(object, &layout)?;
    elf::write(object, &layout, &types)
}

/// The name under which an object lists a kfunc. libbpf leaves out what follows the last `___` of one, which marks a
/// program's own variant (bpf_core_essential_name_len), and there are kfuncs whose names have that:
/// `scx_bpf_reenqueue_local___v2`.
fn extern_name(kfunc: &str) -> Cow<'_, str> {
    if kfunc.contains("___") { Cow::Owned(format!("{kfunc}___kfunc")) } else { Cow::Borrowed(kfunc) }
}

impl Object {
    /// All functions as text, each as [`crate::bpf::disassemble`] prints it, with the names of what they refer to.
    pub fn disassemble(&self) -> String {
        (0..self.functions.len()).map(|index| self.disassemble_one(index)).collect::<Vec<_>>().join("\n")
    }

    /// One function, by its index; nothing where there is none.
    pub fn disassemble_one(&self, index: usize) -> String {
        let Some(function) = self.functions.get(index) else { return String::new() };
        let maps: Vec<&str> = self.maps.iter().map(|map| map.name.as_str()).collect();
        let functions: Vec<&str> = self.functions.iter().map(|function| function.name.as_str()).collect();
        let kfuncs: Vec<&str> = self.kfuncs.iter().map(|kfunc| kfunc.name.as_str()).collect();
        let names = Names { maps: &maps, functions: &functions, kfuncs: &kfuncs };
        let heading = match &function.role {
            Role::Entry { section } => format!("program {} in {section}", function.name),
            Role::Subprogram { parameters, linkage } => {
                let linkage = match linkage {
                    Linkage::Static => "static",
                    Linkage::Global => "global",
                };
                format!("{linkage} function {} of {parameters}", function.name)
            }
        };
        format!("{heading}:\n{}", disassemble_named(&function.code, &self.reasons, &names))
    }
}

#[cfg(test)]
mod tests;
