//! Kfuncs of modules, from what each module's own BTF adds to the kernel's.

use std::fs;
use std::path::Path;

use super::{TAG, known};
use crate::kernel::{FactError, KernelFacts};

/// A kfunc of a module that is loaded. A program can call it only as long as the module is, and no plugin can: the host knows the kernel's own types alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModuleKfunc {
    pub name: String,
    pub module: String,
    /// As C declares it.
    pub prototype: String,
}

impl KernelFacts {
    /// The kfuncs of all modules that are loaded, sorted. Reads the types of each; a module whose types cannot be read has none.
    pub fn module_kfuncs(&self) -> Result<&[ModuleKfunc], FactError> {
        let btf = self.btf()?;
        let read = || {
            let folder = self.btf_path.parent().unwrap_or(Path::new("/"));
            let files = fs::read_dir(folder).into_iter().flatten().flatten();
            let mut found = Vec::new();
            for file in files.filter(|file| file.path() != self.btf_path) {
                let Ok(types) = btf.module(&file.path()) else { continue };
                let module = file.file_name().to_string_lossy().into_owned();
                let mut functions = types.tagged_in_module(TAG);
                if functions.is_empty() {
                    functions = types.functions_in_module(|name| known(name).is_some());
                }
                found.extend(functions.into_iter().filter_map(|function| {
                    let (name, prototype) = types.prototype(function)?;
                    Some(ModuleKfunc { name, module: module.clone(), prototype })
                }));
            }
            found.sort_unstable();
            found
        };
        Ok(self.kfuncs.modules.get_or_init(read))
    }
}
