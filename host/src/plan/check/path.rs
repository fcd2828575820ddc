//! `path(…)`: where a file is, from the root of the file systems.

use super::super::bounds::PATH_DEFAULT;
use super::super::diagnostic::{Fault, Span};
use super::super::node::{Directories, Mounts};
use super::super::syntax::Expr;
use super::super::{Node, NodeKind, Origin, Target, Type};
use super::places::{address, is_passed, walked_from};
use super::{Checked, Checker, Walk, one};
use crate::kernel::{Btf, TypeId};

impl Checker<'_> {
    /// `path(file)` and `path(file, n)`.
    pub(super) fn path(&self, arguments: &[Expr], span: Span) -> Checked<Node> {
        let (of, max) = match arguments {
            [of] => (of, PATH_DEFAULT),
            [of, max] => (of, self.most_bytes(max)?),
            _ => return Err(one(Fault::new(span, "`path` takes a file, and perhaps a number of bytes"))),
        };
        if self.is_in_walk() {
            // A loop of many steps in each step of a loop: the verifier follows no more than 8192 branches.
            let fault =
                Fault::new(span, "`path` cannot stand within a walk: it is a walk of its own, up the directories");
            return Err(one(fault.help(
                "where one object is meant, around it: `path(first(vmas(task), v, v.vm_start < 4096, v).vm_file)`",
            )));
        }
        let btf = self.btf(span)?;
        let (base, id, offset, origin) = match self.walk(of)? {
            Walk::Place { base, origin, offset, ty, bits: None } if is_one_of_them(btf, ty) => {
                if is_passed(&base) {
                    return Err(one(Fault::new(of.span, "this is passed in registers, and lies nowhere in memory")));
                }
                (base, btf.strip(ty).id, offset, origin)
            }
            walk => {
                let node = self.finish(walk, of.span)?;
                match node.ty {
                    Type::Pointer { target: Target::Type(id), origin } if is_one_of_them(btf, id) => {
                        (node, id, 0, origin)
                    }
                    ref ty => {
                        let message = format!("`path` takes a file, and this is {}", self.shown(ty));
                        return Err(one(Fault::new(of.span, message).help(TAKES)));
                    }
                }
            }
        };
        if origin == Origin::User {
            return Err(one(Fault::new(
                of.span,
                "`path` takes what the kernel has of a file, and this lies in the process's memory",
            )
            .help("`kernel(pointer)` is the same address in the kernel's memory")));
        }
        let lacks = || one(Fault::new(span, "this kernel's BTF does not tell how its directories are linked"));
        let (inside, way) = way(btf, id).ok_or_else(lacks)?;
        let at = match offset + inside {
            // A pointer as it is may be null; what lies in a structure is not.
            0 => base,
            offset => address(base, offset, walked_from(origin), of.span),
        };
        Ok(Node { kind: NodeKind::Path { at: Box::new(at), way }, ty: Type::Text { max }, span })
    }
}

/// The structures that have a path.
const OF_FILES: [&str; 3] = ["file", "path", "dentry"];
const TAKES: &str = "it takes a `struct file *`, a `struct path` such as `file.f_path`, or a `struct dentry *`";

fn is_one_of_them(btf: &Btf, ty: TypeId) -> bool {
    let id = Some(btf.strip(ty).id);
    OF_FILES.iter().any(|name| btf.structure(name) == id)
}

/// How to walk from such a structure, and how many bytes in it lies where the walk begins.
fn way(btf: &Btf, id: TypeId) -> Option<(u32, Directories)> {
    let of = |structure: &str, path: &[&str]| {
        let (mut id, mut bits) = (btf.structure(structure)?, 0);
        for name in path {
            let member = btf.member(id, name)?;
            (id, bits) = (btf.strip(member.ty).id, bits + member.bit_offset);
        }
        Some(bits / 8)
    };
    let mut way =
        Directories { parent: of("dentry", &["d_parent"])?, name: of("dentry", &["d_name", "name"])?, mounts: None };
    if Some(id) == btf.structure("dentry") {
        return Some((0, way));
    }
    let inside = of("mount", &["mnt"])?;
    let from_inside = |name| Some(of("mount", &[name])? as i32 - inside as i32);
    way.mounts = Some(Mounts {
        mount: of("path", &["mnt"])?,
        dentry: of("path", &["dentry"])?,
        root: of("vfsmount", &["mnt_root"])?,
        inside,
        outer: from_inside("mnt_parent")?,
        point: from_inside("mnt_mountpoint")?,
    });
    let first = if Some(id) == btf.structure("file") { of("file", &["f_path"])? } else { 0 };
    Some((first, way))
}
