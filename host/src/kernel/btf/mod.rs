//! The kernel's types, from its BTF (<https://docs.kernel.org/bpf/btf.html>).
//!
//! btf-rs reads the types, out of a mapping of the file; [`NameIndex`] finds them by name. btf-rs's own types stay
//! inside: others see [`TypeId`] and [`Kind`].

mod c_name;
mod members;
mod modules;
mod name_index;
mod part;
mod types;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Bound;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use btf_rs::{Backend, Type};
use memmap2::{Mmap, MmapOptions};
use rustix::fs::MemfdFlags;

use super::FactError;
pub use members::MemberAt;
use members::{Members, has_members};
use modules::Module;
use name_index::NameIndex;
use part::Part;
pub use types::{Kind, Stripped, Tags, TypeId};

/// No chain of typedefs, qualifiers and anonymous members is this deep in C; a longer one is a loop in damaged BTF.
const MAX_DEPTH: u32 = 64;

/// A kernel's types. Ids and names that it does not know are answered, never panicked on.
///
/// Those of its modules are among them, each read when it is first asked for. Names are looked up in the kernel's own,
/// unless it is said otherwise.
pub struct Btf {
    types: btf_rs::Btf,
    names: NameIndex,
    /// The folder in which there is a file for each module; none: there are none.
    folder: Option<PathBuf>,
    modules: OnceLock<Vec<Module>>,
    /// Read on first use.
    enumerators: OnceLock<Enumerators>,
    /// Those of modules.
    more_enumerators: OnceLock<Enumerators>,
    /// Names of structures, unions and enumerations; read on first use.
    tags: OnceLock<BTreeSet<String>>,
    known: Mutex<Known>,
}

/// What has been asked about structs and unions. Walks ask about the same few again and again, and to read one is to
/// read all its members: `task_struct` has 250.
#[derive(Default)]
struct Known {
    structures: HashMap<String, TypeId>,
    kinds: HashMap<TypeId, Kind>,
    members: HashMap<TypeId, Arc<Members>>,
}

/// The enumerations that have a constant of that name, and its value there.
type Enumerators = BTreeMap<String, Vec<(TypeId, i64)>>;

impl Btf {
    /// Opens a file of stand-alone BTF. About 5 ms for a kernel's: its types are counted and its names indexed, nothing
    /// else is read.
    pub fn from_file(path: &Path) -> Result<Btf, FactError> {
        let missing = |source: io::Error| FactError::NoBtf { path: path.to_path_buf(), source: Arc::new(source) };
        match map(&File::open(path).map_err(missing)?) {
            Ok(bytes) => Btf::open(path, path, &bytes),
            // The kernel's BTF can be mapped from 6.16 on (btf_sysfs_vmlinux_mmap in kernel/bpf/sysfs_btf.c).
            Err(_) => Btf::from_copy(&fs::read(path).map_err(missing)?, path),
        }
    }

    /// With what modules add to them: the files beside the kernel's own, each by its module's name.
    pub fn with_modules_beside(self, path: &Path) -> Btf {
        Btf { folder: path.parent().map(Path::to_path_buf), ..self }
    }

    /// As [`Btf::from_file`], for stand-alone BTF in memory.
    pub fn from_bytes(bytes: &[u8]) -> Result<Btf, FactError> {
        Btf::from_copy(bytes, Path::new("(memory)"))
    }

    /// All types of that name, of whatever kind, in ascending order. About a microsecond.
    pub fn find(&self, name: &str) -> Vec<TypeId> {
        if name.is_empty() {
            return Vec::new();
        }
        let named = |&id: &TypeId| self.resolve(id).is_some_and(|(part, ty)| part.name_of(&ty) == name);
        self.names.candidates(name).map(TypeId).filter(named).collect()
    }

    /// `struct name`: one with members if there is one, the kernel's own before a module's; else one without or its
    /// forward declaration.
    pub fn structure(&self, name: &str) -> Option<TypeId> {
        if let Some(known) = self.known().structures.get(name) {
            return Some(*known);
        }
        let found = self.composite(
            name,
            |ty| matches!(ty, Type::Struct(_)),
            |ty| matches!(ty, Type::Fwd(fwd) if fwd.is_struct()),
        );
        if let Some(id) = found {
            self.known().structures.insert(name.to_owned(), id);
        }
        found
    }

    /// `union name`, chosen as [`Btf::structure`] does.
    pub fn union(&self, name: &str) -> Option<TypeId> {
        self.composite(name, |ty| matches!(ty, Type::Union(_)), |ty| matches!(ty, Type::Fwd(fwd) if fwd.is_union()))
    }

    /// `enum name`; a module's, where the kernel itself has none.
    pub fn enumeration(&self, name: &str) -> Option<TypeId> {
        self.first_anywhere(name, |ty| matches!(ty, Type::Enum(_) | Type::Enum64(_)))
    }

    /// The enumerations that have a constant of that name, in ascending order, and its value there; those of modules
    /// where the kernel itself has none. The first call reads all of them (some 10 ms).
    pub fn enumerators(&self, name: &str) -> &[(TypeId, i64)] {
        let in_modules = || {
            self.more_enumerators.get_or_init(|| {
                let types = (0..self.modules().len()).filter_map(|module| self.module_types(module));
                let mut ids: Vec<TypeId> = types.flat_map(|types| types.enumerations.iter().copied()).collect();
                ids.sort_unstable();
                self.enumerators_of(ids)
            })
        };
        self.all_enumerators().get(name).or_else(|| in_modules().get(name)).map_or(&[], Vec::as_slice)
    }

    /// The names of constants that begin so.
    pub fn enumerators_from<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let from = self.all_enumerators().range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.map(|(name, _)| name.as_str()).take_while(move |name| name.starts_with(prefix))
    }

    /// The names of structures, unions and enumerations that begin so. The first call reads all types (about 10 ms).
    pub fn tags_from<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let tagged = |ty: &Type| matches!(ty, Type::Struct(_) | Type::Union(_) | Type::Enum(_) | Type::Enum64(_));
        let all = self.tags.get_or_init(|| self.names_where("", tagged).into_iter().collect());
        let from = all.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.map(String::as_str).filter(|name| !name.is_empty()).take_while(move |name| name.starts_with(prefix))
    }

    fn all_enumerators(&self) -> &Enumerators {
        self.enumerators.get_or_init(|| self.enumerators_of(self.names.enumerations().iter().copied().map(TypeId)))
    }

    fn enumerators_of(&self, ids: impl IntoIterator<Item = TypeId>) -> Enumerators {
        let mut all = Enumerators::new();
        for id in ids {
            if let Kind::Enum { values, .. } = self.kind(id) {
                values.into_iter().for_each(|(name, value)| all.entry(name).or_default().push((id, value)));
            }
        }
        all
    }

    /// The integer type `name`, as DWARF spells it: `unsigned int`, `long int`, `_Bool`.
    pub fn integer(&self, name: &str) -> Option<TypeId> {
        self.first(name, |ty| matches!(ty, Type::Int(_)))
    }

    /// The typedef `name`; a module's, where the kernel itself has none.
    pub fn typedef(&self, name: &str) -> Option<TypeId> {
        self.first_anywhere(name, |ty| matches!(ty, Type::Typedef(_)))
    }

    /// The function `name`.
    pub fn function(&self, name: &str) -> Option<TypeId> {
        self.first(name, |ty| matches!(ty, Type::Func(_)))
    }

    /// What declaration tags of that name stand on, in ascending order: functions, types or variables, not their
    /// members or arguments.
    pub(super) fn tagged(&self, tag: &str) -> Vec<TypeId> {
        let mut tagged: Vec<_> = self.find(tag).into_iter().filter_map(|id| self.tagged_by(id, tag)).collect();
        tagged.sort_unstable();
        tagged
    }

    fn tagged_by(&self, id: TypeId, tag: &str) -> Option<TypeId> {
        match self.resolve(id)? {
            (part, Type::DeclTag(ty)) if ty.component_index().is_none() && part.name(&ty) == tag => {
                Some(part.target(&ty))
            }
            _ => None,
        }
    }

    /// What type this is, exactly: nothing is skipped. The members of a struct or union are asked for one by one, by
    /// [`Btf::member`].
    pub fn kind(&self, id: TypeId) -> Kind {
        if let Some(known) = self.known().kinds.get(&id) {
            return known.clone();
        }
        let kind = self.resolve(id).map_or(Kind::Other, |(part, ty)| part.kind(ty));
        if let Kind::Struct { .. } | Kind::Union { .. } = kind {
            self.known().kinds.insert(id, kind.clone());
        }
        kind
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // A panic elsewhere cannot leave it half-written: each insertion is one call.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The type behind typedefs, `const`, `volatile`, `restrict` and type tags.
    pub fn strip(&self, mut id: TypeId) -> Stripped {
        let mut tags = Tags::default();
        for _ in 0..MAX_DEPTH {
            if self.known().kinds.contains_key(&id) {
                break;
            }
            let Some((part, ty)) = self.resolve(id) else { break };
            id = match ty {
                Type::Typedef(ty) => part.target(&ty),
                Type::Const(ty) | Type::Volatile(ty) | Type::Restrict(ty) => part.target(&ty),
                Type::TypeTag(ty) => {
                    tags.add(&part.name(&ty));
                    part.target(&ty)
                }
                _ => break,
            }
        }
        Stripped { id, tags }
    }

    /// The name of a structure, union or enumeration, without the word in front of it; empty where it has none.
    pub fn tag(&self, id: TypeId) -> String {
        match self.kind(id) {
            Kind::Struct { name, .. }
            | Kind::Union { name, .. }
            | Kind::Enum { name, .. }
            | Kind::Forward { name, .. } => name,
            _ => String::new(),
        }
    }

    /// Name and type of each parameter of a prototype, or of that which a function, a typedef or a pointer leads to.
    pub(super) fn prototype_of(&self, mut id: TypeId) -> Option<Vec<(String, TypeId)>> {
        for _ in 0..MAX_DEPTH {
            id = match self.kind(self.strip(id).id) {
                Kind::Prototype { params, .. } => return Some(params),
                Kind::Function { proto, .. } => proto,
                Kind::Pointer(to) => to,
                _ => return None,
            };
        }
        None
    }

    /// What follows `prefix` in the names of all typedefs that begin with it, those of modules last. Reads every type
    /// (about 10 ms).
    pub(super) fn typedef_names(&self, prefix: &str) -> Vec<String> {
        let mut names = self.names_where(prefix, |ty| matches!(ty, Type::Typedef(_)));
        for module in self.modules() {
            // To read a module's types takes some milliseconds, and there may be hundreds. One that cannot be read has
            // none.
            let added =
                fs::read(&module.path).map(|bytes| self.names.added_typedefs(&bytes, prefix).unwrap_or_default());
            names.extend(added.unwrap_or_default());
        }
        names
    }

    /// The same of all functions.
    pub(super) fn function_names(&self, prefix: &str) -> Vec<String> {
        self.names_where(prefix, |ty| matches!(ty, Type::Func(_)))
    }

    /// All functions, in ascending order of ids: name, type, and prototype. Reads every type.
    pub(super) fn functions(&self) -> Vec<(String, TypeId, TypeId)> {
        let (first, last) = self.types.base().type_id_range();
        let function = |id| match self.resolve(TypeId(id))? {
            (part, Type::Func(function)) => Some((part.name(&function), TypeId(id), part.target(&function))),
            _ => None,
        };
        (first..=last).filter_map(function).collect()
    }

    fn names_where(&self, prefix: &str, wanted: impl Fn(&Type) -> bool) -> Vec<String> {
        let (first, last) = self.types.base().type_id_range();
        let named = |id| {
            let (part, ty) = self.resolve(TypeId(id)).filter(|(_, ty)| wanted(ty))?;
            Some(part.name_of(&ty).strip_prefix(prefix)?.to_owned())
        };
        (first..=last).filter_map(named).collect()
    }

    /// Opens `path`, which holds `bytes`; `origin` is what errors name.
    fn open(path: &Path, origin: &Path, bytes: &[u8]) -> Result<Btf, FactError> {
        let bad = |reason: String| FactError::BadBtf { path: origin.to_path_buf(), reason };
        let names = NameIndex::new(bytes).map_err(|reason| bad(reason.to_owned()))?;
        let types = btf_rs::Btf::from_file_with_backend(path, Backend::Mmap).map_err(|error| bad(error.to_string()))?;
        Ok(Btf::with(types, names))
    }

    fn with(types: btf_rs::Btf, names: NameIndex) -> Btf {
        Btf {
            types,
            names,
            folder: None,
            modules: OnceLock::new(),
            enumerators: OnceLock::new(),
            more_enumerators: OnceLock::new(),
            tags: OnceLock::new(),
            known: Mutex::default(),
        }
    }

    /// Opens a copy of `bytes` in a memory file: btf-rs's mapping backend wants a path.
    fn from_copy(bytes: &[u8], origin: &Path) -> Result<Btf, FactError> {
        let bad = |error: io::Error| FactError::BadBtf { path: origin.to_path_buf(), reason: error.to_string() };
        let memory =
            rustix::fs::memfd_create("porthole-btf", MemfdFlags::CLOEXEC).map_err(|error| bad(error.into()))?;
        let mut file = File::from(memory);
        file.write_all(bytes).map_err(bad)?;
        Btf::open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())), origin, bytes)
    }

    fn resolve(&self, id: TypeId) -> Option<(Part<'_>, Type)> {
        let types = match id.module() {
            None => &self.types,
            Some(module) => &self.module_types(module)?.types,
        };
        let part = Part { types, module: id.module() };
        Some((part, types.resolve_type_by_id(id.number()).ok()?))
    }

    fn is(&self, id: TypeId, wanted: &dyn Fn(&Type) -> bool) -> bool {
        self.resolve(id).is_some_and(|(_, ty)| wanted(&ty))
    }

    fn first(&self, name: &str, wanted: impl Fn(&Type) -> bool) -> Option<TypeId> {
        self.find(name).into_iter().find(|&id| self.is(id, &wanted))
    }

    fn first_anywhere(&self, name: &str, wanted: impl Fn(&Type) -> bool) -> Option<TypeId> {
        let in_modules = || self.find_in_modules(name).into_iter().find(|&id| self.is(id, &wanted));
        self.first(name, &wanted).or_else(in_modules)
    }

    fn composite(&self, name: &str, defined: fn(&Type) -> bool, declared: fn(&Type) -> bool) -> Option<TypeId> {
        let ids = self.find(name);
        let first =
            |ids: &[TypeId], wanted: &dyn Fn(&Type) -> bool| ids.iter().copied().find(|&id| self.is(id, wanted));
        let whole = |ty: &Type| defined(ty) && has_members(ty);
        first(&ids, &whole)
            .or_else(|| first(&ids, &defined))
            .or_else(|| first(&self.find_in_modules(name), &whole))
            .or_else(|| first(&ids, &declared))
    }
}

impl fmt::Debug for Btf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, last) = self.types.base().type_id_range();
        f.debug_struct("Btf").field("types", &last).finish_non_exhaustive()
    }
}

fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is private and read-only. A file that is cut short while it is mapped would end the process;
    // the kernel's BTF never changes, and other files given here are recordings of one.
    unsafe { MmapOptions::new().map_copy_read_only(file) }
}

#[cfg(test)]
mod tests;
