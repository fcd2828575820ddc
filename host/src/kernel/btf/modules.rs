//! What modules add to the kernel's types: a file for each, beside the kernel's own, read when it is first asked for.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use btf_rs::Type;

use super::{Btf, Part, TypeId};

/// The file of the kernel's own types, among those of modules.
pub(super) const KERNEL: &str = "vmlinux";

/// Modules that ids can tell apart.
const MOST_MODULES: usize = (1 << (u32::BITS - TypeId::NUMBER_BITS)) - 1;

/// A module that is loaded.
pub(super) struct Module {
    name: String,
    pub path: PathBuf,
    /// None where they cannot be read.
    types: OnceLock<Option<ModuleTypes>>,
}

/// What a module adds to the kernel's types.
pub(super) struct ModuleTypes {
    pub types: btf_rs::Btf,
    /// By their names, in ascending order.
    by_name: HashMap<String, Vec<TypeId>>,
    /// All enumerations, with names or without.
    pub enumerations: Vec<TypeId>,
}

impl Btf {
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
    pub(in crate::kernel) fn tagged_in_module(&self, module: &str, tag: &str) -> Vec<TypeId> {
        let tags = self.types_of_module(module).and_then(|types| types.by_name.get(tag));
        tags.into_iter().flatten().filter_map(|id| self.tagged_by(*id, tag)).collect()
    }

    /// Types of that name that modules add, those of the first module first.
    pub(super) fn find_in_modules(&self, name: &str) -> Vec<TypeId> {
        let types = (0..self.modules().len()).filter_map(|module| self.module_types(module));
        types.filter_map(|types| types.by_name.get(name)).flatten().copied().collect()
    }

    pub(super) fn modules(&self) -> &[Module] {
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

    pub(super) fn module_types(&self, number: usize) -> Option<&ModuleTypes> {
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
}
