//! What an [`Object`] must be before it can be written.

use std::collections::HashSet;

use super::btf::BtfError;
use super::{Function, Object, Role};
use crate::bpf::Target;

/// Why an object could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("`{name}` is no C identifier of at most 127 bytes")]
    InvalidName { name: String },
    #[error("`{name}` is the name of two functions, maps or kfuncs of one object")]
    DuplicateName { name: String },
    #[error("function `{function}` cannot be in section `{section}`")]
    InvalidSection { function: String, section: String },
    #[error("the license contains a NUL")]
    InvalidLicense,
    #[error("function `{function}` has no instructions")]
    EmptyFunction { function: String },
    #[error("function `{function}` has {parameters} parameters; BPF passes 5")]
    TooManyParameters { function: String, parameters: usize },
    #[error("function `{function}` refers to {target:?} at slot {slot}, which the object does not have")]
    UnknownTarget { function: String, slot: u32, target: Target },
    #[error("function `{function}` gives reason {reason}, which the object does not have")]
    UnknownReason { function: String, reason: u32 },
    #[error("function `{function}` calls the program `{callee}` at slot {slot}; only subprograms can be called")]
    CallsEntry { function: String, slot: u32, callee: String },
    #[error("could not build BTF")]
    Btf(#[from] BtfError),
    #[error("could not write ELF")]
    Elf(#[from] object::write::Error),
}

pub(super) fn check(object: &Object) -> Result<(), WriteError> {
    if object.license.contains('\0') {
        return Err(WriteError::InvalidLicense);
    }
    check_names(object)?;
    for kfunc in &object.kfuncs {
        check_parameters(&kfunc.name, kfunc.parameters.len())?;
    }
    object.functions.iter().try_for_each(|function| check_function(object, function))
}

fn check_names(object: &Object) -> Result<(), WriteError> {
    let functions = object.functions.iter().map(|function| &function.name);
    let maps = object.maps.iter().map(|map| &map.name);
    let kfuncs = object.kfuncs.iter().map(|kfunc| &kfunc.name);
    let mut seen = HashSet::new();
    for name in functions.chain(maps).chain(kfuncs) {
        if !is_identifier(name) {
            return Err(WriteError::InvalidName { name: name.clone() });
        }
        if !seen.insert(name) {
            return Err(WriteError::DuplicateName { name: name.clone() });
        }
    }
    Ok(())
}

/// The kernel's rule for names of BTF functions (`btf_name_valid_identifier` in kernel/bpf/btf.c), with the length of
/// before 6.1.
fn is_identifier(name: &str) -> bool {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts_well && name.len() <= 127 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn check_function(object: &Object, function: &Function) -> Result<(), WriteError> {
    match &function.role {
        Role::Entry { section } => check_section(function, section)?,
        Role::Subprogram { parameters, .. } => check_parameters(&function.name, (*parameters).into())?,
    }
    if function.code.insns.is_empty() {
        return Err(WriteError::EmptyFunction { function: function.name.clone() });
    }
    for &(_, reason) in &function.code.lines {
        if reason.0 as usize >= object.reasons.len() {
            return Err(WriteError::UnknownReason { function: function.name.clone(), reason: reason.0 });
        }
    }
    let mut relocations = function.code.relocations.iter();
    relocations.try_for_each(|relocation| check_target(object, function, relocation.slot, relocation.target))
}

/// A program's section must be none of those that libbpf reads for another purpose.
fn check_section(function: &Function, section: &str) -> Result<(), WriteError> {
    let reserved = section.is_empty() || section.starts_with('.') || matches!(section, "license" | "version" | "maps");
    if reserved || section.contains('\0') {
        return Err(WriteError::InvalidSection { function: function.name.clone(), section: section.to_owned() });
    }
    Ok(())
}

fn check_parameters(function: &str, parameters: usize) -> Result<(), WriteError> {
    if parameters > 5 {
        return Err(WriteError::TooManyParameters { function: function.to_owned(), parameters });
    }
    Ok(())
}

fn check_target(object: &Object, function: &Function, slot: u32, target: Target) -> Result<(), WriteError> {
    let name = || function.name.clone();
    let unknown = || WriteError::UnknownTarget { function: name(), slot, target };
    match target {
        Target::Map(map) => object.maps.get(map.0 as usize).map(|_| ()).ok_or_else(unknown),
        Target::Data(offset) => object.data.get(offset as usize).map(|_| ()).ok_or_else(unknown),
        Target::Kfunc(kfunc) => object.kfuncs.get(kfunc.0 as usize).map(|_| ()).ok_or_else(unknown),
        Target::Function(callee) => {
            let callee = object.functions.get(callee.0 as usize).ok_or_else(unknown)?;
            match callee.role {
                Role::Subprogram { .. } => Ok(()),
                Role::Entry { .. } => {
                    Err(WriteError::CallsEntry { function: name(), slot, callee: callee.name.clone() })
                }
            }
        }
    }
}
