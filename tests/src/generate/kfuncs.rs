//! Kernel functions that random declarations list and call: those that this kernel has, by their prototypes in BTF.

use std::collections::BTreeSet;

use porthole::declare::KfuncUse;
use porthole::kernel::kfunc::{ProgramKind, Usage, all_known};
use porthole::kernel::{Answer, Btf, KernelFacts, Kind, TypeId};
use porthole::plan::{AttachPoint, Origin, Target, Type};

use crate::random::Random;

/// What a parameter takes that is written.
#[derive(Clone, Debug)]
pub enum Takes {
    Number {
        bytes: u32,
        signed: bool,
    },
    /// A constant up to this.
    Constant(i64),
    /// The name of a structure, in quotes.
    Name,
    /// A pointer to this structure.
    Structure(TypeId),
    Text,
    /// A text in quotes.
    Quoted,
    Dynptr,
    Address,
    /// An integer, to whose bytes a pointer is passed.
    Word,
}

/// What a call is as a value.
#[derive(Clone, Debug)]
pub enum Result {
    Number,
    Text,
    Pointer(Type),
    /// A pointer to the structure that an argument names.
    Named,
}

/// A kfunc that may be called.
#[derive(Clone, Debug)]
pub struct Call {
    pub name: String,
    pub takes: Vec<Takes>,
    pub result: Result,
    /// From where, and where only if it may sleep.
    kinds: Vec<ProgramKind>,
}

impl Call {
    /// Whether few kinds of programs may call it.
    pub fn is_seldom(&self) -> bool {
        self.kinds.len() <= 3
    }
}

/// What is walked over: how it is written, with `#` where an argument stands, and what an object of it is.
#[derive(Clone, Debug)]
pub struct Source {
    pub form: &'static str,
    pub takes: Vec<Takes>,
    pub item: Type,
    new: String,
    kinds: Vec<ProgramKind>,
}

/// All of a kernel.
pub struct Kfuncs {
    calls: Vec<Call>,
    sources: Vec<Source>,
    /// Names that the table has and this kernel does not.
    lacking: Vec<String>,
}

/// What of them one declaration lists, and what may be called at one attach point.
#[derive(Clone, Default)]
pub struct Callable {
    pub calls: Vec<Call>,
    pub sources: Vec<Source>,
    pub lacking: Vec<String>,
}

/// Kfuncs that write what they read, to where the host says.
const WRITE: [&str; 14] = [
    "bpf_path_d_path",
    "bpf_get_file_xattr",
    "bpf_get_dentry_xattr",
    "bpf_cgroup_read_xattr",
    "bpf_probe_read_kernel_dynptr",
    "bpf_probe_read_user_dynptr",
    "bpf_probe_read_kernel_str_dynptr",
    "bpf_probe_read_user_str_dynptr",
    "bpf_copy_from_user_dynptr",
    "bpf_copy_from_user_str_dynptr",
    "bpf_copy_from_user_task_dynptr",
    "bpf_copy_from_user_task_str_dynptr",
    "bpf_copy_from_user_str",
    "bpf_copy_from_user_task_str",
];

/// Each with its iterator, the structures that its arguments point to (`#`: a number, `&`: an address), and the
/// structure of its objects.
const SOURCES: [(&str, &str, &[&str], &str); 12] = [
    ("tasks()", "task", &[], "task_struct"),
    ("threads()", "task", &[], "task_struct"),
    ("threads(#)", "task", &["task_struct"], "task_struct"),
    ("vmas(#)", "task_vma", &["task_struct"], "vm_area_struct"),
    ("vmas(#, #)", "task_vma", &["task_struct", "#"], "vm_area_struct"),
    ("descendants(#)", "css", &["cgroup"], "cgroup_subsys_state"),
    ("children(#)", "css", &["cgroup"], "cgroup_subsys_state"),
    ("ancestors(#)", "css", &["cgroup"], "cgroup_subsys_state"),
    ("css_tasks(#)", "css_task", &["cgroup"], "task_struct"),
    ("css_tasks(#, #)", "css_task", &["cgroup", "#"], "task_struct"),
    ("numbers(#, #)", "num", &["#", "#"], ""),
    ("bits(#, #)", "bits", &["&", "#"], ""),
];

const LONG: Takes = Takes::Number { bytes: 8, signed: true };

impl Kfuncs {
    /// # Panics
    /// Where the kernel's facts cannot be had.
    pub fn of(facts: &KernelFacts) -> Kfuncs {
        let btf = facts.btf().expect("BTF");
        let (mut calls, mut lacking) = (Vec::new(), Vec::new());
        let kinds = |name: &str| -> Vec<ProgramKind> {
            facts.callers(name).into_iter().filter(|(_, answer)| *answer == Answer::Yes).map(|(kind, _)| kind).collect()
        };
        for known in all_known().iter().filter(|known| known.usage == Usage::Call) {
            let Some(kfunc) = facts.kfunc(known.name).expect("kfuncs") else {
                lacking.push(known.name.to_owned());
                continue;
            };
            let writes = WRITE.contains(&known.name);
            let (mut takes, mut sized) = (Vec::new(), false);
            for (param, ty) in &kfunc.params {
                takes.extend(taken(btf, param, *ty, writes, sized));
                sized = matches!(takes.last(), Some(Takes::Word)) || param.starts_with("buffer__");
            }
            let kinds = kinds(known.name);
            if let (Some(result), false) = (result(btf, &kfunc, writes), kinds.is_empty()) {
                calls.push(Call { name: known.name.to_owned(), takes, result, kinds });
            }
        }
        let source = |(form, iterator, takes, item): &(&'static str, &str, &[&str], &str)| {
            let new = format!("bpf_iter_{iterator}_new");
            facts.kfunc(&new).ok()??;
            let takes = takes.iter().map(|takes| match *takes {
                "#" => Some(LONG),
                "&" => Some(Takes::Address),
                structure => btf.structure(structure).map(Takes::Structure),
            });
            let number = Type::Integer { bytes: 8, signed: true };
            let pointer = |id| Type::Pointer { target: Target::Type(id), origin: Origin::Trusted };
            let item = if item.is_empty() { number } else { pointer(btf.structure(item)?) };
            let kinds = kinds(&new);
            (!kinds.is_empty()).then_some(Source { form, takes: takes.collect::<Option<_>>()?, item, new, kinds })
        };
        Kfuncs { calls, sources: SOURCES.iter().filter_map(source).collect(), lacking }
    }

    /// Whether there are some that a plugin may call.
    pub fn are_there(&self) -> bool {
        !self.calls.is_empty()
    }

    /// The names of those that may be called, and of those that begin a walk.
    pub fn names(&self) -> BTreeSet<&str> {
        let walks = self.sources.iter().map(|source| source.new.as_str());
        self.calls.iter().map(|call| call.name.as_str()).chain(walks).collect()
    }

    /// What a declaration lists: some of what there is, and some that there is not.
    pub fn listed(&self, random: &mut Random) -> Vec<KfuncUse> {
        /// Of each sort at most.
        const CALLS: usize = 52;
        const LACKING: usize = 4;
        let of = |name: &String, required| KfuncUse { name: name.clone(), required, claim: None };
        let mut calls: Vec<&String> = self.calls.iter().map(|call| &call.name).collect();
        let mut lacking: Vec<&String> = self.lacking.iter().collect();
        let mut iterators: Vec<&String> = self.sources.iter().map(|source| &source.new).collect();
        iterators.dedup();
        random.shuffle(&mut calls);
        random.shuffle(&mut lacking);
        let mut listed: Vec<KfuncUse> =
            calls.into_iter().take(CALLS).map(|name| of(name, random.below(2) == 0)).collect();
        listed.extend(iterators.into_iter().map(|name| of(name, random.below(2) == 0)));
        listed.extend(lacking.into_iter().take(LACKING).map(|name| of(name, false)));
        listed
    }

    /// What of the listed ones may be called from all of these.
    pub fn callable(&self, listed: &[KfuncUse], points: &[&AttachPoint], facts: &KernelFacts) -> Callable {
        let is_listed = |name: &str| listed.iter().any(|listed| listed.name == name);
        let from_all = |kinds: &[ProgramKind]| {
            points.iter().all(|point| {
                let sleeps = point.may_sleep(facts);
                kinds.contains(&point.program_kind(false)) || sleeps && kinds.contains(&point.program_kind(true))
            })
        };
        Callable {
            calls: self.calls.iter().filter(|call| is_listed(&call.name) && from_all(&call.kinds)).cloned().collect(),
            sources: self.sources.iter().filter(|s| is_listed(&s.new) && from_all(&s.kinds)).cloned().collect(),
            lacking: self.lacking.iter().filter(|name| is_listed(name)).cloned().collect(),
        }
    }
}

/// What is written for a parameter; none where the host passes it. `sized`: the parameter before it is memory, whose
/// size this one is.
fn taken(btf: &Btf, param: &str, ty: TypeId, writes: bool, sized: bool) -> Option<Takes> {
    const LONGEST: i64 = 4096;
    let is_dynptr = |id| btf.tag(id) == "bpf_dynptr";
    Some(match btf.kind(btf.strip(ty).id) {
        Kind::Int { .. } if param == "btf_id__k" => Takes::Name,
        Kind::Int { .. } if writes && param == "off" => Takes::Constant(0),
        Kind::Int { .. } if writes && matches!(param, "size" | "buf__sz" | "dst__sz") => Takes::Constant(LONGEST),
        Kind::Int { .. } if sized => Takes::Constant(8),
        Kind::Int { bytes, signed, .. } | Kind::Enum { bytes, signed, .. } => Takes::Number { bytes, signed },
        Kind::Pointer(to) => match (btf.kind(btf.strip(to).id), btf.strip(to).id) {
            (_, id) if is_dynptr(id) => match param {
                "value_p" | "dptr" if writes => return None,
                _ if param.ends_with("__uninit") => return None,
                _ => Takes::Dynptr,
            },
            _ if writes && matches!(param, "buf" | "dst") => return None,
            _ if ["__opt", "__prog", "__nullable"].iter().any(|end| param.ends_with(end)) => return None,
            (Kind::Int { bytes: 1, .. }, _) if param.ends_with("__str") => Takes::Quoted,
            (Kind::Int { bytes: 1, .. }, _) if param.ends_with("__ign") => Takes::Text,
            _ if param.ends_with("__ign") => Takes::Address,
            (Kind::Void, _) => Takes::Word,
            (_, id) => Takes::Structure(id),
        },
        _ => return None,
    })
}

fn result(btf: &Btf, kfunc: &porthole::kernel::kfunc::Kfunc, writes: bool) -> Option<Result> {
    if writes {
        return Some(Result::Text);
    }
    Some(match btf.kind(btf.strip(kfunc.result).id) {
        Kind::Void | Kind::Int { .. } | Kind::Enum { .. } => Result::Number,
        Kind::Pointer(_) if kfunc.name == "bpf_rdonly_cast" => Result::Named,
        Kind::Pointer(to) => {
            let origin = if kfunc.flags.acquire() { Origin::Trusted } else { Origin::Kernel };
            let id = btf.strip(to).id;
            let target = match btf.kind(id) {
                Kind::Struct { .. } => Target::Type(id),
                _ => Target::Unknown,
            };
            Result::Pointer(Type::Pointer { target, origin })
        }
        _ => return None,
    })
}
