//! Functions of modules: which module it is, and whether the function is there.
//!
//! kallsyms names them, behind each its module. Their types are in what the module adds to the kernel's BTF; a module
//! that was built without has none, and then kprobe and kretprobe take its functions, which need none.

use super::function::{FunctionKind, Spec};
use super::search::Search;
use crate::kernel::{KernelFacts, Symbols};
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
        _ if super::is_wild(name) => fault.help("patterns match functions of one module; name it"),
        _ if name.contains('-') => fault.help(format!("modules' names have no dashes: `{}`", name.replace('-', "_"))),
        _ => fault.help("/proc/modules lists them"),
    })
}

/// The module that a function is of: the one that is written, or the only one that has it.
pub fn find(spec: &Spec, search: &Search<'_>) -> Result<String, Fault> {
    let Some(symbols) = search.facts.symbols() else {
        return Err(Fault::new(spec.at, "functions of modules are found in /proc/kallsyms, and that cannot be read"));
    };
    match &spec.module {
        Some(module) => written(module, spec, symbols, search),
        None => only(spec, symbols),
    }
}

/// Tells what is known to stand in the way of a function of a module.
pub fn exists(kind: FunctionKind, spec: &Spec, module: &str, in_btf: bool, search: &Search<'_>) -> Result<(), Fault> {
    let qualified = format!("{module}:{}", spec.name);
    let refuse = |message: String| Fault::new(spec.at, message);
    if kind.is_typed() && !in_btf {
        let message = format!("BTF does not describe `{qualified}`, and {} needs that", kind.name());
        return Err(refuse(message).help(format!("`kprobe:{qualified}` does without, and without `args`")));
    }
    let named = |wanted: &dyn Fn(&str) -> bool| {
        search.facts.symbols().map_or(0, |symbols| symbols.modules(&spec.name).filter(|of| wanted(of)).count())
    };
    if !kind.is_typed() && named(&|of| of == module) > 1 {
        let message = format!("the module {module} has several functions named `{}`", spec.name);
        return Err(refuse(format!("{message}, and kprobes cannot tell which")));
    }
    // libbpf takes the first module whose name begins so (find_kernel_btf_id).
    if kind.is_typed() && named(&|of| of != module && of.starts_with(module)) > 0 {
        let message = format!("another module, whose name begins with `{module}`, has a function `{}`", spec.name);
        return Err(refuse(message).help(format!("`kprobe:{qualified}` can tell them apart")));
    }
    if search.facts.is_traceable(&spec.name) == Some(false) {
        let message =
            format!("`{}` cannot be traced: its module is built so that no tracer can hook into it", spec.name);
        return Err(refuse(message).help("trace a function that calls it"));
    }
    Ok(())
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
    loaded(module, search.facts)?;
    let own = symbols.functions_of(&module.name);
    let near = search.did_you_mean(function, own.iter().copied());
    let own: Vec<String> = own.into_iter().map(|name| format!("`{name}`")).collect();
    Err(Fault::new(spec.at, message).help(near.unwrap_or_else(|| format!("it has {}", few(&own)))))
}

/// Whether there are functions of the module.
pub fn loaded(module: &Module, facts: &KernelFacts) -> Result<(), Fault> {
    if facts.symbols().is_none_or(|symbols| !symbols.functions_of(&module.name).is_empty()) {
        return Ok(());
    }
    Err(Fault::new(module.at, format!("no module `{}` is loaded", module.name))
        .help(format!("`modprobe {}` loads it, if the kernel has it; /proc/modules lists those that are", module.name)))
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
