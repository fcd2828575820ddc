//! Functions of the kernel: `fentry`, `fexit`, `kprobe`, `kretprobe`, `func`, and the hooks of security modules, `lsm`.
//!
//! They come in two families that see the same arguments in different ways. Programs of fentry, fexit and lsm are bound
//! to the function's type in BTF when they are loaded; the context is its arguments, and the verifier knows their
//! types. Programs of kprobe and kretprobe are bound to nothing; the context is the registers, and it is the calling
//! convention that tells which holds what.
//!
//! What cannot be traced is told here as far as the kernel's lists tell it. What they do not tell, the kernel says when
//! it loads or attaches.

mod names;
mod values;

use std::fmt;

use super::denied::is_denied;
use super::module::{self, Module};
use super::no_facts;
use super::passed::{ARGUMENTS, MOST_BYTES, slot, structure_bytes};
use super::pattern::{Glob, is_wild};
use super::search::{Meant, Name, Search, none_of};
use crate::kernel::{Answer, Btf, Feature, Function, Symbols};
use crate::plan::bounds::MAX_ATTACH_POINTS;
use crate::plan::diagnostic::{Fault, Span};
use crate::plan::pointer::Trust;
use names::is_hook;
pub use names::{names, names_of_module};

/// The functions that stand for the hooks of security modules.
const LSM_PREFIX: &str = "bpf_lsm_";
/// Hooks at which what the arguments point to is being made or is on its way out, so that the verifier vouches for none
/// of it (kernel/bpf/bpf_lsm.c: untrusted_lsm_hooks, of all kernels).
const UNTRUSTED_HOOKS: [&str; 12] = [
    "bdev_alloc_security",
    "bdev_free_security",
    "bpf_map_free",
    "bpf_map_free_security",
    "bpf_prog_alloc_security",
    "bpf_prog_free",
    "bpf_prog_free_security",
    "file_alloc_security",
    "file_free_security",
    "sk_alloc_security",
    "sk_free_security",
    "task_free",
];
/// Arguments that fentry and fexit can have, in slots of 8 bytes (include/linux/bpf.h: MAX_BPF_FUNC_ARGS).
const MOST_SLOTS: u32 = 12;

/// How a program is attached to a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FunctionKind {
    Fentry,
    Fexit,
    Kprobe,
    Kretprobe,
    Lsm,
    /// The best of fentry and kprobe. Only as it is written: none that is resolved is of this kind.
    Func,
}

impl FunctionKind {
    /// By its name or bpftrace's short one.
    pub fn parse(name: &str) -> Option<FunctionKind> {
        Some(match name {
            "fentry" | "f" => FunctionKind::Fentry,
            "fexit" | "fr" => FunctionKind::Fexit,
            "kprobe" | "k" => FunctionKind::Kprobe,
            "kretprobe" | "kr" => FunctionKind::Kretprobe,
            "lsm" => FunctionKind::Lsm,
            "func" => FunctionKind::Func,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            FunctionKind::Fentry => "fentry",
            FunctionKind::Fexit => "fexit",
            FunctionKind::Kprobe => "kprobe",
            FunctionKind::Kretprobe => "kretprobe",
            FunctionKind::Lsm => "lsm",
            FunctionKind::Func => "func",
        }
    }

    /// Whether the program is bound to the function's type.
    pub fn is_typed(self) -> bool {
        matches!(self, FunctionKind::Fentry | FunctionKind::Fexit | FunctionKind::Lsm)
    }
}

/// A function as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub kind: FunctionKind,
    pub name: String,
    /// None: of the kernel itself, or of the one module that has a function of that name.
    pub module: Option<Module>,
    /// Bytes behind its start.
    pub offset: u64,
    /// Where the name stands.
    pub at: Span,
    /// Whether a pattern has matched it, and nobody has written it.
    matched: bool,
}

/// A function, or the hook of a security module, found on this kernel.
#[derive(Clone, Debug)]
pub struct KernelFunction {
    pub kind: FunctionKind,
    pub name: String,
    /// The module that it is of; none: of the kernel itself.
    pub module: Option<String>,
    /// Bytes behind its start; not 0 at a kprobe only.
    pub offset: u64,
    /// None where BTF does not know the function, which only kprobe and kretprobe do without.
    pub prototype: Option<Function>,
    /// Words of 8 bytes that its arguments take; 0 without a prototype.
    pub slots: u32,
    /// Whether `func` was written.
    pub chosen: bool,
    /// Whether a pattern has matched it: it is left out where it turns out that it cannot be attached to.
    pub matched: bool,
}

impl fmt::Display for KernelFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.name(), self.qualified_name())?;
        if self.offset > 0 { write!(f, "+{:#x}", self.offset) } else { Ok(()) }
    }
}

/// Reads what stands behind the kind. `text` is the whole.
pub fn parse(kind: FunctionKind, parts: &[&str], text: &str) -> Result<Spec, Fault> {
    let mut module = None;
    let name = match parts {
        [name] | ["vmlinux", name] if kind != FunctionKind::Lsm || parts.len() == 1 => *name,
        [of, name] if kind != FunctionKind::Lsm && !of.is_empty() => {
            let start = text.len() - parts.join(":").len();
            module = Some(module::parse(of, Span::new(start, start + of.len()))?);
            *name
        }
        _ => "",
    };
    let form = || format!("it is written {}", form(kind));
    if name.is_empty() {
        return Err(Fault::new(Span::new(0, text.len()), form()));
    }
    let start = text.len() - name.len();
    let (name, offset) = match name.split_once('+') {
        None => (name, 0),
        Some((name, offset)) if kind == FunctionKind::Kprobe => {
            let at = Span::new(start + name.len() + 1, text.len());
            let parsed = match offset.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None => offset.parse().ok(),
            };
            let help = "bytes behind the function's start, as `16` or `0x10`";
            (name, parsed.ok_or_else(|| Fault::new(at, format!("`{offset}` is no offset")).help(help))?)
        }
        Some((name, _)) => {
            let at = Span::new(start + name.len(), text.len());
            let fault = Fault::new(at, format!("{} takes no offset", kind.name()));
            return Err(fault.help(format!("`kprobe:{name}+OFFSET` does")));
        }
    };
    let at = Span::new(start, start + name.len());
    if is_wild(name) {
        if offset > 0 {
            return Err(Fault::new(at, "an offset goes with the name of one function"));
        }
        Glob::parse(name, at)?;
        return Ok(Spec { kind, name: name.to_owned(), module, offset, at, matched: false });
    }
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'$')) {
        return Err(Fault::new(at, format!("`{name}` can be no name of a function")).help(form()));
    }
    Ok(Spec { kind, name: name.to_owned(), module, offset, at, matched: false })
}

fn form(kind: FunctionKind) -> String {
    match kind {
        FunctionKind::Lsm => "`lsm:HOOK`".to_owned(),
        FunctionKind::Kprobe => "`kprobe:FUNCTION` or `kprobe:FUNCTION+OFFSET`".to_owned(),
        kind => format!("`{}:FUNCTION`", kind.name()),
    }
}

/// The functions that a pattern matches, without those that are known to take no program.
pub fn expand(spec: &Spec, search: &Search<'_>) -> Result<Meant, Fault> {
    let pattern = Name { text: spec.name.clone(), at: spec.at };
    let of_module = spec.module.as_ref().map(|module| search.functions_of(spec.kind, module)).transpose()?;
    let all = match &of_module {
        Some(functions) => functions,
        None => search.functions(spec.kind).map_err(no_facts)?,
    };
    let mut found = search.matching(&pattern, all)?;
    if found.is_empty() {
        let what = match &spec.module {
            Some(module) => format!("function of the module {}", module.name),
            None if spec.kind == FunctionKind::Lsm => "hook of security modules".to_owned(),
            None => "function of this kernel".to_owned(),
        };
        return Err(search.nothing(&pattern, &what, all.iter().map(String::as_str)));
    }
    let matched = found.len();
    if matched <= MAX_ATTACH_POINTS && spec.module.is_none() {
        found.retain(|name| !is_denied(spec.kind, name, search.facts));
    }
    if found.is_empty() {
        return Err(none_of(spec.at, matched));
    }
    let specs = found.iter().map(|name| Spec { name: (*name).clone(), matched: true, ..spec.clone() });
    Meant::several(spec.at, specs.map(super::Spec::Function).collect(), &found)
}

/// Finds a function on the kernel.
pub fn resolve(spec: &Spec, search: &Search<'_>) -> Result<KernelFunction, Fault> {
    match spec.kind {
        FunctionKind::Func => best(spec, search),
        FunctionKind::Lsm => hook(spec, search),
        kind => resolve_as(kind, spec, search),
    }
}

fn resolve_as(kind: FunctionKind, spec: &Spec, search: &Search<'_>) -> Result<KernelFunction, Fault> {
    let facts = search.facts;
    let elsewhere = |symbols: &Symbols| symbols.count(&spec.name) == 0 && symbols.modules(&spec.name).next().is_some();
    let is_of_module = spec.module.is_some() || facts.symbols().is_some_and(elsewhere);
    let module = is_of_module.then(|| module::find(spec, search)).transpose()?;
    let prototype = match &module {
        None => facts.function(&spec.name),
        Some(module) => facts.function_of_module(module, &spec.name),
    };
    let prototype = match prototype {
        Ok(prototype) => prototype,
        Err(error) if kind.is_typed() => return Err(no_facts(&error)),
        Err(_) => None,
    };
    match &module {
        None => exists(kind, spec, prototype.is_some(), search)?,
        Some(module) => module::exists(kind, spec, module, prototype.is_some(), search)?,
    }
    if kind.is_typed()
        && let (Some(function), Ok(btf)) = (&prototype, facts.btf())
    {
        passable(function, btf).map_err(|why| {
            let fault = Fault::new(spec.at, format!("{} cannot take `{}`: {why}", kind.name(), spec.name));
            let of = module.as_ref().map(|module| format!("{module}:")).unwrap_or_default();
            fault.help(format!("`kprobe:{of}{0}` and `kretprobe:{of}{0}` can", spec.name))
        })?;
    }
    let slots = match (&prototype, facts.btf()) {
        (Some(function), Ok(btf)) => slot(btf, function, function.params.len()),
        _ => 0,
    };
    let (name, offset, matched) = (spec.name.clone(), spec.offset, spec.matched);
    let found = KernelFunction { kind, name, module, offset, prototype, slots, chosen: false, matched };
    if matched
        && found.feature() == Feature::FentryOnStack
        && let Answer::No(why) = facts.offers(Feature::FentryOnStack)
    {
        return Err(Fault::new(spec.at, format!("{found} has more than {} arguments: {why}", ARGUMENTS.len())));
    }
    Ok(found)
}

/// fentry is quicker and its arguments are typed for the verifier; kprobe is there on more kernels and takes more
/// functions.
fn best(spec: &Spec, search: &Search<'_>) -> Result<KernelFunction, Fault> {
    let offered = |feature| !matches!(search.facts.offers(feature), Answer::No(_));
    let fentry = resolve_as(FunctionKind::Fentry, spec, search);
    let kprobe = resolve_as(FunctionKind::Kprobe, spec, search);
    let found = match (fentry, kprobe) {
        (Ok(fentry), _)
            if offered(fentry.feature()) && (!fentry.is_bound_to_module() || offered(Feature::ModuleTypes)) =>
        {
            fentry
        }
        (_, Ok(kprobe)) if offered(Feature::Kprobe) => kprobe,
        // Neither will do. What stands in the way is told when it is loaded, or as the fault that a kprobe has.
        (Ok(found), _) | (_, Ok(found)) => found,
        (_, Err(fault)) => return Err(fault),
    };
    Ok(KernelFunction { chosen: true, ..found })
}

/// Tells what is known to stand in the way. Lists that cannot be read refuse nothing.
fn exists(kind: FunctionKind, spec: &Spec, in_btf: bool, search: &Search<'_>) -> Result<(), Fault> {
    let (name, facts) = (&spec.name, search.facts);
    let refuse = |message: String| Fault::new(spec.at, message);
    let Some(symbols) = facts.symbols() else {
        return if in_btf { Ok(()) } else { Err(unknown(spec, search)) };
    };
    match symbols.count(name) {
        0 => {
            let variants = symbols.variants(name);
            if !variants.is_empty() {
                let message = format!("the compiler has made variants of `{name}`, and there is none of that name");
                let of_one_name = variants.iter().filter(|variant| symbols.count(variant) == 1);
                let one_each: Vec<String> = of_one_name.map(|variant| format!("`kprobe:{variant}`")).collect();
                return Err(refuse(message).help(match one_each.is_empty() {
                    true => "trace a function that calls it".to_owned(),
                    false => format!("these are there, without `args`: {}", one_each.join(", ")),
                }));
            }
            if in_btf {
                let fault = refuse(format!("`{name}` cannot be traced: the compiler has put it into its callers"));
                return Err(fault.help("trace a function that calls it"));
            }
            Err(unknown(spec, search))
        }
        count @ 2.. if !kind.is_typed() => {
            let fault =
                refuse(format!("this kernel has {count} functions named `{name}`, and kprobes cannot tell which"));
            Err(if in_btf { fault.help(format!("`fentry:{name}` takes the one that BTF describes")) } else { fault })
        }
        _ if kind.is_typed() && !in_btf => {
            let fault = refuse(format!("BTF does not describe `{name}`, and {} needs that", kind.name()));
            Err(fault.help(format!("`kprobe:{name}` does without, and without `args`")))
        }
        // Of a name with a dot the kernel looks at what stands in front of it (kernel/trace/trace_kprobe.c:
        // within_notrace_func).
        _ if !name.contains('.') && facts.is_traceable(name) == Some(false) => Err(refuse(format!(
            "`{name}` cannot be traced: the kernel is built so that no tracer can hook into it (notrace)"
        ))
        .help("trace a function that calls it")),
        _ => Ok(()),
    }
}

fn unknown(spec: &Spec, search: &Search<'_>) -> Fault {
    let fault = Fault::new(spec.at, format!("this kernel has no function `{}`", spec.name));
    let names = search.functions(spec.kind).unwrap_or_default();
    let near = search.did_you_mean(&spec.name, names.iter().map(String::as_str));
    fault.help(near.unwrap_or_else(|| format!("`porthole list {}` lists them", spec.kind.name())))
}

/// What fentry and fexit cannot pass on (kernel/bpf/btf.c: btf_distill_func_proto).
fn passable(function: &Function, btf: &Btf) -> Result<(), String> {
    if function.variadic {
        return Err("it takes any number of arguments".to_owned());
    }
    for (name, ty) in &function.params {
        match structure_bytes(btf, *ty) {
            Some(0) => return Err(format!("`{name}` is a structure without fields")),
            Some(bytes) if bytes > MOST_BYTES => {
                return Err(format!("`{name}` is a structure of more than {MOST_BYTES} bytes"));
            }
            _ => {}
        }
    }
    if structure_bytes(btf, function.result).is_some() {
        return Err("it returns a structure".to_owned());
    }
    let slots = slot(btf, function, function.params.len());
    if slots > MOST_SLOTS {
        Err(format!("its arguments take {slots} slots, and {MOST_SLOTS} is the most"))
    } else {
        Ok(())
    }
}

fn hook(spec: &Spec, search: &Search<'_>) -> Result<KernelFunction, Fault> {
    let btf = search.facts.btf().map_err(|error| no_facts(&error))?;
    let function = search.facts.function(&format!("{LSM_PREFIX}{}", spec.name)).map_err(|error| no_facts(&error))?;
    let Some(function) = function.filter(|_| is_hook(btf, &spec.name)) else {
        let fault = Fault::new(spec.at, format!("this kernel has no hook `{}` of security modules", spec.name));
        let names = search.functions(FunctionKind::Lsm).unwrap_or_default();
        // As the functions are named that stand for hooks, and those that call them.
        let bare = [LSM_PREFIX, "security_"].iter().find_map(|prefix| spec.name.strip_prefix(prefix));
        let near = search.did_you_mean(bare.unwrap_or(&spec.name), names.iter().map(String::as_str));
        let none = "this kernel is built without hooks for BPF (CONFIG_BPF_LSM)";
        let help = near.or_else(|| names.is_empty().then(|| none.to_owned()));
        return Err(fault.help(help.unwrap_or_else(|| "`porthole list lsm` lists them".to_owned())));
    };
    let name = spec.name.clone();
    Ok(KernelFunction {
        kind: FunctionKind::Lsm,
        name,
        module: None,
        offset: 0,
        prototype: Some(function),
        slots: 0,
        chosen: false,
        matched: spec.matched,
    })
}

impl KernelFunction {
    /// With the module in front, as the kernel takes it.
    pub fn qualified_name(&self) -> String {
        match &self.module {
            Some(module) => format!("{module}:{}", self.name),
            None => self.name.clone(),
        }
    }

    /// Whether its programs are bound to what a module adds to the kernel's types.
    pub fn is_bound_to_module(&self) -> bool {
        self.kind.is_typed() && self.module.is_some()
    }

    /// Whether the verifier takes what its arguments point to for alive.
    pub fn vouches(&self) -> Trust {
        let vouches = self.kind == FunctionKind::Lsm && !UNTRUSTED_HOOKS.contains(&self.name.as_str());
        if vouches { Trust::Full } else { Trust::Nothing }
    }

    /// What the kernel must offer for it.
    pub fn feature(&self) -> Feature {
        match self.kind {
            FunctionKind::Lsm => Feature::Lsm,
            kind if kind.is_typed() && self.slots > ARGUMENTS.len() as u32 => Feature::FentryOnStack,
            kind if kind.is_typed() => Feature::Fentry,
            _ => Feature::Kprobe,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let parsed = |kind, text: &str| {
            let parts: Vec<&str> = text.split(':').skip(1).collect();
            parse(kind, &parts, text).map(|spec| (spec.name, spec.offset))
        };
        use FunctionKind::{Fentry, Kprobe, Kretprobe, Lsm};
        assert_eq!(parsed(Fentry, "fentry:vfs_read"), Ok(("vfs_read".to_owned(), 0)));
        assert_eq!(parsed(Fentry, "fentry:vmlinux:vfs_read"), Ok(("vfs_read".to_owned(), 0)));
        assert_eq!(parsed(Kprobe, "kprobe:do_it.isra.0+0x1f"), Ok(("do_it.isra.0".to_owned(), 31)));
        assert_eq!(parsed(Kprobe, "kprobe:x+31"), Ok(("x".to_owned(), 31)));
        for (kind, text, start, end, message) in [
            (Fentry, "fentry", 0, 6, "it is written `fentry:FUNCTION`"),
            (Fentry, "fentry:", 0, 7, "it is written `fentry:FUNCTION`"),
            (Fentry, "fentry:ext-4:ext4_x", 7, 12, "`ext-4` can be no name of a module"),
            (Kprobe, "kprobe:ext*:ext4_*", 7, 11, "`ext*` can be no name of a module"),
            (Lsm, "lsm:vmlinux:file_open", 0, 21, "it is written `lsm:HOOK`"),
            (Kprobe, "kprobe:x+", 9, 9, "`` is no offset"),
            (Kprobe, "kprobe:x+0xz", 9, 12, "`0xz` is no offset"),
            (Kprobe, "kprobe:+1", 7, 7, "`` can be no name of a function"),
            (Kretprobe, "kretprobe:x+1", 11, 13, "kretprobe takes no offset"),
            (Kprobe, "kprobe:a/b", 7, 10, "`a/b` can be no name of a function"),
        ] {
            let fault = parsed(kind, text).expect_err(text);
            assert_eq!((fault.span, fault.message.as_str()), (Span::new(start, end), message), "{text}");
        }
    }
}
