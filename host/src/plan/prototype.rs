//! Prototypes of kfuncs: as text, and as libbpf compares them.

use super::diagnostic::Span;
use crate::bpf::{self, CType};
use crate::kernel::kfunc::Kfunc;
use crate::kernel::{Btf, Kind, TypeId};

/// Registers that arguments are passed in.
const MOST_PARAMETERS: usize = 5;
/// Pointers to pointers that are followed.
const MOST_POINTERS: u32 = 8;

/// How a kfunc is called.
pub struct Prototype {
    /// As C writes it.
    pub text: String,
    /// Where each parameter stands in the text.
    pub parameters: Vec<Span>,
    function: Option<bpf::Kfunc>,
}

impl Prototype {
    pub fn of(btf: &Btf, kfunc: &Kfunc) -> Prototype {
        let mut text = declared(btf, kfunc.result, &kfunc.name) + "(";
        let mut parameters = Vec::new();
        for (n, (name, ty)) in kfunc.params.iter().enumerate() {
            text.push_str(if n > 0 { ", " } else { "" });
            let start = text.len();
            text.push_str(&declared(btf, *ty, name));
            parameters.push(Span::new(start, text.len()));
        }
        text.push(')');
        let types: Option<Vec<CType>> = kfunc.params.iter().map(|(_, ty)| c_type(btf, *ty, MOST_POINTERS)).collect();
        let function = types.filter(|types| types.len() <= MOST_PARAMETERS).and_then(|parameters| {
            Some(bpf::Kfunc { name: kfunc.name.clone(), parameters, result: c_type(btf, kfunc.result, MOST_POINTERS)? })
        });
        Prototype { text, parameters, function }
    }

    /// As a program calls it; none where it has parameters that no program can pass.
    pub fn callable(&self) -> Option<bpf::Kfunc> {
        self.function.clone()
    }

    /// The prototype, and under it marks below one parameter.
    pub fn underlined(&self, parameter: usize) -> [String; 2] {
        let Some(span) = self.parameters.get(parameter) else { return [self.text.clone(), String::new()] };
        let marks = "^".repeat((span.end - span.start) as usize);
        [self.text.clone(), format!("{}{marks}", " ".repeat(span.start as usize))]
    }
}

/// The structure that the type is a pointer to.
pub fn points_to_structure(btf: &Btf, ty: TypeId) -> Option<TypeId> {
    let Kind::Pointer(to) = btf.kind(btf.strip(ty).id) else { return None };
    let id = btf.strip(to).id;
    matches!(btf.kind(id), Kind::Struct { .. } | Kind::Union { .. } | Kind::Forward { .. }).then_some(id)
}

fn declared(btf: &Btf, ty: TypeId, name: &str) -> String {
    let ty = btf.c_name(ty);
    let space = if ty.ends_with('*') { "" } else { " " };
    format!("{ty}{space}{name}")
}

fn c_type(btf: &Btf, ty: TypeId, pointers: u32) -> Option<CType> {
    Some(match btf.kind(btf.strip(ty).id) {
        Kind::Void => CType::Void,
        Kind::Int { bool: true, .. } => CType::Bool,
        Kind::Int { bytes: bytes @ 1..=8, signed, .. } => CType::Int { bytes: bytes as u8, signed },
        Kind::Enum { name, .. } => CType::Enum(name),
        Kind::Struct { name, .. } => CType::Struct(name),
        Kind::Union { name, .. } => CType::Union(name),
        Kind::Forward { name, union: false } => CType::Forward(name),
        Kind::Pointer(to) if pointers > 0 => CType::Pointer(Box::new(c_type(btf, to, pointers - 1)?)),
        _ => return None,
    })
}
