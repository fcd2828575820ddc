//! The text form of a module, for reading and for golden files.

use std::fmt::Write;

use super::{
    Address, AtomicOp, Base, Callee, Function, Module, Operand, OperationKind, ReasonId, Register, Terminator, Width,
};
use crate::bpf::helper_name;

/// The module as text: a block for each block, a line for each operation, and the reason wherever it changes.
pub fn text(module: &Module) -> String {
    let mut out = String::new();
    for map in &module.maps {
        let (key, value) = (map.key_size, map.value_size);
        line(
            &mut out,
            format_args!("map {} {:?} key {key} value {value} entries {}", map.name, map.kind, map.max_entries),
        );
    }
    for function in &module.functions {
        write_function(&mut out, module, function);
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

fn write_function(out: &mut String, module: &Module, function: &Function) {
    let parameters: Vec<String> = function.parameters.iter().map(|r| reg(*r)).collect();
    let section = function.section.as_ref().map(|s| format!(" in {s}")).unwrap_or_default();
    line(out, format_args!("\nfunction {}({}){section}", function.name, parameters.join(", ")));
    for (slot, n) in function.slots.iter().zip(0..) {
        let of = if slot.object { " of an object" } else { "" };
        line(out, format_args!("  slot s{n}: {} bytes{of}", slot.bytes));
    }
    let reachable = super::build_order(function);
    let mut last = None;
    for id in reachable {
        let block = &function.blocks[id.0 as usize];
        line(out, format_args!("b{}:", id.0));
        for operation in &block.operations {
            reason(out, module, operation.reason, &mut last);
            line(out, format_args!("  {}", shown(module, &operation.kind)));
        }
        reason(out, module, block.end_reason, &mut last);
        line(out, format_args!("  {}", terminator(&block.end)));
    }
}

fn reason(out: &mut String, module: &Module, reason: Option<ReasonId>, last: &mut Option<ReasonId>) {
    if reason == *last {
        return;
    }
    *last = reason;
    if let Some(reason) = reason.and_then(|id| module.reasons.get(id.0 as usize)) {
        line(out, format_args!("  ; {}:{}:{} {}", reason.file, reason.line, reason.column, reason.text));
    }
}

fn reg(register: Register) -> String {
    format!("v{}", register.0)
}

fn operand(operand: Operand) -> String {
    match operand {
        Operand::Register(register) => reg(register),
        Operand::Constant(value) => value.to_string(),
    }
}

fn address(address: Address) -> String {
    match address.base {
        Base::Slot(slot) => format!("stack s{}{:+}", slot.0, address.offset),
        Base::Register { register, space } => {
            format!("{} {}{:+}", format!("{space:?}").to_lowercase(), reg(register), address.offset)
        }
    }
}

fn shown(module: &Module, kind: &OperationKind) -> String {
    match kind {
        OperationKind::Constant { to, value } => format!("{} = {value}", reg(*to)),
        OperationKind::Copy { to, from } => format!("{} = {}", reg(*to), reg(*from)),
        OperationKind::Alu { op, width, to, left, right } => {
            let bits = if *width == Width::W32 { "32" } else { "" };
            let op = format!("{op:?}").to_lowercase();
            format!("{} = {op}{bits} {}, {}", reg(*to), reg(*left), operand(*right))
        }
        OperationKind::Extend { to, from, bits, signed } => {
            format!("{} = extend {}{bits} {}", reg(*to), if *signed { "s" } else { "u" }, reg(*from))
        }
        OperationKind::ByteSwap { to, from, bits } => format!("{} = byteswap{bits} {}", reg(*to), reg(*from)),
        OperationKind::Load { to, from, size } => {
            format!("{} = load u{} {}", reg(*to), size.bytes() * 8, address(*from))
        }
        OperationKind::Atomic { op: AtomicOp::Add, at, value, .. } => {
            format!("atomic add {}, {}", address(*at), reg(*value))
        }
        OperationKind::Atomic { op: AtomicOp::Exchange, to, at, value } => {
            format!("{} = atomic exchange {}, {}", reg(*to), address(*at), reg(*value))
        }
        OperationKind::Store { to, value, size } => {
            format!("store u{} {}, {}", size.bytes() * 8, address(*to), operand(*value))
        }
        OperationKind::AddressOf { to, slot, offset } => format!("{} = address s{}+{offset}", reg(*to), slot.0),
        OperationKind::MapAddress { to, map } => {
            let name = module.maps.get(map.0 as usize).map_or("?", |m| m.name.as_str());
            format!("{} = map {name}", reg(*to))
        }
        OperationKind::DataAddress { to, offset } => format!("{} = data+{offset}", reg(*to)),
        OperationKind::Call { to, callee, arguments } => {
            let callee = match callee {
                Callee::Helper(id) => {
                    helper_name(*id).map_or_else(|| format!("helper {id}"), |name| format!("bpf_{name}"))
                }
                Callee::Kfunc(id) => module.kfuncs.get(id.0 as usize).map_or("?".to_owned(), |k| k.name.clone()),
                Callee::Function(id) => module.functions.get(id.0 as usize).map_or("?".to_owned(), |f| f.name.clone()),
            };
            let to = to.map(|to| format!("{} = ", reg(to))).unwrap_or_default();
            format!("{to}call {callee}({})", arguments.iter().map(|a| operand(*a)).collect::<Vec<_>>().join(", "))
        }
    }
}

fn terminator(end: &Terminator) -> String {
    match end {
        Terminator::Jump(to) => format!("jump b{}", to.0),
        Terminator::Branch { condition, width, left, right, then, otherwise } => {
            let bits = if *width == Width::W32 { "32" } else { "" };
            let condition = format!("{condition:?}").to_lowercase();
            format!("if {condition}{bits} {}, {} b{} else b{}", reg(*left), operand(*right), then.0, otherwise.0)
        }
        Terminator::Return(value) => format!("return {}", operand(*value)),
    }
}
