//! Variables of the kernel: their types from BTF, and where those lie of which each CPU has its own.
//!
//! Most kernels' BTF has the latter only. Each CPU's copies lie together, in the same order: BTF has the distance of
//! each from where they begin, and the kernel the distances of the copies from one another (its array
//! `__per_cpu_offset`).

use std::collections::BTreeMap;

use super::{FactError, KernelFacts, Kind, TypeId};

/// A variable of the kernel itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    pub ty: TypeId,
    /// Where each CPU has one of its own: bytes from where a CPU's variables begin.
    pub per_cpu: Option<u32>,
}

/// Per-CPU variables by name: static ones of several files may share it.
pub(super) type PerCpu = BTreeMap<String, Vec<Variable>>;

/// The section of variables that each CPU has (include/linux/percpu-defs.h: PER_CPU_BASE_SECTION).
const PER_CPU_SECTION: &str = ".data..percpu";

impl KernelFacts {
    /// The variables of that name in the kernel's BTF.
    pub fn variables(&self, name: &str) -> Result<Vec<Variable>, FactError> {
        if let Some(per_cpu) = self.per_cpu()?.get(name) {
            return Ok(per_cpu.clone());
        }
        let btf = self.btf()?;
        let variable = |id| match btf.kind(id) {
            Kind::Variable { ty, .. } => Some(Variable { ty, per_cpu: None }),
            _ => None,
        };
        Ok(btf.find(name).into_iter().filter_map(variable).collect())
    }

    /// The names of all per-CPU variables in BTF, sorted.
    pub fn per_cpu_names(&self) -> Result<impl Iterator<Item = &str>, FactError> {
        Ok(self.per_cpu()?.keys().map(String::as_str))
    }

    /// How many CPUs there may ever be: their numbers are below that. None where that is not known.
    pub fn cpus(&self) -> Option<u32> {
        *self.cpus.get_or_init(|| {
            let path = match &self.events_root {
                None => "/sys/devices/system/cpu/possible".into(),
                Some(root) => root.join("possible"),
            };
            let text = std::fs::read_to_string(path).ok()?;
            // `0-3`, or `0-1,4-5`.
            let last = text.trim().rsplit([',', '-']).next()?;
            last.parse::<u32>().ok()?.checked_add(1)
        })
    }

    fn per_cpu(&self) -> Result<&PerCpu, FactError> {
        let read = || {
            let btf = self.btf()?;
            let mut all = PerCpu::new();
            for section in btf.find(PER_CPU_SECTION) {
                let Kind::Section { variables, .. } = btf.kind(section) else { continue };
                for (id, at) in variables {
                    if let Kind::Variable { name, ty } = btf.kind(id) {
                        all.entry(name).or_default().push(Variable { ty, per_cpu: Some(at) });
                    }
                }
            }
            Ok(all)
        };
        self.per_cpu.get_or_init(read).as_ref().map_err(Clone::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_variables_of_this_machine() {
        let facts = KernelFacts::running();
        let btf = facts.btf().unwrap();
        let [runqueues] = facts.variables("runqueues").unwrap()[..] else { panic!("no `runqueues`, or several") };
        assert_eq!(btf.c_name(runqueues.ty), "struct rq");
        assert!(runqueues.per_cpu.is_some());
        assert_eq!(facts.variables("vfs_read").unwrap(), []);
        assert!(facts.per_cpu_names().unwrap().count() > 100);
        let online = std::thread::available_parallelism().unwrap().get();
        assert!(facts.cpus().unwrap() as usize >= online);
    }
}
