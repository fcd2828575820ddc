//! Raw tracepoints, as tp_btf programs: the context is the tracepoint's arguments, typed by BTF.

use super::{no_facts, typed};
use crate::kernel::{KernelFacts, RawTracepoint};
use crate::plan::Node;
use crate::plan::diagnostic::{Fault, Span, did_you_mean};

/// Which names raw tracepoints have.
const NAMES: &str =
    "raw tracepoints have the names of tracepoints, without the system; those of modules are not there yet";

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
    Some(typed::argument(btf, name, index as u32, point.params[index].1, span))
}
