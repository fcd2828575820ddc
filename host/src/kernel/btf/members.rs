//! Where the members of structures and unions lie.

use std::collections::HashMap;
use std::sync::Arc;

use btf_rs::Type;

use super::{Btf, Kind, MAX_DEPTH, Part, TypeId};

/// A member as its struct or union lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Empty for an anonymous struct or union.
    pub name: String,
    pub ty: TypeId,
    /// Bits from the start of the struct that lists it.
    pub bit_offset: u32,
    /// Bits, for a bit field.
    pub bit_size: Option<u32>,
}

/// Where a member lies, anonymous structs and unions looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberAt {
    pub ty: TypeId,
    /// Bits from the start of the outer struct.
    pub bit_offset: u32,
    /// Bits, for a bit field.
    pub bit_size: Option<u32>,
    /// Whether it shares its bytes with others, as a member of a union.
    pub in_union: bool,
}

/// Where the members of a struct or union lie, by name, those of anonymous members among them.
pub(super) type Members = HashMap<String, MemberAt>;

impl Btf {
    /// The structure that a structure begins with, where it begins with one.
    pub fn first_member(&self, id: TypeId) -> Option<TypeId> {
        let first = self.members_behind(id).into_iter().next().filter(|member| member.bit_offset == 0)?;
        let id = self.strip(first.ty).id;
        matches!(self.kind(id), Kind::Struct { .. }).then_some(id)
    }

    /// The members of a struct or union by name, in order; those of anonymous members in their place. Empty for other
    /// types.
    pub fn member_names(&self, id: TypeId) -> Vec<String> {
        let mut names = Vec::new();
        self.collect_member_names(id, &mut names, 0);
        names
    }

    /// The member `name` of a struct or union (or of a typedef of one), also where it is a member of an anonymous
    /// member.
    pub fn member(&self, structure: TypeId, name: &str) -> Option<MemberAt> {
        let id = self.strip(structure).id;
        let found = self.known().members.get(&id).cloned();
        let members = found.unwrap_or_else(|| {
            let mut members = Members::new();
            let whole = MemberAt { ty: id, bit_offset: 0, bit_size: None, in_union: false };
            self.collect_members(id, whole, &mut members, 0);
            let members = Arc::new(members);
            self.known().members.insert(id, Arc::clone(&members));
            members
        });
        members.get(name).copied()
    }

    pub(super) fn members_behind(&self, id: TypeId) -> Vec<Member> {
        match self.resolve(self.strip(id).id) {
            Some((part, Type::Struct(ty) | Type::Union(ty))) => members_of(part, &ty),
            _ => Vec::new(),
        }
    }

    /// Adds the members of `id`, which lies at `outer` in the struct that is asked about. Where a name occurs twice,
    /// which C does not allow, the first counts.
    fn collect_members(&self, id: TypeId, outer: MemberAt, members: &mut Members, depth: u32) {
        if depth > MAX_DEPTH {
            return;
        }
        let (part, ty, union) = match self.resolve(id) {
            Some((part, Type::Struct(ty))) => (part, ty, false),
            Some((part, Type::Union(ty))) => (part, ty, true),
            _ => return,
        };
        let in_union = outer.in_union || union;
        for Member { name, ty, bit_offset, bit_size } in members_of(part, &ty) {
            let Some(bit_offset) = outer.bit_offset.checked_add(bit_offset) else { continue };
            let at = MemberAt { ty, bit_offset, bit_size, in_union };
            if name.is_empty() {
                self.collect_members(self.strip(ty).id, at, members, depth + 1);
            } else {
                members.entry(name).or_insert(at);
            }
        }
    }

    fn collect_member_names(&self, id: TypeId, names: &mut Vec<String>, depth: u32) {
        if depth > MAX_DEPTH {
            return;
        }
        for member in self.members_behind(id) {
            if member.name.is_empty() {
                self.collect_member_names(member.ty, names, depth + 1);
            } else {
                names.push(member.name);
            }
        }
    }
}

fn members_of(part: Part<'_>, structure: &btf_rs::Struct) -> Vec<Member> {
    let member = |member: &btf_rs::Member| Member {
        name: part.name(member),
        ty: part.target(member),
        bit_offset: member.bit_offset(),
        // Where a struct has bit fields, its other members have size 0.
        bit_size: member.bitfield_size().filter(|&bits| bits > 0),
    };
    structure.members.iter().map(member).collect()
}

pub(super) fn has_members(ty: &Type) -> bool {
    matches!(ty, Type::Struct(ty) | Type::Union(ty) if !ty.members.is_empty())
}
