//! What the checker accepts, the verifier accepts: every attach point of this kernel, with every argument that can be read.

use std::collections::HashSet;

use porthole::compile::compile;
use porthole::declare::{Declaration, Event, Field, Probe, Step};
use porthole::kernel::{KernelFacts, Kind};
use porthole::load::load;
use porthole::plan::plan;

const RING: u32 = 1 << 16;

fn probe(name: String, attach: String, fields: Vec<(String, String)>) -> Probe {
    let fields = fields.into_iter().map(|(name, value)| Field { name, value }).collect();
    Probe { name, attach: vec![attach], body: vec![Step::Emit(Event { name: "e".into(), fields })] }
}

/// Probes of 64 fields each, with those of the expressions that the checker accepts at this attach point.
fn probes(facts: &KernelFacts, attach: &str, expressions: &[String]) -> Vec<Probe> {
    let mut accepted = Vec::new();
    for some in expressions.chunks(64) {
        let fields: Vec<_> = some.iter().enumerate().map(|(i, e)| (format!("f{i}"), e.clone())).collect();
        let all = probe("p".into(), attach.to_owned(), fields.clone());
        let refused: HashSet<String> = match plan(&Declaration { probes: vec![all], ..Declaration::default() }, facts) {
            Ok(_) => HashSet::new(),
            Err(faults) => faults.0.into_iter().map(|f| f.place).collect(),
        };
        assert!(!refused.contains("attach"), "{attach}: {refused:?}");
        let good = fields.into_iter().filter(|(name, _)| !refused.contains(&format!("field `{name}`")));
        accepted.extend(good.map(|(_, e)| e));
    }
    let named = |some: &[String]| some.iter().enumerate().map(|(i, e)| (format!("f{i}"), e.clone())).collect();
    let name = attach.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    // What is too long for a name is told from its like by its end.
    let name = format!("p_{}", &name[name.len().saturating_sub(54)..]);
    let chunks = accepted.chunks(64).enumerate();
    chunks.map(|(i, some)| probe(format!("{name}_{i}"), attach.to_owned(), named(some))).collect()
}

/// Loads the probes, many in one object; where that fails, one by one, to name those refused.
fn load_all(facts: &KernelFacts, probes: Vec<Probe>) -> Vec<String> {
    let mut refused = Vec::new();
    for some in probes.chunks(50) {
        if let Err(error) = load_some(facts, some.to_vec()) {
            let before = refused.len();
            for one in some {
                if let Err(error) = load_some(facts, vec![one.clone()]) {
                    refused.push(format!("{}: {error}", one.attach[0]));
                }
            }
            if refused.len() == before {
                refused.push(format!("only together: {error}"));
            }
        }
    }
    refused
}

fn load_some(facts: &KernelFacts, probes: Vec<Probe>) -> Result<(), String> {
    let declaration = Declaration { probes, ..Declaration::default() };
    let plan = plan(&declaration, facts).map_err(|e| e.to_string())?;
    let compiled = compile(&plan, "test", RING).map_err(|e| e.to_string())?;
    load(&compiled).map(drop).map_err(|e| e.to_string())
}

#[test]
fn root_every_tracepoint_loads_with_all_it_has() {
    let facts = KernelFacts::running();
    let names = facts.tracepoint_names().expect("tracepoints");
    assert!(names.len() > 500, "only {} tracepoints", names.len());
    let mut all = Vec::new();
    for (system, name) in &names {
        // Events of ftrace itself have a format and cannot be attached to.
        let Ok(Some(format)) = facts.tracepoint(system, name) else { continue };
        let args: Vec<String> = format.fields.iter().map(|f| format!("args.{}", f.name)).collect();
        all.extend(probes(&facts, &format!("tracepoint:{system}:{name}"), &args));
    }
    expect_loaded(&facts, all);
}

#[test]
fn root_every_raw_tracepoint_loads_with_all_it_has() {
    let facts = KernelFacts::running();
    let btf = facts.btf().expect("BTF");
    let names = facts.raw_tracepoint_names().expect("raw tracepoints");
    assert!(names.len() > 500, "only {} raw tracepoints", names.len());
    let mut all = Vec::new();
    for name in &names {
        let point = facts.raw_tracepoint(name).expect("facts").expect("it was listed");
        let mut expressions = Vec::new();
        for (arg, ty) in &point.params {
            expressions.push(format!("args.{arg}"));
            // Through pointers, every member of what they point to: direct loads, which the verifier checks by BTF.
            if let Kind::Pointer(to) = btf.kind(btf.strip(*ty).id) {
                let members = btf.member_names(btf.strip(to).id);
                expressions.extend(members.into_iter().map(|m| format!("args.{arg}.{m}")));
            }
        }
        all.extend(probes(&facts, &format!("rawtracepoint:{name}"), &expressions));
    }
    expect_loaded(&facts, all);
}

#[test]
fn root_every_iterator_loads_with_all_it_has() {
    let facts = KernelFacts::running();
    let btf = facts.btf().expect("BTF");
    let mut all = Vec::new();
    for kind in ITERATORS {
        let Some(Kind::Function { proto, .. }) = btf.function(&format!("bpf_iter_{kind}")).map(|id| btf.kind(id))
        else {
            println!("skipped: this kernel has no iterator {kind}");
            continue;
        };
        let Kind::Prototype { params, .. } = btf.kind(proto) else { panic!("{kind}: a function has a prototype") };
        let mut expressions = Vec::new();
        for (arg, ty) in params {
            expressions.push(format!("args.{arg}"));
            if let Kind::Pointer(to) = btf.kind(btf.strip(ty).id) {
                let members = btf.member_names(btf.strip(to).id);
                expressions.extend(members.into_iter().map(|m| format!("args.{arg}.{m}")));
            }
        }
        all.extend(probes(&facts, &format!("iter:{kind}"), &expressions));
    }
    expect_loaded(&facts, all);
}

const ITERATORS: [&str; 15] = [
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

#[test]
fn root_every_perf_event_loads_with_all_it_has() {
    let facts = KernelFacts::running();
    let all = ["profile:hz:99", "software:page-faults:1", "hardware:instructions", "watchpoint:0x1000:8:rw"];
    let args = ["args.sample_period", "args.addr"].map(str::to_owned);
    expect_loaded(&facts, all.into_iter().flat_map(|attach| probes(&facts, attach, &args)).collect());
}

fn expect_loaded(facts: &KernelFacts, probes: Vec<Probe>) {
    let fields: usize =
        probes.iter().filter_map(|p| if let Step::Emit(e) = &p.body[0] { Some(e.fields.len()) } else { None }).sum();
    let count = probes.len();
    println!("{count} programs with {fields} fields");
    let refused = load_all(facts, probes);
    assert!(refused.is_empty(), "{} of {count} refused:\n{}", refused.len(), refused.join("\n"));
}
