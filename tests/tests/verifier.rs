//! What the checker accepts, the verifier accepts: every attach point of this kernel, with every argument that can be
//! read.

use std::collections::HashSet;

use porthole::compile::compile;
use porthole::declare::{Declaration, Event, Field, Probe, Step};
use porthole::kernel::{Answer, Feature, Function, KernelFacts, Kind};
use porthole::load::load;
use porthole::plan::plan;
use porthole_tests::generate::points::ITERATORS;

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
    // What is too long for a name is told from its like by its kind and its end.
    let (kind, end) = (&name[..name.len().min(5)], &name[name.len().saturating_sub(50)..]);
    let name = format!("{kind}_{end}");
    let chunks = accepted.chunks(64).enumerate();
    chunks.map(|(i, some)| probe(format!("{name}_{i}"), attach.to_owned(), named(some))).collect()
}

/// Loads the probes, many in one object; where that fails, one by one, to name those refused.
fn load_all(facts: &KernelFacts, probes: Vec<Probe>) -> Vec<String> {
    let mut refused = Vec::new();
    for some in probes.chunks(50) {
        if let Err(error) = load_some(facts, some.to_vec()) {
            let (before, mut of_kernel) = (refused.len(), false);
            for one in some {
                match load_some(facts, vec![one.clone()]) {
                    // That lies in the function, and has been told as such.
                    Err(error) if error.contains("lets no program attach there") => {
                        println!("{error}");
                        of_kernel = true;
                    }
                    Err(error) => refused.push(format!("{}: {error}", one.attach[0])),
                    Ok(()) => {}
                }
            }
            if refused.len() == before && !of_kernel {
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

/// Arrays of `atomic_long_t`, which is a structure by another name, in structures that the verifier vouches for.
#[test]
fn root_elements_whose_type_has_a_name_load() {
    let facts = KernelFacts::running();
    let elements = [
        (
            "rawtracepoint:mm_compaction_defer_reset",
            &["args.zone.vm_stat[0].counter", "args.zone.vm_stat[1].counter"][..],
        ),
        ("rawtracepoint:mm_khugepaged_scan_pmd", &["args.mm.rss_stat.count[1].counter"]),
    ];
    // Linux 6.1 has both, later ones the first.
    let found = elements.iter().flat_map(|(attach, values)| {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        probes(&facts, attach, &values)
    });
    let found: Vec<Probe> = found.collect();
    assert!(!found.is_empty());
    expect_loaded(&facts, found);
}

#[test]
fn root_every_perf_event_loads_with_all_it_has() {
    let facts = KernelFacts::running();
    let all = ["profile:hz:99", "software:page-faults:1", "hardware:instructions", "watchpoint:0x1000:8:rw"];
    let args = ["args.sample_period", "args.addr"].map(str::to_owned);
    expect_loaded(&facts, all.into_iter().flat_map(|attach| probes(&facts, attach, &args)).collect());
}

/// Functions whose programs are loaded; they have all kinds of arguments between them.
const FUNCTIONS: usize = 400;

/// A kprobe and a kretprobe of functions spread over all there are, with every argument, what it points to, and the
/// result.
#[test]
fn root_kprobes_load_with_all_they_have() {
    let facts = KernelFacts::running();
    let registers = ["reg(\"ip\")".to_owned(), "arg5".to_owned()];
    let mut all = Vec::new();
    for (name, function) in functions(&facts, "") {
        let expressions = [arguments(&facts, &function), registers.to_vec()].concat();
        all.extend(at_function(&facts, &format!("kprobe:{name}"), &expressions));
        all.extend(at_function(&facts, &format!("kretprobe:{name}"), &["retval".to_owned(), registers[0].clone()]));
    }
    assert!(all.len() > FUNCTIONS, "only {} programs", all.len());
    expect_loaded(&facts, all);
}

/// The same with programs that are bound to the function's type, where this kernel has any.
#[test]
fn root_fentries_and_fexits_load_with_all_they_have() {
    let facts = KernelFacts::running();
    if let Answer::No(why) = facts.offers(Feature::Fentry) {
        println!("skipped: this kernel has no fentry: {why}");
        return;
    }
    let mut all = Vec::new();
    for (name, function) in functions(&facts, "") {
        let arguments = arguments(&facts, &function);
        all.extend(at_function(&facts, &format!("fentry:{name}"), &arguments));
        all.extend(at_function(&facts, &format!("fexit:{name}"), &[arguments, vec!["retval".to_owned()]].concat()));
    }
    assert!(all.len() > FUNCTIONS, "only {} programs", all.len());
    expect_loaded(&facts, all);
}

#[test]
fn root_hooks_load_with_all_they_have() {
    let facts = KernelFacts::running();
    if let Answer::No(why) = facts.offers(Feature::Lsm) {
        println!("skipped: this kernel has no lsm: {why}");
        return;
    }
    let all: Vec<Probe> = functions(&facts, "bpf_lsm_")
        .iter()
        .flat_map(|(name, function)| at_function(&facts, &format!("lsm:{name}"), &arguments(&facts, function)))
        .collect();
    assert!(all.len() > 100, "only {} programs", all.len());
    expect_loaded(&facts, all);
}

/// Functions spread over all whose names begin so, by the rest of their names.
fn functions(facts: &KernelFacts, prefix: &str) -> Vec<(String, Function)> {
    let names = facts.function_names(prefix).expect("functions");
    let found = |name: String| {
        let function = facts.function(&format!("{prefix}{name}")).expect("facts").expect("it was listed");
        (name, function)
    };
    let step = (names.len() / FUNCTIONS).max(1);
    names.into_iter().step_by(step).map(found).collect()
}

/// The arguments, and what those that are pointers point to.
fn arguments(facts: &KernelFacts, function: &Function) -> Vec<String> {
    let btf = facts.btf().expect("BTF");
    let mut expressions = Vec::new();
    for (arg, ty) in &function.params {
        expressions.push(format!("args.{arg}"));
        if let Kind::Pointer(to) = btf.kind(btf.strip(*ty).id) {
            let members = btf.member_names(btf.strip(to).id);
            expressions.extend(members.into_iter().take(40).map(|m| format!("args.{arg}.{m}")));
        }
    }
    expressions
}

/// As [`probes`]; none where nothing can be attached there, as not every function of BTF is one that can be traced.
fn at_function(facts: &KernelFacts, attach: &str, expressions: &[String]) -> Vec<Probe> {
    let alone = probe("p".into(), attach.to_owned(), Vec::new());
    match plan(&Declaration { probes: vec![alone], ..Declaration::default() }, facts) {
        Ok(_) => probes(facts, attach, expressions),
        Err(_) => Vec::new(),
    }
}

fn expect_loaded(facts: &KernelFacts, probes: Vec<Probe>) {
    let fields: usize =
        probes.iter().filter_map(|p| if let Step::Emit(e) = &p.body[0] { Some(e.fields.len()) } else { None }).sum();
    let count = probes.len();
    println!("{count} programs with {fields} fields");
    let refused = load_all(facts, probes);
    assert!(refused.is_empty(), "{} of {count} refused:\n{}", refused.len(), refused.join("\n"));
}
