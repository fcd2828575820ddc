//! The attach points of a kernel and a machine, of every kind that there is.

use porthole::binary::Found;
use porthole::kernel::{Answer, Feature, KernelFacts, Kind};

use crate::random::Random;

/// Attach points by their kinds; a kind that is not here has none.
pub struct Points {
    kinds: Vec<(&'static str, Vec<String>)>,
    /// Hooks of security modules that have a file among their arguments.
    of_files: Vec<String>,
}

/// Clocks, events, and watchpoints on what is nobody's.
const PERF: [&str; 12] = [
    "profile:hz:99",
    "profile:us:50",
    "profile:ms:3",
    "software:page-faults:1",
    "software:context-switches",
    "software:cpu-clock:100000",
    "hardware:instructions",
    "hardware:cache-misses:7",
    "watchpoint:0x1000:8:rw",
    "watchpoint:0x2000:1:w",
    "watchpoint:0x3000:8:x",
    "watchpoint:0x1004:4:w:pid=1",
];

/// Kinds of iterators, of which a kernel may lack some.
pub const ITERATORS: [&str; 15] = [
    "bpf_link",
    "bpf_map",
    "bpf_prog",
    "cgroup",
    "dmabuf",
    "ipv6_route",
    "kmem_cache",
    "ksym",
    "netlink",
    "task",
    "task_file",
    "task_vma",
    "tcp",
    "udp",
    "unix",
];

/// Programs and libraries that are mostly there.
const BINARIES: [&str; 5] = ["libc", "libm", "libstdc++", "libpthread", "bash"];

impl Points {
    /// # Panics
    /// Where the kernel's facts cannot be had.
    pub fn of(facts: &KernelFacts) -> Points {
        let tracepoints = facts.tracepoint_names().expect("tracepoints").into_iter();
        let raw = facts.raw_tracepoint_names().expect("raw tracepoints").into_iter();
        let iterators =
            ITERATORS.iter().filter(|kind| facts.btf().expect("BTF").function(&format!("bpf_iter_{kind}")).is_some());
        let mut all = vec![
            // Events of ftrace itself have a format and cannot be attached to.
            ("tracepoint", tracepoints.filter(|(s, _)| s != "ftrace").map(|(s, n)| format!("{s}:{n}")).collect()),
            ("rawtracepoint", raw.collect()),
            ("iter", iterators.map(|kind| (*kind).to_owned()).collect()),
        ];
        for kind in ["profile", "software", "hardware", "watchpoint"] {
            let of_kind = PERF.iter().filter_map(|text| text.strip_prefix(kind)?.strip_prefix(':'));
            all.push((kind, of_kind.map(str::to_owned).collect()));
        }
        let (functions, markers) = in_binaries(facts);
        all.push(("uprobe", functions.clone()));
        all.push(("uretprobe", functions));
        all.push(("usdt", markers));
        for (kinds, feature, prefix) in [
            (["kprobe", "kretprobe"], Feature::Kprobe, ""),
            (["fentry", "fexit"], Feature::Fentry, ""),
            (["lsm", "lsm"], Feature::Lsm, "bpf_lsm_"),
        ] {
            if facts.offers(feature) == Answer::Yes {
                let names = facts.function_names(prefix).expect("functions");
                all.extend(kinds.map(|kind| (kind, names.clone())));
            }
        }
        all.retain(|(_, points)| !points.is_empty());
        let hooks = all.iter().find(|(kind, _)| *kind == "lsm").map(|(_, hooks)| hooks.clone()).unwrap_or_default();
        let of_files = hooks.into_iter().filter(|hook| has_file(facts, hook)).collect();
        Points { kinds: all, of_files }
    }

    /// The kinds that there are.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.kinds.iter().map(|(kind, _)| *kind)
    }

    /// One, or sometimes a few of a kind.
    pub fn draw(&self, random: &mut Random) -> Vec<String> {
        // There are many tracepoints, and much to be read at each.
        let kind = match random.below(3) {
            0 => random.below(2) as usize,
            _ => random.below(self.kinds.len() as u64) as usize,
        };
        let (kind, points) = &self.kinds[kind];
        // Much of what takes files may be called at hooks alone, and few of those have any.
        let points =
            if *kind == "lsm" && !self.of_files.is_empty() && random.below(3) == 0 { &self.of_files } else { points };
        let count = if random.below(10) == 0 { 2 + random.below(2) } else { 1 };
        let mut some: Vec<String> = Vec::new();
        for _ in 0..count {
            let point = format!("{kind}:{}", points[random.below(points.len() as u64) as usize]);
            if !some.contains(&point) {
                some.push(point);
            }
        }
        some
    }
}

/// Whether a hook's arguments include a pointer to a file.
fn has_file(facts: &KernelFacts, hook: &str) -> bool {
    let btf = facts.btf().expect("BTF");
    let function = facts.function(&format!("bpf_lsm_{hook}")).expect("functions");
    let is_file = |ty| match btf.kind(btf.strip(ty).id) {
        Kind::Pointer(to) => btf.tag(btf.strip(to).id) == "file",
        _ => false,
    };
    function.is_some_and(|function| function.params.iter().any(|(_, ty)| is_file(*ty)))
}

/// Functions and markers of [`BINARIES`].
fn in_binaries(facts: &KernelFacts) -> (Vec<String>, Vec<String>) {
    let (mut functions, mut markers) = (Vec::new(), Vec::new());
    for name in BINARIES {
        let Ok(binary) = facts.binary(name) else { continue };
        let plain = |text: &String| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let found = binary.function_names().into_iter().filter(plain);
        let found = found.filter(|function| matches!(binary.function(function), Found::Function(_)));
        functions.extend(found.map(|function| format!("{name}:{function}")));
        let of_binary = binary.markers().iter().map(|marker| format!("{name}:{}:{}", marker.provider, marker.name));
        markers.extend(of_binary);
    }
    markers.sort_unstable();
    markers.dedup();
    (functions, markers)
}
