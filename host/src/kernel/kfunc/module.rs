//! Kfuncs of modules, from what each module's own BTF adds to the kernel's.

use super::{TAG, known};
use crate::kernel::{FactError, KernelFacts, Kind, TypeId};

/// A kfunc of a module that is loaded. A program can call it only as long as the module is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModuleKfunc {
    pub name: String,
    pub module: String,
    /// Its type in BTF.
    pub id: TypeId,
}

impl KernelFacts {
    /// The kfunc of a module. In one that marks none any function may be a kfunc: who may call it is nobody then, or
    /// who a trial says.
    pub(super) fn kfunc_of_module(&self, name: &str) -> Result<Option<TypeId>, FactError> {
        if let Some(kfunc) = self.module_kfuncs()?.iter().find(|kfunc| kfunc.name == name) {
            return Ok(Some(kfunc.id));
        }
        let btf = self.btf()?;
        let mut unmarked = btf.module_names().filter(|module| btf.tagged_in_module(module, TAG).is_empty());
        Ok(unmarked.find_map(|module| btf.function_of_module(module, name)))
    }

    /// The kfuncs of all modules that are loaded, sorted. Reads the types of each; a module whose types cannot be read
    /// has none.
    pub fn module_kfuncs(&self) -> Result<&[ModuleKfunc], FactError> {
        let btf = self.btf()?;
        let read = || {
            let mut found = Vec::new();
            for module in btf.module_names() {
                let mut functions = btf.tagged_in_module(module, TAG);
                if functions.is_empty() {
                    let all = btf.functions_of_module(module).into_iter();
                    functions = all.filter(|(name, ..)| known(name).is_some()).map(|(_, id, _)| id).collect();
                }
                found.extend(functions.into_iter().filter_map(|id| match btf.kind(id) {
                    Kind::Function { name, .. } => Some(ModuleKfunc { name, module: module.to_owned(), id }),
                    _ => None,
                }));
            }
            found.sort_unstable();
            found
        };
        Ok(self.kfuncs.modules.get_or_init(read))
    }
}
