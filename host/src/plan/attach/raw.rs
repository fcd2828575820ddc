//! Raw tracepoints, as tp_btf programs: the context is the tracepoint's arguments, typed by BTF.

use super::search::{Meant, Name, Search};
use super::{Spec, no_facts, typed};
use crate::kernel::{KernelFacts, RawTracepoint};
use crate::plan::diagnostic::{Fault, Span};
use crate::plan::{Node, Origin, Type};

/// Which names raw tracepoints have.
const NAMES: &str = "`porthole list rawtracepoint` lists them";

/// Arguments that are a pointer, an error or a small number: a raw tracepoint, and which argument of it. Newer kernels
/// trust none of them (kernel/bpf/btf.c: raw_tp_null_args); what they point to is read as any kernel memory, and so is
/// absent where they do not point.
const NOT_ALWAYS_POINTERS: [(&str, usize); 4] =
    [("signal_generate", 1), ("signal_deliver", 1), ("cachefiles_lookup", 2), ("mr_integ_alloc", 3)];

/// The raw tracepoints that a pattern matches.
pub fn expand(name: &Name, search: &Search<'_>) -> Result<Meant, Fault> {
    let all = search.raw_tracepoints().map_err(no_facts)?;
    let found = search.matching(name, all)?;
    if found.is_empty() {
        return Err(search.nothing(name, "raw tracepoint of this kernel", all.iter().map(String::as_str)));
    }
    let specs = found.iter().map(|found| Spec::RawTracepoint { name: name.instead(found) }).collect();
    Meant::several(name.at, specs, &found)
}

/// Finds a raw tracepoint on the kernel.
pub fn resolve(name: &Name, search: &Search<'_>) -> Result<RawTracepoint, Fault> {
    match search.facts.raw_tracepoint(&name.text) {
        Ok(Some(point)) => Ok(point),
        Ok(None) => {
            let names = search.raw_tracepoints().unwrap_or_default();
            let fault = Fault::new(name.at, format!("this kernel has no raw tracepoint `{}`", name.text));
            let near = search.did_you_mean(&name.text, names.iter().map(String::as_str));
            Err(fault.help(near.unwrap_or_else(|| NAMES.to_owned())))
        }
        Err(error) => Err(no_facts(&error)),
    }
}

/// `args.name`; none where there is no such argument.
pub fn argument(point: &RawTracepoint, name: &str, facts: &KernelFacts, span: Span) -> Option<Result<Node, Fault>> {
    let index = point.params.iter().position(|(n, _)| n == name)?;
    let btf = match facts.btf() {
        Ok(btf) => btf,
        Err(error) => return Some(Err(Fault::new(span, error.to_string()))),
    };
    let mut argument = typed::argument(btf, name, index as u32, point.params[index].1, span);
    if let Ok(Node { ty: Type::Pointer { origin, .. }, .. }) = &mut argument
        && NOT_ALWAYS_POINTERS.contains(&(point.name.as_str(), index))
    {
        *origin = Origin::Kernel;
    }
    Some(argument)
}
