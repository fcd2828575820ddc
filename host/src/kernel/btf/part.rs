//! Types as btf-rs reads them, and as we have them.

use btf_rs::{BtfType, Type};

use super::{Kind, TypeId};

/// The kernel's own types, or with them what one module adds.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    pub types: &'a btf_rs::Btf,
    pub module: Option<usize>,
}

impl Part<'_> {
    pub fn name(self, named: &dyn BtfType) -> String {
        self.types.resolve_name(named).unwrap_or_default()
    }

    pub fn name_of(self, ty: &Type) -> String {
        ty.as_btf_type().map(|ty| self.name(ty)).unwrap_or_default()
    }

    pub fn id(self, number: u32) -> TypeId {
        match self.module {
            Some(module) if number > self.types.base().type_id_range().1 => TypeId::of_module(module, number),
            _ => TypeId(number),
        }
    }

    /// The id that a type refers to.
    pub fn target(self, ty: &dyn BtfType) -> TypeId {
        ty.get_type_id().map_or(TypeId::VOID, |number| self.id(number))
    }

    /// The type as [`Kind`] has it.
    pub fn kind(self, ty: Type) -> Kind {
        let name = self.name_of(&ty);
        match ty {
            Type::Void => Kind::Void,
            Type::Int(int) => Kind::Int {
                // Of BTF's encodings, pahole writes `char` for no type, so the name tells.
                char: int.is_char() || name == "char",
                bytes: size(int.size()),
                signed: int.is_signed(),
                bool: int.is_bool(),
                name,
            },
            Type::Ptr(ty) => Kind::Pointer(self.target(&ty)),
            Type::Array(array) => Kind::Array { element: self.target(&array), count: size(array.len()) },
            Type::Struct(ty) => Kind::Struct { name, bytes: size(ty.size()) },
            Type::Union(ty) => Kind::Union { name, bytes: size(ty.size()) },
            Type::Enum(ty) => {
                let value = |value: u32| if ty.is_signed() { i64::from(value.cast_signed()) } else { i64::from(value) };
                let values = ty.members.iter().map(|member| (self.name(member), value(member.val()))).collect();
                Kind::Enum { name, bytes: size(ty.size()), signed: ty.is_signed(), values }
            }
            Type::Enum64(ty) => {
                let values = ty.members.iter().map(|member| (self.name(member), member.val().cast_signed())).collect();
                Kind::Enum { name, bytes: size(ty.size()), signed: ty.is_signed(), values }
            }
            Type::Fwd(fwd) => Kind::Forward { name, union: fwd.is_union() },
            Type::Typedef(ty) => Kind::Typedef { name, to: self.target(&ty) },
            Type::Const(ty) => Kind::Const(self.target(&ty)),
            Type::Volatile(ty) => Kind::Volatile(self.target(&ty)),
            Type::Restrict(ty) => Kind::Restrict(self.target(&ty)),
            Type::TypeTag(ty) => Kind::TypeTag { name, to: self.target(&ty) },
            Type::Func(ty) => Kind::Function { name, proto: self.target(&ty) },
            Type::FuncProto(ty) => {
                let params = ty.parameters.iter().map(|param| (self.name(param), self.target(param))).collect();
                Kind::Prototype { params, result: self.id(ty.return_type_id()) }
            }
            Type::Float(ty) => Kind::Float { bytes: size(ty.size()) },
            Type::Var(ty) => Kind::Variable { name, ty: self.target(&ty) },
            Type::Datasec(section) => {
                let variables = section.variables.iter().map(|variable| (self.target(variable), variable.offset()));
                Kind::Section { variables: variables.collect(), name }
            }
            _ => Kind::Other,
        }
    }
}

/// Sizes and counts are 32 bits wide in BTF; btf-rs widens them.
pub fn size(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
