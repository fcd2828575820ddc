//! Functions of modules: by kprobe and kretprobe, which need no types.
//!
//! kallsyms names them, behind each its module. The kernel's own BTF does not describe them, so they have `arg0`, `arg1`, … and no `args`; what these
//! point to can be named, where it is one of the kernel's own types.

use super::function::{FunctionKind, KernelFunction, Spec};
use super::search::Search;
use crate::kernel::Symbols;
use crate::plan::diagnostic::{Fault, Span, few};

/// A module as it is written in front of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    pub name: String,
    /// Where it stands.
    pub at: Span,
}

/// Bytes of a module's name at most (include/linux/module.h: MODULE_NAME_LEN).
const MAX_MODULE_NAME: usize = 55;

/// Reads the name of a module.
pub fn parse(name: &str, at: Span) -> Result<Module, Fault> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if plain && name.len() <= MAX_MODULE_NAME {
        return Ok(Module { name: name.to_owned(), at });
    }
    let fault = Fault::new(at, format!("`{name}` can be no name of a module"));
    Err(match name {
        _ if super::is_wild(name) => fault.help("patterns match functions of the kernel itself; name the module"),
        _ if name.contains('-') => fault.help(format!("modules' names have no dashes: `{}`", name.replace('-', "_"))),
        _ => fault.help("/proc/modules lists them"),
    })
}

/// Finds a function in the module that is written, or in the only one that has it.
pub fn resolve(kind: FunctionKind, spec: &Spec, search: &Search<'_>) -> Result<KernelFunction, Fault> {
    let Some(symbols) = search.facts.symbols() else {
        return Err(Fault::new(spec.at, "functions of modules are found in /proc/kallsyms, and that cannot be read"));
    };
    let module = match &spec.module {
        Some(module) => written(module, spec, symbols, search)?,
        None => only(spec, symbols)?,
    };
    if kind.is_typed() {
        let name = format!("{module}:{}", spec.name);
        let message = format!("{} takes the kernel's own functions, and `{name}` is a module's", kind.name());
        return Err(Fault::new(spec.at, message).help(format!("`kprobe:{name}` and `kretprobe:{name}` take it")));
    }
    if symbols.modules(&spec.name).filter(|of| *of == module).count() > 1 {
        let message = format!("the module {module} has several functions named `{}`", spec.name);
        return Err(Fault::new(spec.at, format!("{message}, and kprobes cannot tell which")));
    }
    if search.facts.is_traceable(&spec.name) == Some(false) {
        let message =
            format!("`{}` cannot be traced: its module is built so that no tracer can hook into it", spec.name);
        return Err(Fault::new(spec.at, message).help("trace a function that calls it"));
    }
    Ok(KernelFunction {
        kind,
        name: spec.name.clone(),
        module: Some(module),
        offset: spec.offset,
        prototype: None,
        slots: 0,
        chosen: false,
        matched: false,
    })
}

fn written(module: &Module, spec: &Spec, symbols: &Symbols, search: &Search<'_>) -> Result<String, Fault> {
    let function = &spec.name;
    let elsewhere: Vec<&str> = symbols.modules(function).collect();
    if elsewhere.contains(&module.name.as_str()) {
        return Ok(module.name.clone());
    }
    let message = format!("the module {} has no function `{function}`", module.name);
    if symbols.count(function) > 0 {
        let help = format!("it is one of the kernel itself: `{}:{function}`", spec.kind.name());
        return Err(Fault::new(module.at, message).help(help));
    }
    if let Some(other) = elsewhere.first() {
        let help = format!("it is one of the module {other}: `{}:{other}:{function}`", spec.kind.name());
        return Err(Fault::new(module.at, message).help(help));
    }
    let own = symbols.functions_of(&module.name);
    if own.is_empty() {
        return Err(Fault::new(module.at, format!("no module `{}` is loaded", module.name)).help(format!(
            "`modprobe {}` loads it, if the kernel has it; /proc/modules lists those that are",
            module.name
        )));
    }
    let near = search.did_you_mean(function, own.iter().copied());
    let own: Vec<String> = own.into_iter().map(|name| format!("`{name}`")).collect();
    Err(Fault::new(spec.at, message).help(near.unwrap_or_else(|| format!("it has {}", few(&own)))))
}

fn only(spec: &Spec, symbols: &Symbols) -> Result<String, Fault> {
    let mut modules: Vec<&str> = symbols.modules(&spec.name).collect();
    modules.dedup();
    match modules.as_slice() {
        [one] => Ok((*one).to_owned()),
        several => {
            let ways: Vec<String> =
                several.iter().map(|module| format!("`{}:{module}:{}`", spec.kind.name(), spec.name)).collect();
            let fault = Fault::new(spec.at, format!("several modules have a function `{}`", spec.name));
            Err(fault.help(format!("name one: {}", few(&ways))))
        }
    }
}
