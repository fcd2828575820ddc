//! Types as C writes them.

use super::{Btf, Kind, MAX_DEPTH, TypeId};

impl Btf {
    /// Name and C declaration of a function, with the names of its parameters; none where it is no function.
    pub fn prototype(&self, function: TypeId) -> Option<(String, String)> {
        let Kind::Function { name, proto } = self.kind(function) else { return None };
        let Kind::Prototype { params, result } = self.kind(proto) else { return None };
        let declared = |(name, ty): &(String, TypeId)| match (name.as_str(), *ty) {
            ("", TypeId::VOID) => "...".to_owned(),
            _ => self.declare(*ty, name.clone(), 0),
        };
        let params = params.iter().map(declared).collect::<Vec<_>>().join(", ");
        let declarator = format!("{name}({})", if params.is_empty() { "void" } else { &params });
        let declared = self.declare(result, declarator, 0);
        Some((name, declared))
    }

    /// The type as C writes it without a variable: `struct task_struct *`, `unsigned int`, `char[16]`,
    /// `int (*)(struct file *)`.
    pub fn c_name(&self, id: TypeId) -> String {
        self.declare(id, String::new(), 0)
    }

    /// Writes the type round a declarator, as C does: from the name outwards. The declarator of a type alone is empty.
    fn declare(&self, id: TypeId, declarator: String, depth: u32) -> String {
        if depth > MAX_DEPTH {
            return "…".to_owned();
        }
        let outwards = |id, declarator| self.declare(id, declarator, depth + 1);
        match self.kind(id) {
            Kind::Void => joined("void", &declarator),
            Kind::Int { name, .. } | Kind::Typedef { name, .. } => joined(&name, &declarator),
            Kind::Struct { name, .. } | Kind::Forward { name, union: false } => {
                joined(&tagged("struct", &name), &declarator)
            }
            Kind::Union { name, .. } | Kind::Forward { name, union: true } => {
                joined(&tagged("union", &name), &declarator)
            }
            Kind::Enum { name, .. } => joined(&tagged("enum", &name), &declarator),
            Kind::Float { bytes } => joined(if bytes == 4 { "float" } else { "double" }, &declarator),
            Kind::Pointer(to) => {
                let pointer = format!("*{declarator}");
                let binds_tighter = matches!(self.kind(to), Kind::Array { .. } | Kind::Prototype { .. });
                outwards(to, if binds_tighter { format!("({pointer})") } else { pointer })
            }
            Kind::Array { element, count } => outwards(element, format!("{declarator}[{count}]")),
            Kind::Prototype { params, result } => {
                let params = params.iter().map(|&(ref name, ty)| self.parameter(name, ty, depth)).collect::<Vec<_>>();
                let params = if params.is_empty() { "void".to_owned() } else { params.join(", ") };
                outwards(result, format!("{declarator}({params})"))
            }
            Kind::Const(to) => self.qualified("const", to, declarator, depth),
            Kind::Volatile(to) => self.qualified("volatile", to, declarator, depth),
            Kind::Restrict(to) => self.qualified("restrict", to, declarator, depth),
            Kind::TypeTag { name, to } => outwards(to, joined(&format!("__{name}"), &declarator)),
            Kind::Function { name, proto } => outwards(proto, name),
            Kind::Variable { name, ty } => outwards(ty, name),
            Kind::Section { .. } | Kind::Other => joined("?", &declarator),
        }
    }

    /// A qualifier of a pointer stands behind its star; any other in front of the type.
    fn qualified(&self, qualifier: &str, to: TypeId, declarator: String, depth: u32) -> String {
        if matches!(self.kind(to), Kind::Pointer(_)) {
            return self.declare(to, joined(qualifier, &declarator), depth + 1);
        }
        format!("{qualifier} {}", self.declare(to, declarator, depth + 1))
    }

    fn parameter(&self, name: &str, ty: TypeId, depth: u32) -> String {
        if name.is_empty() && ty == TypeId::VOID {
            "...".to_owned()
        } else {
            self.declare(ty, String::new(), depth + 1)
        }
    }
}

fn tagged(keyword: &str, name: &str) -> String {
    if name.is_empty() { format!("{keyword} (anonymous)") } else { format!("{keyword} {name}") }
}

/// A type's word and its declarator; only an array's brackets stand close.
fn joined(word: &str, declarator: &str) -> String {
    let space = if declarator.is_empty() || declarator.starts_with('[') { "" } else { " " };
    format!("{word}{space}{declarator}")
}
