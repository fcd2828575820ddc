//! The kernel's types, from its BTF (<https://docs.kernel.org/bpf/btf.html>).
//!
//! btf-rs reads the types, out of a mapping of the file; [`NameIndex`] finds them by name. btf-rs's own types stay
//! inside: others see [`TypeId`] and [`Kind`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Bound;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use btf_rs::{Backend, BtfType, Type};
use memmap2::{Mmap, MmapOptions};
use rustix::fs::MemfdFlags;

use super::FactError;
use super::name_index::NameIndex;

/// A type of one [`Btf`], and of no other. 0 is `void`.
///
/// What modules add is numbered from where the kernel's own types end, by each module anew. So the bits above
/// [`TypeId::NUMBER_BITS`] tell whose it is: 0 for the kernel itself, else which module's, in the order of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u32);

impl TypeId {
    pub const VOID: TypeId = TypeId(0);

    /// Bits of a type's number (include/uapi/linux/btf.h: BTF_MAX_TYPE).
    const NUMBER_BITS: u32 = 20;

    fn of_module(module: usize, number: u32) -> TypeId {
        TypeId((module as u32 + 1) << TypeId::NUMBER_BITS | number)
    }

    /// Its number in the BTF of the kernel, or of its module: what the kernel knows it by.
    pub fn number(self) -> u32 {
        self.0 & ((1 << TypeId::NUMBER_BITS) - 1)
    }

    /// Whether a module adds it.
    pub fn is_of_module(self) -> bool {
        self.module().is_some()
    }

    /// Which of the modules it is of; none: of the kernel itself.
    fn module(self) -> Option<usize> {
        (self.0 >> TypeId::NUMBER_BITS).checked_sub(1).map(|module| module as usize)
    }
}

/// One type, exactly as BTF has it: nothing is skipped, referred types are ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Void,
    Int {
        name: String,
        bytes: u32,
        signed: bool,
        /// Plain `char`: text rather than a number. (`u8`, an `unsigned char`, is a number.)
        char: bool,
        bool: bool,
    },
    Pointer(TypeId),
    Array {
        element: TypeId,
        count: u32,
    },
    /// The name is empty where the struct has none.
    Struct {
        name: String,
        bytes: u32,
    },
    Union {
        name: String,
        bytes: u32,
    },
    /// A value of an unsigned 64-bit enum above `i64::MAX` wraps round.
    Enum {
        name: String,
        bytes: u32,
        signed: bool,
        values: Vec<(String, i64)>,
    },
    /// A struct or union that is declared and not defined.
    Forward {
        name: String,
        union: bool,
    },
    Typedef {
        name: String,
        to: TypeId,
    },
    Const(TypeId),
    Volatile(TypeId),
    Restrict(TypeId),
    /// `__attribute__((btf_type_tag("name")))`, such as `user`, on the type that a pointer points to.
    TypeTag {
        name: String,
        to: TypeId,
    },
    Function {
        name: String,
        proto: TypeId,
    },
    /// A last parameter without name and of type `void` stands for `...`.
    Prototype {
        params: Vec<(String, TypeId)>,
        result: TypeId,
    },
    Float {
        bytes: u32,
    },
    Variable {
        name: String,
        ty: TypeId,
    },
    /// Variables that lie in one piece of memory, and where: bytes from its start.
    Section {
        name: String,
        variables: Vec<(TypeId, u32)>,
    },
    /// Declaration tags, which no expression can reach, and ids that are not of this BTF.
    Other,
}

/// A member as its struct or union lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    /// Empty for an anonymous struct or union.
    name: String,
    ty: TypeId,
    /// Bits from the start of the struct that lists it.
    bit_offset: u32,
    /// Bits, for a bit field.
    bit_size: Option<u32>,
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

/// A type without typedefs, qualifiers and type tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stripped {
    pub id: TypeId,
    pub tags: Tags,
}

/// Type tags met on the way (include/linux/compiler_types.h). Only kernels built with clang, or GCC from 16 on, have
/// them in their BTF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// `__user`: the pointer is into user memory.
    pub user: bool,
    /// `__rcu`: the pointer is read under RCU.
    pub rcu: bool,
    /// `__percpu`: the pointer is an offset into per-CPU memory.
    pub percpu: bool,
}

/// The file of the kernel's own types, among those of modules.
const KERNEL: &str = "vmlinux";
/// Modules that ids can tell apart.
const MOST_MODULES: usize = (1 << (u32::BITS - TypeId::NUMBER_BITS)) - 1;

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

/// A module that is loaded.
struct Module {
    name: String,
    path: PathBuf,
    /// None where they cannot be read.
    types: OnceLock<Option<ModuleTypes>>,
}

/// What a module adds to the kernel's types.
struct ModuleTypes {
    types: btf_rs::Btf,
    /// By their names, in ascending order.
    by_name: HashMap<String, Vec<TypeId>>,
    /// All enumerations, with names or without.
    enumerations: Vec<TypeId>,
}

/// The kernel's own types, or with them what one module adds.
#[derive(Clone, Copy)]
struct Part<'a> {
    types: &'a btf_rs::Btf,
    module: Option<usize>,
}

impl Part<'_> {
    fn name(self, named: &dyn BtfType) -> String {
        self.types.resolve_name(named).unwrap_or_default()
    }

    fn name_of(self, ty: &Type) -> String {
        ty.as_btf_type().map(|ty| self.name(ty)).unwrap_or_default()
    }

    fn id(self, number: u32) -> TypeId {
        match self.module {
            Some(module) if number > self.types.base().type_id_range().1 => TypeId::of_module(module, number),
            _ => TypeId(number),
        }
    }

    /// The id that a type refers to.
    fn target(self, ty: &dyn BtfType) -> TypeId {
        ty.get_type_id().map_or(TypeId::VOID, |number| self.id(number))
    }
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

/// Where the members of a struct or union lie, by name, those of anonymous members among them.
type Members = HashMap<String, MemberAt>;

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

    /// The modules that are loaded and have types of their own, sorted.
    pub fn module_names(&self) -> impl Iterator<Item = &str> {
        self.modules().iter().map(|module| module.name.as_str())
    }

    /// The module that adds the type; none: the kernel itself has it.
    pub fn module_of(&self, id: TypeId) -> Option<&str> {
        Some(&self.modules().get(id.module()?)?.name)
    }

    /// The function `name` that a module adds.
    pub fn function_of_module(&self, module: &str, name: &str) -> Option<TypeId> {
        let types = self.types_of_module(module)?;
        types.by_name.get(name)?.iter().copied().find(|&id| self.is(id, &|ty| matches!(ty, Type::Func(_))))
    }

    /// All functions that a module adds, in ascending order of ids: name, type, and prototype.
    pub fn functions_of_module(&self, module: &str) -> Vec<(String, TypeId, TypeId)> {
        let Some(types) = self.types_of_module(module) else { return Vec::new() };
        let function = |id: &TypeId| match self.resolve(*id)? {
            (part, Type::Func(function)) => Some((part.name(&function), *id, part.target(&function))),
            _ => None,
        };
        let mut functions: Vec<_> = types.by_name.values().flatten().filter_map(function).collect();
        functions.sort_unstable_by_key(|(_, id, _)| *id);
        functions
    }

    /// As [`Btf::tagged`], of what a module adds.
    pub(super) fn tagged_in_module(&self, module: &str, tag: &str) -> Vec<TypeId> {
        let tags = self.types_of_module(module).and_then(|types| types.by_name.get(tag));
        tags.into_iter().flatten().filter_map(|id| self.tagged_by(*id, tag)).collect()
    }

    /// Types of that name that modules add, those of the first module first.
    fn find_in_modules(&self, name: &str) -> Vec<TypeId> {
        let types = (0..self.modules().len()).filter_map(|module| self.module_types(module));
        types.filter_map(|types| types.by_name.get(name)).flatten().copied().collect()
    }

    fn modules(&self) -> &[Module] {
        self.modules.get_or_init(|| {
            let files = self.folder.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
            let module = |file: fs::DirEntry| Module {
                name: file.file_name().to_string_lossy().into_owned(),
                path: file.path(),
                types: OnceLock::new(),
            };
            let mut modules: Vec<_> = files.map(module).filter(|module| module.name != KERNEL).collect();
            modules.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            modules.truncate(MOST_MODULES);
            modules
        })
    }

    fn types_of_module(&self, name: &str) -> Option<&ModuleTypes> {
        let module = self.modules().binary_search_by(|module| module.name.as_str().cmp(name)).ok()?;
        self.module_types(module)
    }

    fn module_types(&self, number: usize) -> Option<&ModuleTypes> {
        let module = self.modules().get(number)?;
        let read = || {
            let types = btf_rs::Btf::from_split_file(&module.path, &self.types).ok()?;
            let part = Part { types: &types, module: Some(number) };
            let (first, last) = types.split()?.type_id_range();
            let mut by_name: HashMap<String, Vec<TypeId>> = HashMap::new();
            let mut enumerations = Vec::new();
            for id in first..=last {
                let ty = types.resolve_type_by_id(id).ok()?;
                if let Type::Enum(_) | Type::Enum64(_) = ty {
                    enumerations.push(part.id(id));
                }
                let name = part.name_of(&ty);
                if !name.is_empty() {
                    by_name.entry(name).or_default().push(part.id(id));
                }
            }
            Some(ModuleTypes { types, by_name, enumerations })
        };
        module.types.get_or_init(read).as_ref()
    }

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

    /// What type this is, exactly: nothing is skipped. The members of a struct or union are asked for one by one, by
    /// [`Btf::member`].
    pub fn kind(&self, id: TypeId) -> Kind {
        if let Some(known) = self.known().kinds.get(&id) {
            return known.clone();
        }
        let kind = self.resolve(id).map_or(Kind::Other, |(part, ty)| kind_of(part, ty));
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

    /// The structure that a structure begins with, where it begins with one.
    pub fn first_member(&self, id: TypeId) -> Option<TypeId> {
        let first = self.members_behind(id).into_iter().next().filter(|member| member.bit_offset == 0)?;
        let id = self.strip(first.ty).id;
        matches!(self.kind(id), Kind::Struct { .. }).then_some(id)
    }

    /// The type as C writes it without a variable: `struct task_struct *`, `unsigned int`, `char[16]`,
    /// `int (*)(struct file *)`.
    pub fn c_name(&self, id: TypeId) -> String {
        self.declare(id, String::new(), 0)
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

    fn members_behind(&self, id: TypeId) -> Vec<Member> {
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

impl fmt::Debug for Btf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, last) = self.types.base().type_id_range();
        f.debug_struct("Btf").field("types", &last).finish_non_exhaustive()
    }
}

impl Tags {
    fn add(&mut self, name: &str) {
        match name {
            "user" => self.user = true,
            "rcu" => self.rcu = true,
            "percpu" => self.percpu = true,
            _ => {}
        }
    }
}

fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is private and read-only. A file that is cut short while it is mapped would end the process;
    // the kernel's BTF never changes, and other files given here are recordings of one.
    unsafe { MmapOptions::new().map_copy_read_only(file) }
}

fn kind_of(part: Part<'_>, ty: Type) -> Kind {
    let name = part.name_of(&ty);
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
        Type::Ptr(ty) => Kind::Pointer(part.target(&ty)),
        Type::Array(array) => Kind::Array { element: part.target(&array), count: size(array.len()) },
        Type::Struct(ty) => Kind::Struct { name, bytes: size(ty.size()) },
        Type::Union(ty) => Kind::Union { name, bytes: size(ty.size()) },
        Type::Enum(ty) => {
            let value = |value: u32| if ty.is_signed() { i64::from(value.cast_signed()) } else { i64::from(value) };
            let values = ty.members.iter().map(|member| (part.name(member), value(member.val()))).collect();
            Kind::Enum { name, bytes: size(ty.size()), signed: ty.is_signed(), values }
        }
        Type::Enum64(ty) => {
            let values = ty.members.iter().map(|member| (part.name(member), member.val().cast_signed())).collect();
            Kind::Enum { name, bytes: size(ty.size()), signed: ty.is_signed(), values }
        }
        Type::Fwd(fwd) => Kind::Forward { name, union: fwd.is_union() },
        Type::Typedef(ty) => Kind::Typedef { name, to: part.target(&ty) },
        Type::Const(ty) => Kind::Const(part.target(&ty)),
        Type::Volatile(ty) => Kind::Volatile(part.target(&ty)),
        Type::Restrict(ty) => Kind::Restrict(part.target(&ty)),
        Type::TypeTag(ty) => Kind::TypeTag { name, to: part.target(&ty) },
        Type::Func(ty) => Kind::Function { name, proto: part.target(&ty) },
        Type::FuncProto(ty) => {
            let params = ty.parameters.iter().map(|param| (part.name(param), part.target(param))).collect();
            Kind::Prototype { params, result: part.id(ty.return_type_id()) }
        }
        Type::Float(ty) => Kind::Float { bytes: size(ty.size()) },
        Type::Var(ty) => Kind::Variable { name, ty: part.target(&ty) },
        Type::Datasec(section) => {
            let variables = section.variables.iter().map(|variable| (part.target(variable), variable.offset()));
            Kind::Section { variables: variables.collect(), name }
        }
        _ => Kind::Other,
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

/// Sizes and counts are 32 bits wide in BTF; btf-rs widens them.
fn size(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn has_members(ty: &Type) -> bool {
    matches!(ty, Type::Struct(ty) | Type::Union(ty) if !ty.members.is_empty())
}

fn tagged(keyword: &str, name: &str) -> String {
    if name.is_empty() { format!("{keyword} (anonymous)") } else { format!("{keyword} {name}") }
}

/// A type's word and its declarator; only an array's brackets stand close.
fn joined(word: &str, declarator: &str) -> String {
    let space = if declarator.is_empty() || declarator.starts_with('[') { "" } else { " " };
    format!("{word}{space}{declarator}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/kernel-6.18/btf/vmlinux");

    fn recorded() -> Btf {
        Btf::from_file(Path::new(RECORDED)).unwrap()
    }

    /// BTF made of the words of its types; `names` are at offsets 1, and so on, each one byte behind the last one's
    /// end.
    fn made(header_bytes: u32, types: &[u32], names: &str) -> Vec<u8> {
        let types_bytes = size(types.len() * 4);
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        let header = [header_bytes, 0, types_bytes, types_bytes, size(names.len())];
        bytes.extend(header.into_iter().flat_map(u32::to_le_bytes));
        bytes.resize(header_bytes as usize, 0);
        bytes.extend(types.iter().copied().flat_map(u32::to_le_bytes));
        bytes.extend(names.as_bytes());
        bytes
    }

    fn name_at(names: &str, name: &str) -> u32 {
        size(names.find(&format!("\0{name}\0")).unwrap()) + 1
    }

    fn info(kind: u32, flag: bool, count: u32) -> u32 {
        u32::from(flag) << 31 | kind << 24 | count
    }

    #[test]
    fn structs_of_a_kernel() {
        let btf = recorded();
        let task = btf.structure("task_struct").unwrap();
        let Kind::Struct { name, bytes } = btf.kind(task) else { panic!("{:?}", btf.kind(task)) };
        assert_eq!(name, "task_struct");
        let comm = btf.member(task, "comm").unwrap();
        assert_eq!(btf.c_name(comm.ty), "char[16]");
        assert!(comm.bit_offset / 8 < bytes);
        let parent = btf.member(task, "real_parent").unwrap();
        assert_eq!(btf.c_name(parent.ty), "struct task_struct *");
        assert_eq!(btf.kind(btf.strip(parent.ty).id), Kind::Pointer(task));
        assert_eq!(btf.member(task, "no_such_member"), None);
        assert_eq!(btf.member(task, ""), None);
    }

    #[test]
    fn members_of_anonymous_unions_are_the_structs_own() {
        let btf = recorded();
        let common = btf.structure("sock_common").unwrap();
        let members = btf.members_behind(common);
        assert!(members.iter().all(|member| member.name != "skc_daddr"), "this kernel keeps it in a union");
        assert_eq!(btf.member(common, "skc_daddr").unwrap().bit_offset, 0);
        assert_eq!(btf.member(common, "skc_rcv_saddr").unwrap().bit_offset, 32);
        let names = btf.member_names(common);
        assert_eq!(&names[..3], ["skc_addrpair", "skc_daddr", "skc_rcv_saddr"]);
        assert!(names.iter().all(|name| !name.is_empty()));
    }

    #[test]
    fn bit_fields() {
        let btf = recorded();
        let task = btf.structure("task_struct").unwrap();
        let first = btf.member(task, "sched_reset_on_fork").unwrap();
        assert_eq!(first.bit_size, Some(1));
        let next = btf.member(task, "sched_contributes_to_load").unwrap();
        assert_eq!((next.bit_offset, next.bit_size), (first.bit_offset + 1, Some(1)));
        assert_eq!(btf.member(task, "pid").unwrap().bit_size, None, "a whole member of a struct with bit fields");
    }

    #[test]
    fn stripping() {
        let btf = recorded();
        let pid = btf.typedef("pid_t").unwrap();
        assert!(matches!(btf.kind(pid), Kind::Typedef { name, .. } if name == "pid_t"));
        let Stripped { id, tags } = btf.strip(pid);
        assert_eq!(tags, Tags::default());
        assert_eq!(
            btf.kind(id),
            Kind::Int { name: "int".to_owned(), bytes: 4, signed: true, char: false, bool: false }
        );
        assert!(matches!(btf.kind(btf.strip(btf.typedef("bool").unwrap()).id), Kind::Int { bytes: 1, bool: true, .. }));
        assert!(matches!(
            btf.kind(btf.strip(btf.typedef("u8").unwrap()).id),
            Kind::Int { bytes: 1, signed: false, char: false, .. }
        ));
        assert!(matches!(btf.kind(btf.integer("char").unwrap()), Kind::Int { char: true, .. }));
        assert_eq!(btf.strip(TypeId::VOID).id, TypeId::VOID);
    }

    #[test]
    fn what_is_only_declared_is_a_forward() {
        let btf = recorded();
        let task = btf.structure("task_struct").unwrap();
        let Kind::Pointer(pointee) = btf.kind(btf.member(task, "io_uring").unwrap().ty) else { panic!() };
        assert_eq!(btf.kind(pointee), Kind::Forward { name: "io_uring_task".to_owned(), union: false });
        assert_eq!(btf.structure("io_uring_task"), Some(pointee));
        assert_eq!(btf.member(pointee, "last"), None);
        assert_eq!(btf.c_name(pointee), "struct io_uring_task");
    }

    #[test]
    fn unknown_names_and_ids() {
        let btf = recorded();
        assert_eq!(btf.find("no_such_name"), []);
        assert_eq!(btf.find(""), []);
        assert_eq!(btf.structure("pid_t"), None);
        assert_eq!(btf.kind(TypeId(u32::MAX)), Kind::Other);
        assert_eq!(btf.strip(TypeId(u32::MAX)).id, TypeId(u32::MAX));
        assert_eq!(btf.member(TypeId::VOID, "x"), None);
    }

    #[test]
    fn c_names() {
        let btf = recorded();
        let member =
            |structure: &str, name: &str| btf.c_name(btf.member(btf.structure(structure).unwrap(), name).unwrap().ty);
        assert_eq!(member("linux_binprm", "filename"), "const char *");
        assert_eq!(member("file", "f_op"), "const struct file_operations *");
        assert_eq!(member("task_struct", "flags"), "unsigned int");
        assert_eq!(member("task_struct", "start_time"), "u64");
        assert_eq!(member("file_operations", "llseek"), "loff_t (*)(struct file *, loff_t, int)");
        assert_eq!(btf.c_name(TypeId::VOID), "void");
        let traced = btf.function("__traceiter_sched_switch").unwrap();
        assert_eq!(
            btf.c_name(traced),
            "int __traceiter_sched_switch(void *, bool, struct task_struct *, struct task_struct *, unsigned int)"
        );
    }

    #[test]
    fn qualifiers_and_tags_in_c() {
        let names = "\0int\0user\0rcu\0f\0";
        let at = |name| name_at(names, name);
        let types = [
            // 1: int. 2: int __user. 3: int __user *. 4: int __user *const. 5: const int. 6: const int *[3].
            [at("int"), info(1, false, 0), 4, 1 << 24 | 32].as_slice(),
            &[at("user"), info(18, false, 0), 1],
            &[0, info(2, false, 0), 2],
            &[0, info(10, false, 0), 3],
            &[0, info(10, false, 0), 1],
            &[0, info(2, false, 0), 5],
            &[0, info(3, false, 0), 0, 6, 1, 3],
            // 8: pointer to array 7. 9: rcu tag on volatile 10. 11: variadic prototype. 12: pointer to it.
            &[0, info(2, false, 0), 7],
            &[at("rcu"), info(18, false, 0), 10],
            &[0, info(9, false, 0), 5],
            &[0, info(13, false, 2), 0, 0, 3, 0, 0],
            &[0, info(2, false, 0), 11],
        ]
        .concat();
        let btf = Btf::from_bytes(&made(24, &types, names)).unwrap();
        let written = (2..=12).map(|id| btf.c_name(TypeId(id))).collect::<Vec<_>>();
        assert_eq!(
            written,
            [
                "int __user",
                "int __user *",
                "int __user *const",
                "const int",
                "const int *",
                "const int *[3]",
                "const int *(*)[3]",
                "volatile const int __rcu",
                "volatile const int",
                "void (int __user *, ...)",
                "void (*)(int __user *, ...)",
            ]
        );
        assert_eq!(btf.strip(TypeId(2)), Stripped { id: TypeId(1), tags: Tags { user: true, ..Tags::default() } });
        assert_eq!(btf.strip(TypeId(9)), Stripped { id: TypeId(1), tags: Tags { rcu: true, ..Tags::default() } });
        assert_eq!(btf.strip(TypeId(3)).tags, Tags::default(), "a tag belongs to what is pointed to");
    }

    #[test]
    fn enums_and_their_signs() {
        let names = "\0e\0A\0B\0";
        let at = |name| name_at(names, name);
        let types = [
            [at("e"), info(6, true, 2), 4, at("A"), u32::MAX, at("B"), 1].as_slice(),
            &[at("e"), info(6, false, 1), 4, at("A"), u32::MAX],
            &[at("e"), info(19, false, 1), 8, at("A"), 5, 1],
        ]
        .concat();
        let btf = Btf::from_bytes(&made(24, &types, names)).unwrap();
        let values = |id| match btf.kind(TypeId(id)) {
            Kind::Enum { bytes, values, .. } => (bytes, values.into_iter().map(|(_, value)| value).collect::<Vec<_>>()),
            other => panic!("{other:?}"),
        };
        assert_eq!(values(1), (4, vec![-1, 1]));
        assert_eq!(values(2), (4, vec![i64::from(u32::MAX)]));
        assert_eq!(values(3), (8, vec![(1 << 32) + 5]));
        assert_eq!(btf.find("e"), [TypeId(1), TypeId(2), TypeId(3)]);
    }

    #[test]
    fn a_struct_with_members_is_preferred() {
        let names = "\0int\0s\0m\0";
        let at = |name| name_at(names, name);
        let types = [
            [at("s"), info(7, false, 0), 0].as_slice(),
            &[at("s"), info(4, false, 0), 0],
            &[at("int"), info(1, false, 0), 4, 1 << 24 | 32],
            &[at("s"), info(4, false, 1), 4, at("m"), 3, 0],
        ]
        .concat();
        let btf = Btf::from_bytes(&made(24, &types, names)).unwrap();
        assert_eq!(btf.structure("s"), Some(TypeId(4)));
        assert_eq!(btf.union("s"), None);
    }

    /// Kernels from 7.2.5 on append to the header.
    #[test]
    fn a_longer_header() {
        let names = "\0int\0";
        let btf = Btf::from_bytes(&made(32, &[1, info(1, false, 0), 4, 1 << 24 | 32], names)).unwrap();
        assert_eq!(btf.find("int"), [TypeId(1)]);
        assert_eq!(btf.c_name(TypeId(1)), "int");
    }

    #[test]
    fn loops_end() {
        let names = "\0a\0";
        let at = |name| name_at(names, name);
        // 1: typedef of itself. 2: struct with an anonymous member of its own type. 3: pointer to itself.
        let types = [
            [at("a"), info(8, false, 0), 1].as_slice(),
            &[0, info(4, false, 1), 4, 0, 2, 0],
            &[0, info(2, false, 0), 3],
        ]
        .concat();
        let btf = Btf::from_bytes(&made(24, &types, names)).unwrap();
        assert_eq!(btf.strip(TypeId(1)).id, TypeId(1));
        assert_eq!(btf.member(TypeId(2), "x"), None);
        assert!(btf.member_names(TypeId(2)).is_empty());
        assert!(btf.c_name(TypeId(3)).contains('…'));
        assert_eq!(btf.prototype_of(TypeId(3)), None);
    }

    #[test]
    fn bytes_that_are_not_btf() {
        let error = |bytes: &[u8]| Btf::from_bytes(bytes).unwrap_err().to_string();
        assert!(error(b"").contains("it is not BTF"));
        assert!(error(&made(24, &[0, info(31, false, 0), 0], "\0")).contains("unknown kind"));
        assert!(error(&made(24, &[9, info(2, false, 0), 0], "\0")).contains("outside of the strings"));
    }

    #[test]
    fn what_a_module_adds() {
        let names = "\0int\0";
        let base =
            Btf::from_bytes(&made(24, &[name_at(names, "int"), info(1, false, 0), 4, 1 << 24 | 32], names)).unwrap();
        // Its types and names are counted on from the kernel's: 2 is `int *`, 3 the prototype, 4 the function, 5 its
        // tag, and 6 a tag of its parameter.
        let more = "kf\0n\0bpf_kfunc\0other\0prefix_x\0";
        let at = |name: &str| size(names.len()) + size(more.find(&format!("{name}\0")).unwrap());
        let types = [
            [0, info(2, false, 0), 1].as_slice(),
            &[0, info(13, false, 1), 2, at("n"), 1],
            &[at("kf"), info(12, false, 0), 3],
            &[at("bpf_kfunc"), info(17, false, 0), 4, u32::MAX],
            &[at("bpf_kfunc"), info(17, false, 0), 4, 0],
            &[at("other"), info(17, false, 0), 2, u32::MAX],
            &[at("prefix_x"), info(8, false, 0), 1],
        ]
        .concat();
        let folder = std::env::temp_dir().join(format!("porthole-modules-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(KERNEL), "not read again").unwrap();
        for module in ["one", "two"] {
            fs::write(folder.join(module), made(24, &types, more)).unwrap();
        }
        fs::write(folder.join("broken"), "no BTF").unwrap();
        let btf = base.with_modules_beside(&folder.join(KERNEL));
        assert_eq!(btf.module_names().collect::<Vec<_>>(), ["broken", "one", "two"]);
        for (module, number) in [("one", 1), ("two", 2)] {
            let at = |id| TypeId::of_module(number, id);
            assert_eq!(btf.tagged_in_module(module, "bpf_kfunc"), [at(4)]);
            assert_eq!(btf.function_of_module(module, "kf"), Some(at(4)));
            assert_eq!(btf.functions_of_module(module), [("kf".to_owned(), at(4), at(3))]);
            assert_eq!(btf.prototype(at(4)), Some(("kf".to_owned(), "int *kf(int n)".to_owned())));
            // What is the kernel's own is that in a module, too.
            assert_eq!(btf.kind(at(2)), Kind::Pointer(TypeId(1)));
            let result = Kind::Prototype { params: vec![("n".to_owned(), TypeId(1))], result: at(2) };
            assert_eq!(btf.kind(at(3)), result);
            assert_eq!((at(4).number(), btf.module_of(at(4))), (4, Some(module)));
        }
        assert_eq!(btf.typedef_names("prefix_"), ["x", "x"]);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!((btf.module_of(TypeId(1)), btf.prototype(TypeId(1))), (None, None));
        assert_eq!(btf.function("kf"), None, "the kernel itself has none");
        assert_eq!([btf.function_of_module("broken", "kf"), btf.function_of_module("none", "kf")], [None, None]);
        assert!(btf.tagged("bpf_kfunc").is_empty());
    }

    /// The copy is what kernels before 6.16 are read by.
    #[test]
    fn root_a_copy_of_the_kernels_types_reads_as_the_original() {
        let path = Path::new("/sys/kernel/btf/vmlinux");
        let (mapped, copied) = (Btf::from_file(path).unwrap(), Btf::from_bytes(&fs::read(path).unwrap()).unwrap());
        for name in ["task_struct", "sched_switch", "int", "u64", "vfs_read"] {
            assert!(!mapped.find(name).is_empty() || name == "sched_switch", "{name}");
            assert_eq!(mapped.find(name), copied.find(name), "{name}");
            assert_eq!(
                mapped.find(name),
                mapped.types.resolve_ids_by_name(name).unwrap().into_iter().map(TypeId).collect::<Vec<_>>()
            );
        }
    }
}
