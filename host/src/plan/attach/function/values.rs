//! What a program finds of a function: `args`, `arg0`, `retval` and `reg`.

use super::super::passed::{self, ARGUMENTS, MOST_BYTES, Passed, RESULTS, slot, structure_bytes};
use super::super::{Value, registers, typed};
use super::{FunctionKind, KernelFunction};
use crate::kernel::{Btf, KernelFacts, Kind, TypeId};
use crate::plan::diagnostic::{Fault, Span};
use crate::plan::pointer::target;
use crate::plan::{Access, Node, NodeKind, Origin, Target, Type};

impl KernelFunction {
    /// The fields of `args`.
    pub fn argument_names(&self) -> Vec<String> {
        let here = self.kind != FunctionKind::Kretprobe && self.offset == 0;
        let params = self.prototype.iter().filter(|_| here).flat_map(|function| &function.params);
        params.map(|(name, _)| name.clone()).collect()
    }

    /// `args.name`; none where there is no such argument.
    pub fn argument(&self, name: &str, facts: &KernelFacts, span: Span) -> Option<Result<Value, Fault>> {
        if let Err(fault) = self.has_arguments(span) {
            return Some(Err(fault));
        }
        let function = self.prototype.as_ref()?;
        let position = function.params.iter().position(|(n, _)| n == name)?;
        let ty = function.params[position].1;
        let btf = match facts.btf() {
            Ok(btf) => btf,
            Err(error) => return Some(Err(Fault::new(span, error.to_string()))),
        };
        Some(match self.kind.is_typed() {
            true => typed_argument(btf, name, slot(btf, function, position), ty, span),
            false => {
                let passed = passed::at_entry(btf, function, position)?;
                passed_value(btf, &format!("`{name}`"), passed, ty, span)
            }
        })
    }

    /// Whether `args` means something here.
    pub fn has_arguments(&self, span: Span) -> Result<(), Fault> {
        let name = &self.name;
        if self.kind == FunctionKind::Kretprobe {
            let fault = Fault::new(span, "the arguments are gone when a function returns");
            return Err(fault.help(format!("`kprobe:{name}` has them, and `fexit:{name}` has both")));
        }
        if self.offset > 0 {
            let fault = Fault::new(span, "inside a function the registers need not hold its arguments any more");
            return Err(fault.help(format!("`kprobe:{name}` has them; `reg(\"di\")` reads a register")));
        }
        if self.prototype.is_none() {
            let fault = Fault::new(span, format!("BTF does not describe `{name}`, so its arguments have no names"));
            return Err(fault.help("`arg0`, `arg1`, … are what is passed, as integers"));
        }
        Ok(())
    }

    /// `retval`.
    pub fn result(&self, facts: &KernelFacts, span: Span) -> Result<Value, Fault> {
        if !matches!(self.kind, FunctionKind::Fexit | FunctionKind::Kretprobe) {
            let fault = Fault::new(span, "what a function returns is known when it returns");
            return Err(match self.kind {
                FunctionKind::Lsm => fault.help("other security modules may still refuse; `fexit` of the caller tells"),
                _ => fault.help(format!("`fexit:{0}` and `kretprobe:{0}` have `retval`", self.name)),
            });
        }
        let btf = facts.btf().map_err(|error| Fault::new(span, error.to_string()))?;
        let Some(function) = &self.prototype else {
            let message = format!("BTF does not describe `{}`, so the type of `retval` is not known", self.name);
            return Err(
                Fault::new(span, message).help(format!("`reg(\"{}\")` is the register in which it is", RESULTS[0]))
            );
        };
        if let Kind::Void = btf.kind(btf.strip(function.result).id) {
            return Err(Fault::new(span, format!("`{}` returns nothing", self.name)));
        }
        if self.kind == FunctionKind::Kretprobe {
            return result_value(btf, function.result, span);
        }
        let stripped = btf.strip(function.result);
        match btf.kind(stripped.id) {
            // It may be an error, and no pointer: a number to the verifier, read by what can tell.
            Kind::Pointer(to) => Ok(Value::Node(fetched(btf, None, to, span))),
            _ => typed::argument(btf, "retval", slot(btf, function, function.params.len()), function.result, span)
                .map(Value::Node),
        }
    }

    /// `arg0`, `arg1`, …
    pub fn numbered(&self, number: usize, facts: &KernelFacts, span: Span) -> Result<Node, Fault> {
        if self.kind != FunctionKind::Kprobe {
            self.has_arguments(span)?;
            let names = self.argument_names();
            let fault = Fault::new(span, "arguments have names here");
            return Err(match names.get(number) {
                Some(name) => fault.help(format!("write `args.{name}`")),
                None => fault.help(format!("it has {}", names.join(", "))),
            });
        }
        if self.offset > 0 {
            self.has_arguments(span)?;
        }
        match passed::numbered(number, span)? {
            Passed::Registers { first, .. } => registers::value(ARGUMENTS[first], facts, span),
            Passed::Stack(offset) => {
                let btf = facts.btf().map_err(|error| Fault::new(span, error.to_string()))?;
                let ty = Type::Integer { bytes: 8, signed: false };
                Ok(on_stack(stack_pointer(btf, Target::Unknown, span)?, offset, 8, ty, span))
            }
        }
    }

    /// `reg("name")`.
    pub fn register(&self, name: &str, facts: &KernelFacts, span: Span) -> Result<Node, Fault> {
        if self.kind.is_typed() {
            let fault = Fault::new(span, format!("registers cannot be read at {}", self.kind.name()));
            return Err(fault.help(format!("`kprobe:{}` can", self.name)));
        }
        registers::value(name, facts, span)
    }
}

/// As [`typed::argument`]; pointers that the verifier does not let a program load are fetched by a helper, and
/// structures are where their words are.
fn typed_argument(btf: &Btf, name: &str, slot: u32, ty: TypeId, span: Span) -> Result<Value, Fault> {
    let id = btf.strip(ty).id;
    match btf.kind(id) {
        Kind::Pointer(to) if typed::pointer_argument(btf, to).2 != Access::Direct => {
            Ok(Value::Node(fetched(btf, Some(slot), to, span)))
        }
        Kind::Struct { .. } | Kind::Union { .. } => {
            let kind = NodeKind::ContextAddress { offset: slot * 8 };
            Ok(Value::Structure { base: address(kind, id, span), offset: 0, ty: id })
        }
        _ => typed::argument(btf, name, slot, ty, span).map(Value::Node),
    }
}

fn fetched(btf: &Btf, argument: Option<u32>, to: TypeId, span: Span) -> Node {
    Node { kind: NodeKind::Fetched { argument }, ty: pointer(btf, to), span }
}

fn pointer(btf: &Btf, to: TypeId) -> Type {
    let user = btf.strip(to).tags.user;
    Type::Pointer { target: target(btf, to), origin: if user { Origin::User } else { Origin::Kernel } }
}

/// A kernel address of something of this type.
fn address(kind: NodeKind, of: TypeId, span: Span) -> Node {
    Node { kind, ty: Type::Pointer { target: Target::Type(of), origin: Origin::Kernel }, span }
}

/// What a kprobe finds of an argument.
fn passed_value(btf: &Btf, what: &str, passed: Passed, ty: TypeId, span: Span) -> Result<Value, Fault> {
    let id = btf.strip(ty).id;
    match (passed, structure_bytes(btf, ty)) {
        (Passed::Registers { first, count }, Some(_)) => in_registers(btf, &ARGUMENTS[first..first + count], id, span),
        (Passed::Stack(offset), Some(_)) => {
            Ok(Value::Structure { base: stack_pointer(btf, Target::Type(id), span)?, offset, ty: id })
        }
        (passed, None) => {
            let (bytes, ty) = scalar(btf, what, ty, span)?;
            match passed {
                Passed::Registers { first, .. } => register_value(btf, ARGUMENTS[first], bytes, ty, span),
                Passed::Stack(offset) => {
                    Ok(on_stack(stack_pointer(btf, Target::Unknown, span)?, offset, bytes, ty, span))
                }
            }
            .map(Value::Node)
        }
    }
}

/// What a kretprobe finds of the result.
fn result_value(btf: &Btf, ty: TypeId, span: Span) -> Result<Value, Fault> {
    match structure_bytes(btf, ty) {
        Some(bytes) if bytes > MOST_BYTES => {
            // The caller has passed the address, which is returned.
            let id = btf.strip(ty).id;
            let (offset, _) = registers::offset(RESULTS[0], btf, span)?;
            let base = address(NodeKind::Context { offset, bytes: 8 }, id, span);
            Ok(Value::Structure { base, offset: 0, ty: id })
        }
        Some(bytes) => in_registers(btf, &RESULTS[..bytes.div_ceil(8) as usize], btf.strip(ty).id, span),
        None => {
            let (bytes, ty) = scalar(btf, "`retval`", ty, span)?;
            register_value(btf, RESULTS[0], bytes, ty, span).map(Value::Node)
        }
    }
}

/// A structure that is in one register or two.
fn in_registers(btf: &Btf, names: &[&str], ty: TypeId, span: Span) -> Result<Value, Fault> {
    let offsets = names.iter().map(|name| Ok(registers::offset(name, btf, span)?.0));
    let kind = match offsets.collect::<Result<Vec<u32>, Fault>>()?.as_slice() {
        [first, second] => NodeKind::Gathered { offsets: [*first, *second] },
        // One without fields is nowhere, and nothing of it is read.
        offsets => NodeKind::ContextAddress { offset: offsets.first().copied().unwrap_or(0) },
    };
    Ok(Value::Structure { base: address(kind, ty, span), offset: 0, ty })
}

fn register_value(btf: &Btf, register: &str, bytes: u8, ty: Type, span: Span) -> Result<Node, Fault> {
    let (offset, _) = registers::offset(register, btf, span)?;
    Ok(Node { kind: NodeKind::Context { offset, bytes }, ty, span })
}

fn stack_pointer(btf: &Btf, target: Target, span: Span) -> Result<Node, Fault> {
    register_value(btf, "sp", 8, Type::Pointer { target, origin: Origin::Kernel }, span)
}

fn on_stack(stack: Node, offset: u32, bytes: u8, ty: Type, span: Span) -> Node {
    let kind = NodeKind::Load { base: Box::new(stack), offset, bytes, bits: None, access: Access::Kernel };
    Node { kind, ty, span }
}

/// Bytes and type of what fits a register.
fn scalar(btf: &Btf, what: &str, ty: TypeId, span: Span) -> Result<(u8, Type), Fault> {
    let refuse = |why: &str| Err(Fault::new(span, format!("{what} is `{}`, {why}", btf.c_name(ty))));
    match btf.kind(btf.strip(ty).id) {
        Kind::Int { bool: true, .. } => Ok((1, Type::Boolean)),
        Kind::Int { bytes, signed, .. } | Kind::Enum { bytes, signed, .. } => match u8::try_from(bytes) {
            Ok(bytes @ (1 | 2 | 4 | 8)) => Ok((bytes, Type::Integer { bytes, signed })),
            _ => refuse("an integer of a width that cannot be read"),
        },
        Kind::Pointer(to) => Ok((8, pointer(btf, to))),
        _ => refuse("which is no integer and no pointer"),
    }
}
