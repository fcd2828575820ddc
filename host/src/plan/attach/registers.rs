//! Registers, where the program's context is `struct pt_regs`.

use crate::kernel::{Btf, KernelFacts, Kind};
use crate::plan::diagnostic::{Fault, Span, did_you_mean};
use crate::plan::{Node, NodeKind, Type};

/// The structure that holds them.
const REGISTERS: &str = "pt_regs";

/// A register as an unsigned integer.
pub fn value(name: &str, facts: &KernelFacts, span: Span) -> Result<Node, Fault> {
    let btf = facts.btf().map_err(|error| Fault::new(span, error.to_string()))?;
    let (offset, bytes) = offset(name, btf, span)?;
    Ok(Node { kind: NodeKind::Context { offset, bytes }, ty: Type::Integer { bytes, signed: false }, span })
}

/// Where the register lies in the context, and its bytes there. Names are those of the structure's members, as in
/// bpftrace.
pub fn offset(name: &str, btf: &Btf, span: Span) -> Result<(u32, u8), Fault> {
    let structure = btf.structure(REGISTERS).ok_or_else(|| Fault::new(span, "BTF has no struct pt_regs"))?;
    let found = btf.member(structure, name).filter(|member| member.bit_size.is_none());
    let sized = found.and_then(|member| match btf.kind(btf.strip(member.ty).id) {
        Kind::Int { bytes, .. } => Some((member.bit_offset / 8, u8::try_from(bytes).ok()?)),
        _ => None,
    });
    sized.ok_or_else(|| {
        let names = btf.member_names(structure);
        let fault = Fault::new(span, format!("there is no register `{name}`"));
        let near = did_you_mean(name, names.iter().map(String::as_str));
        fault.help(near.unwrap_or_else(|| format!("there are {}", names.join(", "))))
    })
}
