//! Raw tracepoints, as tp_btf programs: the context is the tracepoint's arguments, typed by BTF.

use super::{no_facts, typed};
use crate::kernel::{KernelFacts, RawTracepoint};
use crate::plan::diagnostic::{Fault, Span, did_you_mean};
use crate::plan::{Node, Origin, Type};

/// Which names raw tracepoints have.
const NAMES: &str = "`porthole list rawtracepoint` lists them; those of modules are not there yet";

/// Arguments that are a pointer, an error or a small number: a raw tracepoint, and which argument of it. Newer kernels trust none of them
/// (kernel/bpf/btf.c: raw_tp_null_args); what they point to is read as any kernel memory, and so is absent where they do not point.
const NOT_ALWAYS_POINTERS: [(&str, usize); 4] =
    [("signal_generate", 1), ("signal_deliver", 1), ("cachefiles_lookup", 2), ("mr_integ_alloc", 3)];

/// Finds a raw tracepoint on the kernel.
pub fn resolve(name: &str, facts: &KernelFacts) -> Result<RawTracepoint, Fault> {
    match facts.raw_tracepoint(name) {
        Ok(Some(point)) => Ok(point),
        Ok(None) => {
            let names = facts.raw_tracepoint_names().unwrap_or_default();
            let start = "rawtracepoint:".len();
            let span = Span::new(start, start + name.len());
            let fault = Fault::new(span, format!("this kernel has no raw tracepoint `{name}`"));
            let near = did_you_mean(name, names.iter().map(String::as_str));
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
