//! Addresses of networks: `ntop` and `mac`, and their comparison with addresses in quotes.

use std::net::IpAddr;

use super::super::arithmetic::Op;
use super::super::diagnostic::{Fault, Span};
use super::super::layout;
use super::super::syntax::Expr;
use super::super::{Access, Form, Node, NodeKind, Target, Type};
use super::bytes::{Lies, Stretch};
use super::{Checked, Checker, both, one};
use crate::kernel::{Kind, TypeId};

/// Numbers of address families (include/linux/socket.h).
pub const AF_INET: i64 = 2;
pub const AF_INET6: i64 = 10;

const V4_BYTES: u32 = 4;
const V6_BYTES: u32 = 16;
const MAC_BYTES: u32 = 6;

impl Checker<'_> {
    /// `ntop(address)`, `ntop(family, address)`
    pub(super) fn ntop(&self, arguments: &[Expr], span: Span) -> Checked<Node> {
        match arguments {
            [address] => self.ip(address, span),
            [family, address] => self.ip_of_family(family, address, span),
            _ => {
                let fault = Fault::new(span, "`ntop` takes an address, or a family and an address");
                Err(one(fault.help("`ntop(sk.__sk_common.skc_daddr)`, `ntop(AF_INET6, pointer)`")))
            }
        }
    }

    /// What the address's own type tells the family of.
    fn ip(&self, address: &Expr, span: Span) -> Checked<Node> {
        match self.lies(address)? {
            Lies::There(there) => {
                let form = match (self.holds_address(&there), there.size) {
                    (true, Some(V4_BYTES)) => Form::V4,
                    (true, Some(V6_BYTES)) => Form::V6,
                    _ => {
                        let fault = Fault::new(address.span, "this is no IP address, which has 4 or 16 bytes");
                        return Err(one(fault.help("name the family: `ntop(AF_INET, …)`, `ntop(AF_INET6, …)`")));
                    }
                };
                Ok(octets(there.pointer, there.access, form, Type::Ip, span))
            }
            Lies::Value(value) => match value.ty {
                Type::Integer { bytes: 4 | 8, .. } => Ok(ipv4(value, span)),
                Type::Integer { .. } => {
                    let message = format!("an IPv4 address has 4 bytes, and this is {}", self.shown(&value.ty));
                    Err(one(Fault::new(address.span, message)))
                }
                Type::Pointer { ref target, .. } => match (self.pointed_address(target), self.read_through(&value)) {
                    (Some(form), Some(access)) => Ok(octets(value, access, form, Type::Ip, span)),
                    _ => {
                        let fault =
                            Fault::new(address.span, "which kind of address the pointer points to is not known");
                        Err(one(fault.help("name the family: `ntop(AF_INET, …)`, `ntop(AF_INET6, …)`")))
                    }
                },
                ref ty => {
                    let message = format!("`ntop` takes an IP address, and this is {}", self.shown(ty));
                    Err(one(Fault::new(address.span, message)))
                }
            },
        }
    }

    fn ip_of_family(&self, family: &Expr, address: &Expr, span: Span) -> Checked<Node> {
        let at = family.span;
        let (family, lies) = both(self.integer(family), self.lies(address))?;
        let (form, bytes) = match family.kind {
            NodeKind::Constant(AF_INET) => (Form::V4, V4_BYTES),
            NodeKind::Constant(AF_INET6) => (Form::V6, V6_BYTES),
            NodeKind::Constant(_) => {
                return Err(one(Fault::new(at, "the family of an IP address is `AF_INET` or `AF_INET6`")));
            }
            _ => (Form::Family(Box::new(family)), V6_BYTES),
        };
        match lies {
            Lies::There(Stretch { size: Some(size), .. }) if size < bytes => {
                let message = format!("only {size} bytes lie there, and such an address has {bytes}");
                Err(one(Fault::new(address.span, message)))
            }
            Lies::There(there) => Ok(octets(there.pointer, there.access, form, Type::Ip, span)),
            Lies::Value(value) => match (self.read_through(&value), &value.ty) {
                (Some(access), _) => Ok(octets(value, access, form, Type::Ip, span)),
                (None, Type::Integer { bytes: 4 | 8, .. }) if form == Form::V4 => Ok(ipv4(value, span)),
                (None, ty) => {
                    let message = format!("`ntop` takes a pointer to such an address, and this is {}", self.shown(ty));
                    Err(one(Fault::new(address.span, message)))
                }
            },
        }
    }

    /// `mac(address)`
    pub(super) fn mac(&self, arguments: &[Expr], span: Span) -> Checked<Node> {
        let [address] = arguments else {
            return Err(one(Fault::new(span, "`mac` takes a pointer to 6 bytes, or an array of as many")));
        };
        match self.lies(address)? {
            Lies::There(there) if self.is_array(&there) && there.size.is_none_or(|size| size >= MAC_BYTES) => {
                Ok(octets(there.pointer, there.access, Form::Mac, Type::Mac, span))
            }
            Lies::There(_) => {
                let fault = Fault::new(address.span, "this is no hardware address, which is an array of 6 bytes");
                Err(one(fault.help("pick a field, or take the address of what it lies in: `mac(&…)`")))
            }
            Lies::Value(value) => match self.read_through(&value) {
                Some(access) => Ok(octets(value, access, Form::Mac, Type::Mac, span)),
                None => {
                    let message = format!("`mac` takes a pointer to 6 bytes, and this is {}", self.shown(&value.ty));
                    Err(one(Fault::new(address.span, message)))
                }
            },
        }
    }

    /// Whether this is an array of integers, or a structure that is an IP address.
    fn holds_address(&self, there: &Stretch) -> bool {
        self.is_array(there) || there.ty.is_some_and(|id| self.address_structure(id).is_some())
    }

    /// Whether this is an array of integers. What is of no type of BTF's is a tracepoint's.
    fn is_array(&self, there: &Stretch) -> bool {
        let Some((id, btf)) = there.ty.zip(self.facts.btf().ok()) else { return true };
        match btf.kind(id) {
            Kind::Array { element, .. } => matches!(btf.kind(btf.strip(element).id), Kind::Int { .. }),
            _ => false,
        }
    }

    fn pointed_address(&self, target: &Target) -> Option<Form> {
        if let Target::Type(id) = target { self.address_structure(*id) } else { None }
    }

    /// The kind of address that a structure of the kernel's is.
    fn address_structure(&self, id: TypeId) -> Option<Form> {
        match self.facts.btf().ok()?.kind(id) {
            Kind::Struct { name, bytes: V4_BYTES, .. } if name == "in_addr" => Some(Form::V4),
            Kind::Struct { name, bytes: V6_BYTES, .. } if name == "in6_addr" => Some(Form::V6),
            _ => None,
        }
    }

    /// `address == "text"`, either way round, and two addresses; none where neither side is one.
    pub(super) fn addresses_compared(
        &self,
        op: Op,
        at: Span,
        left: &Node,
        right: &Node,
        span: Span,
    ) -> Option<Checked<Node>> {
        let (address, with) = match (left.ty.is_octets(), right.ty.is_octets()) {
            (true, _) => (left, right),
            (false, true) => (right, left),
            (false, false) => return None,
        };
        let shown = self.shown(&address.ty);
        if !op.is_comparison() {
            return Some(Err(one(Fault::new(at, format!("{shown} cannot be computed with")))));
        }
        if !matches!(op, Op::Equal | Op::NotEqual) {
            return Some(Err(one(Fault::new(at, format!("{shown} can be compared by `==` and `!=` only")))));
        }
        let same = match &with.kind {
            NodeKind::Literal(text) if !with.ty.is_octets() => {
                self.within_addresses(address, &[(text, with.span)], span)
            }
            _ if with.ty == address.ty => {
                let kind = NodeKind::SameOctets(Box::new(address.clone()), Box::new(with.clone()));
                Ok(Node { kind, ty: Type::Boolean, span })
            }
            _ => {
                let fault = Fault::new(at, format!("{shown} cannot be compared with {}", self.shown(&with.ty)));
                Err(one(fault.help(example(&address.ty))))
            }
        };
        Some(same.map(|same| match op {
            Op::Equal => same,
            _ => Node { kind: NodeKind::Not(Box::new(same)), ty: Type::Boolean, span },
        }))
    }

    /// Whether an address is one of those that these texts are.
    pub(super) fn within_addresses(&self, address: &Node, texts: &[(&Vec<u8>, Span)], span: Span) -> Checked<Node> {
        let (mut set, mut faults) = (Vec::new(), Vec::new());
        for (text, at) in texts {
            match read(&address.ty, text) {
                Some(bytes) => set.push(bytes),
                None => {
                    let text = String::from_utf8_lossy(text);
                    let fault = Fault::new(*at, format!("`{text}` is not {}", self.shown(&address.ty)));
                    faults.push(fault.help(example(&address.ty)));
                }
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let kind = NodeKind::OctetsIn { value: Box::new(address.clone()), set };
        Ok(Node { kind, ty: Type::Boolean, span })
    }
}

fn example(ty: &Type) -> &'static str {
    match ty {
        Type::Mac => "a hardware address to compare with is in quotes: `… == \"52:54:00:12:34:56\"`",
        _ => "an address to compare with is in quotes: `… == \"192.0.2.1\"`, `… == \"2001:db8::1\"`",
    }
}

/// The address in a text, as it stands in a record.
fn read(ty: &Type, text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    if *ty == Type::Mac {
        let parts: Vec<&str> = text.split(':').collect();
        let byte = |part: &&str| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok()).flatten();
        let bytes: Vec<u8> = parts.iter().filter_map(byte).collect();
        return (parts.len() == 6 && bytes.len() == 6).then_some(bytes);
    }
    let (kind, octets) = match text.parse().ok()? {
        IpAddr::V4(address) => (layout::V4, address.octets().to_vec()),
        IpAddr::V6(address) => (layout::V6, address.octets().to_vec()),
    };
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend(octets);
    bytes.resize((4 + V6_BYTES) as usize, 0);
    Some(bytes)
}

fn ipv4(value: Node, span: Span) -> Node {
    Node { kind: NodeKind::Ipv4(Box::new(value)), ty: Type::Ip, span }
}

fn octets(pointer: Node, access: Access, form: Form, ty: Type, span: Span) -> Node {
    Node { kind: NodeKind::Octets { pointer: Box::new(pointer), access, form }, ty, span }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_quotes() {
        let v4 = read(&Type::Ip, b"192.0.2.1").unwrap();
        assert_eq!(v4, [4, 0, 0, 0, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let v6 = read(&Type::Ip, b"2001:db8::1").unwrap();
        assert_eq!(v6, [6, 0, 0, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(read(&Type::Mac, b"52:54:00:Ab:cd:ef").unwrap(), [0x52, 0x54, 0, 0xab, 0xcd, 0xef]);
        for bad in ["", "1.2.3", "1.2.3.256", "01.2.3.4", "::g", "1:2:3:4:5:6", "localhost", "10.0.0.0/8"] {
            assert_eq!(read(&Type::Ip, bad.as_bytes()), None, "{bad}");
        }
        for bad in
            ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "52:54:0:12:34:56", "+2:54:00:12:34:5g", "525400123456"]
        {
            assert_eq!(read(&Type::Mac, bad.as_bytes()), None, "{bad}");
        }
    }
}
