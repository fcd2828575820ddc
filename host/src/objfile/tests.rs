use std::ffi::{CStr, c_char};

use libbpf_rs::{AsRawLibbpf, MapCore, MapFlags, ObjectBuilder};
use object::{Object as _, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind, SymbolKind};

use super::*;
use crate::bpf::Reg::*;
use crate::bpf::Size::*;
use crate::bpf::Width::*;
use crate::bpf::{AluOp, CType, Cond, FunctionIndex, Insn, Item, KfuncIndex, Label, MapIndex, ReasonId, assemble};
use crate::kernel::KernelFacts;
use crate::load::perf::open_tracepoint;

const GETPPID_ENTER: &str = "tracepoint/syscalls/sys_enter_getppid";
const GETPPID_EXIT: &str = "tracepoint/syscalls/sys_exit_getppid";

// Ids of helpers.
const MAP_LOOKUP_ELEM: u32 = 1;
const GET_CURRENT_PID_TGID: u32 = 14;
const RINGBUF_OUTPUT: u32 = 130;

fn entry(name: &str, section: &str, items: &[Item]) -> Function {
    Function { name: name.into(), role: Role::Entry { section: section.into() }, code: assemble(items).unwrap() }
}

fn subprogram(name: &str, parameters: u8, linkage: Linkage, insns: &[Insn]) -> Function {
    let items: Vec<Item> = insns.iter().copied().map(Item::Insn).collect();
    Function { name: name.into(), role: Role::Subprogram { parameters, linkage }, code: assemble(&items).unwrap() }
}

fn map(name: &str, kind: MapKind, sizes: (u32, u32), max_entries: u32) -> MapDef {
    MapDef { name: name.into(), kind, key_size: sizes.0, value_size: sizes.1, max_entries, flags: 0 }
}

fn reason(text: &str, line: u32) -> Reason {
    Reason { file: "ppid:enter".into(), line, column: 3, text: text.into() }
}

/// Returns 0.
fn nothing() -> Vec<Item> {
    vec![Insn::mov_imm(W64, R0, 0).into(), Insn::exit().into()]
}

fn this_thread() -> i32 {
    // SAFETY: the call takes and changes nothing.
    unsafe { libc::gettid() }
}

/// Adds `add(n, 2)` to the first value of map `counts` for each call by this thread.
fn counting(n: i32) -> Vec<Item> {
    let out = Label(0);
    vec![
        Insn::call_helper(GET_CURRENT_PID_TGID).because(ReasonId(0)).into(),
        Insn::jump_if_imm(Cond::Ne, W32, R0, this_thread(), out).into(),
        Insn::store_imm(B4, R10, -4, 0).into(),
        Insn::load_map(R1, MapIndex(0)).because(ReasonId(1)).into(),
        Insn::mov(W64, R2, R10).into(),
        Insn::alu_imm(AluOp::Add, W64, R2, -4).into(),
        Insn::call_helper(MAP_LOOKUP_ELEM).into(),
        Insn::jump_if_imm(Cond::Eq, W64, R0, 0, out).into(),
        Insn::mov(W64, R6, R0).into(),
        Insn::mov_imm(W64, R1, n).into(),
        Insn::mov_imm(W64, R2, 2).into(),
        Insn::call_function(FunctionIndex(1)).because(ReasonId(0)).into(),
        Insn::atomic_add(W64, R6, 0, R0).into(),
        Item::Bind(out),
        Insn::mov_imm(W64, R0, 0).into(),
        Insn::exit().into(),
    ]
}

/// Two programs that share a subprogram, which has one of its own; two maps.
fn sample() -> Object {
    let add = [
        Insn::mov(W64, R6, R1),
        Insn::mov(W64, R1, R2).because(ReasonId(1)),
        Insn::call_function(FunctionIndex(3)),
        Insn::alu(AluOp::Add, W64, R0, R6),
        Insn::exit(),
    ];
    let same = [Insn::mov(W64, R0, R1), Insn::exit()];
    Object {
        license: "GPL".into(),
        functions: vec![
            entry("on_enter", GETPPID_ENTER, &counting(10)),
            subprogram("add", 2, Linkage::Static, &add),
            entry("on_exit", GETPPID_EXIT, &counting(100)),
            subprogram("same", 1, Linkage::Global, &same),
            entry("on_enter_too", GETPPID_ENTER, &nothing()),
        ],
        maps: vec![map("counts", MapKind::Array, (4, 8), 1), map("events", MapKind::RingBuf, (0, 0), 4096)],
        kfuncs: Vec::new(),
        data: Vec::new(),
        reasons: vec![reason("pid == 1", 7), reason("@counts[0]", 9)],
    }
}

#[test]
fn the_same_object_gives_the_same_bytes() {
    assert_eq!(write(&sample()).unwrap(), write(&sample()).unwrap());
}

#[test]
fn sections_symbols_and_relocations_are_where_libbpf_looks() {
    let bytes = write(&sample()).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    assert_eq!(file.architecture(), object::Architecture::Bpf);
    assert_eq!(file.section_by_name("license").unwrap().data().unwrap(), b"GPL\0");
    let code = |name| file.section_by_name(name).filter(|s| s.kind() == SectionKind::Text).unwrap();
    // 15 instructions of which one is wide, and the two of `on_enter_too`.
    assert_eq!((code(".text").size(), code(GETPPID_ENTER).size(), code(GETPPID_EXIT).size()), (56, 18 * 8, 16 * 8));

    let symbol = |name| {
        let symbol = file.symbol_by_name(name).unwrap();
        (symbol.kind(), symbol.address(), symbol.size(), symbol.is_local())
    };
    assert_eq!(symbol("on_enter"), (SymbolKind::Text, 0, 16 * 8, false));
    assert_eq!(symbol("on_enter_too"), (SymbolKind::Text, 16 * 8, 16, false));
    assert_eq!(symbol("add"), (SymbolKind::Text, 0, 40, true));
    assert_eq!(symbol("same"), (SymbolKind::Text, 40, 16, false));
    assert_eq!(symbol("counts"), (SymbolKind::Data, 0, 32, false));
    assert_eq!(symbol("events"), (SymbolKind::Data, 32, 16, false));

    let relocations = |section| -> Vec<(u64, String)> {
        let named = |target| match target {
            RelocationTarget::Symbol(index) => file.symbol_by_index(index).unwrap().name().unwrap().to_owned(),
            other => panic!("{other:?}"),
        };
        code(section).relocations().map(|(offset, relocation)| (offset, named(relocation.target()))).collect()
    };
    assert_eq!(relocations(GETPPID_ENTER), [(3 * 8, "counts".to_owned()), (12 * 8, "add".to_owned())]);
    assert_eq!(relocations(".text"), [(2 * 8, "same".to_owned())]);
}

#[test]
fn types_read_back() {
    let bytes = write(&sample()).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let btf = btf_rs::Btf::from_bytes(file.section_by_name(".BTF").unwrap().data().unwrap()).unwrap();
    let function = |name: &str| match &btf.resolve_types_by_name(name).unwrap()[..] {
        [btf_rs::Type::Func(function)] => function.clone(),
        other => panic!("{name}: {other:?}"),
    };
    let parameters = |name: &str| match btf.resolve_chained_type(&function(name)).unwrap() {
        btf_rs::Type::FuncProto(prototype) => prototype.parameters.len(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!((parameters("on_enter"), parameters("add"), parameters("same")), (1, 2, 1));
    assert!(function("on_enter").is_global() && function("add").is_static() && function("same").is_global());
    let [btf_rs::Type::Var(events)] = &btf.resolve_types_by_name("events").unwrap()[..] else { panic!("no variable") };
    let btf_rs::Type::Struct(definition) = btf.resolve_chained_type(events).unwrap() else { panic!("no struct") };
    let members: Vec<String> = definition.members.iter().map(|member| btf.resolve_name(member).unwrap()).collect();
    assert_eq!(members, ["type", "max_entries"]);
}

#[test]
fn every_function_has_a_line_for_its_first_instruction() {
    let bytes = write(&sample()).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let btf = file.section_by_name(".BTF").unwrap().data().unwrap();
    let ext = file.section_by_name(".BTF.ext").unwrap().data().unwrap();
    let word = |data: &[u8], at: usize| u32::from_le_bytes(data[at..at + 4].try_into().unwrap()) as usize;
    let string = |offset: usize| {
        let strings = word(btf, 4) + word(btf, 16);
        CStr::from_bytes_until_nul(&btf[strings + offset..]).unwrap().to_str().unwrap()
    };
    let mut found = Vec::new();
    let mut at = word(ext, 4) + word(ext, 16) + 4;
    while at < word(ext, 4) + word(ext, 16) + word(ext, 20) {
        let (section, count) = (string(word(ext, at)), word(ext, at + 4));
        for record in (at + 8..).step_by(16).take(count) {
            let (line, column) = (word(ext, record + 12) >> 10, word(ext, record + 12) & 0x3ff);
            found.push((section, word(ext, record), string(word(ext, record + 8)), line, column));
        }
        at += 8 + 16 * count;
    }
    let expected = [
        (".text", 0, "add", 0, 0),
        (".text", 8, "@counts[0]", 9, 3),
        (".text", 40, "same", 0, 0),
        (GETPPID_ENTER, 0, "pid == 1", 7, 3),
        (GETPPID_ENTER, 3 * 8, "@counts[0]", 9, 3),
        (GETPPID_ENTER, 12 * 8, "pid == 1", 7, 3),
        (GETPPID_ENTER, 16 * 8, "on_enter_too", 0, 0),
        (GETPPID_EXIT, 0, "pid == 1", 7, 3),
        (GETPPID_EXIT, 3 * 8, "@counts[0]", 9, 3),
        (GETPPID_EXIT, 12 * 8, "pid == 1", 7, 3),
    ];
    assert_eq!(found, expected);
}

#[test]
fn libbpf_opens_it() {
    let bytes = write(&sample()).unwrap();
    let opened = ObjectBuilder::default().open_memory(&bytes).unwrap();
    let programs: Vec<_> = opened.progs().map(|p| (p.name().to_owned(), p.section().to_owned())).collect();
    let expected = [("on_enter", GETPPID_ENTER), ("on_enter_too", GETPPID_ENTER), ("on_exit", GETPPID_EXIT)];
    assert_eq!(programs, expected.map(|(name, section)| (name.into(), section.into())));
    let maps: Vec<_> = opened.maps().map(|m| (m.name().to_owned(), m.max_entries())).collect();
    assert_eq!(maps, [("counts".into(), 1), ("events".into(), 4096)]);
}

#[test]
fn listing_names_what_is_referred_to() {
    let listing = sample().disassemble();
    assert!(
        listing.starts_with("program on_enter in tracepoint/syscalls/sys_enter_getppid:\n; ppid:enter:7 pid == 1\n")
    );
    assert!(listing.contains(": r1 = map counts\n"));
    assert!(listing.contains(": call function add\n"));
    assert!(listing.contains("\nstatic function add of 2:\n"));
}

type Change<'a> = &'a dyn Fn(&mut Object);

#[test]
fn faults_of_the_compiler_are_told() {
    let refused = |change: Change<'_>| {
        let mut object = sample();
        change(&mut object);
        write(&object).unwrap_err().to_string()
    };
    let calls = |insn: Insn| {
        move |object: &mut Object| object.functions[0].code = assemble(&[insn.into(), Insn::exit().into()]).unwrap()
    };
    let table: [(Change<'_>, &str); 11] = [
        (&|o| o.license = "G\0L".into(), "the license contains a NUL"),
        (&|o| o.maps[0].name = "a b".into(), "`a b` is no C identifier of at most 127 bytes"),
        (&|o| o.maps[0].name = "add".into(), "`add` is the name of two functions, maps or kfuncs of one object"),
        (
            &|o| o.functions[0].role = Role::Entry { section: ".maps".into() },
            "function `on_enter` cannot be in section `.maps`",
        ),
        (
            &|o| o.functions[1].role = Role::Subprogram { parameters: 6, linkage: Linkage::Static },
            "function `add` has 6 parameters; BPF passes 5",
        ),
        (&|o| o.functions[0].code = Code::default(), "function `on_enter` has no instructions"),
        (&|o| o.reasons.clear(), "function `on_enter` gives reason 0, which the object does not have"),
        (
            &calls(Insn::load_map(R1, MapIndex(2))),
            "function `on_enter` refers to Map(MapIndex(2)) at slot 0, which the object does not have",
        ),
        (
            &calls(Insn::call_kfunc(KfuncIndex(0))),
            "function `on_enter` refers to Kfunc(KfuncIndex(0)) at slot 0, which the object does not have",
        ),
        (
            &calls(Insn::call_function(FunctionIndex(2))),
            "function `on_enter` calls the program `on_exit` at slot 0; only subprograms can be called",
        ),
        (
            &calls(Insn::load_data(R1, 8)),
            "function `on_enter` refers to Data(8) at slot 0, which the object does not have",
        ),
    ];
    for (change, message) in table {
        assert_eq!(refused(change), message);
    }
}

/// Loads the object with the verifier's log of program `name` at this level; gives the log too.
fn load(object: &Object, name: &str, level: u32) -> (libbpf_rs::Result<libbpf_rs::Object>, String) {
    let mut log = vec![0_u8; 1 << 20];
    let mut opened = ObjectBuilder::default().open_memory(&write(object).unwrap()).unwrap();
    for mut program in opened.progs_mut().filter(|program| program.name() == name) {
        program.set_log_level(level);
        let start = log.as_mut_ptr().cast::<c_char>();
        // SAFETY: the program is alive, and the buffer of the given length outlives the load that writes it.
        let status = unsafe {
            libbpf_sys::bpf_program__set_log_buf(program.as_libbpf_object().as_ptr(), start, log.len() as u64)
        };
        assert_eq!(status, 0);
    }
    let loaded = opened.load();
    (loaded, CStr::from_bytes_until_nul(&log).unwrap().to_string_lossy().into_owned())
}

/// The verifier's log tells a reason's text, and that of newer kernels (6.12, not 6.1) its place.
#[track_caller]
fn says_why(log: &str, text: &str, place: &str) {
    if !log.contains(" @ ") {
        println!("skipped: this kernel's verifier tells no places");
    }
    let expected = if log.contains(" @ ") { format!("; {text} @ {place}") } else { format!("; {text}\n") };
    assert!(log.contains(&expected), "{log}");
}

/// Attaches a program to the tracepoint that its section names. libbpf would ask a tracefs that is mounted, and none
/// need be.
fn attach(program: &libbpf_rs::ProgramMut<'_>) -> libbpf_rs::Link {
    let name = program.section().to_string_lossy().rsplit_once('/').unwrap().1.to_owned();
    let format = KernelFacts::running().tracepoint("syscalls", &name).unwrap().unwrap();
    let event = open_tracepoint(format.id).unwrap();
    // The link takes the descriptor over, and closes it.
    program.attach_perf_event(std::os::fd::IntoRawFd::into_raw_fd(event)).unwrap()
}

fn getppid(times: u64) {
    for _ in 0..times {
        // SAFETY: the call takes and changes nothing.
        unsafe { libc::getppid() };
    }
}

#[test]
fn root_two_programs_share_a_subprogram_and_a_map() {
    let (loaded, log) = load(&sample(), "on_enter", 2);
    let loaded = loaded.unwrap_or_else(|error| panic!("{error}\n{log}"));
    says_why(&log, "pid == 1", "ppid:enter:7");
    let programs: Vec<_> = loaded.progs_mut().filter(|program| program.name() != "on_enter_too").collect();
    let links: Vec<_> = programs.iter().map(attach).collect();
    getppid(1000);
    drop(links);
    let counts = loaded.maps().find(|map| map.name() == "counts").unwrap();
    let sum = counts.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
    assert_eq!(u64::from_ne_bytes(sum.try_into().unwrap()), 1000 * (12 + 102));
}

#[test]
fn root_a_ring_buffer_carries_records() {
    let out = Label(0);
    let program = [
        Insn::call_helper(GET_CURRENT_PID_TGID).into(),
        Insn::store(B8, R10, -8, R0).into(),
        Insn::jump_if_imm(Cond::Ne, W32, R0, this_thread(), out).into(),
        Insn::load_map(R1, MapIndex(0)).into(),
        Insn::mov(W64, R2, R10).into(),
        Insn::alu_imm(AluOp::Add, W64, R2, -8).into(),
        Insn::mov_imm(W64, R3, 8).into(),
        Insn::mov_imm(W64, R4, 0).into(),
        Insn::call_helper(RINGBUF_OUTPUT).into(),
        Item::Bind(out),
        Insn::mov_imm(W64, R0, 0).into(),
        Insn::exit().into(),
    ];
    let object = Object {
        license: "GPL".into(),
        functions: vec![entry("on_enter", GETPPID_ENTER, &program)],
        maps: vec![map("a_ring_whose_name_the_kernel_cuts", MapKind::RingBuf, (0, 0), 1 << 16)],
        ..Object::default()
    };
    let loaded = load(&object, "on_enter", 0).0.unwrap();
    let link = attach(&loaded.progs_mut().next().unwrap());
    let received = std::cell::RefCell::new(Vec::new());
    let ring = loaded.maps().next().unwrap();
    let mut builder = libbpf_rs::RingBufferBuilder::new();
    builder
        .add(&ring, |record| {
            received.borrow_mut().push(u64::from_ne_bytes(record.try_into().unwrap()));
            0
        })
        .unwrap();
    let consumer = builder.build().unwrap();
    getppid(10);
    drop(link);
    consumer.consume().unwrap();
    drop(consumer);
    let expected = u64::from(std::process::id()) << 32 | u64::from(this_thread().unsigned_abs());
    assert_eq!(received.into_inner(), [expected; 10]);
}

#[test]
fn root_the_verifier_speaks_of_the_reason() {
    let text = "args.flags & O_CREAT\n/* naïve */";
    let program =
        [Insn::mov_imm(W64, R2, 0).into(), Insn::load(B8, R0, R2, 0).because(ReasonId(0)).into(), Insn::exit().into()];
    let object = Object {
        license: "GPL".into(),
        functions: vec![entry("wrong", GETPPID_ENTER, &program)],
        reasons: vec![Reason { file: "opens:enter".into(), line: 3, column: 1, text: text.into() }],
        ..Object::default()
    };
    let (loaded, log) = load(&object, "wrong", 1);
    assert!(loaded.is_err());
    says_why(&log, "args.flags & O_CREAT /* naïve */", "opens:enter:3");
    assert!(log.contains("R2 invalid mem access 'scalar'"), "{log}");
}

#[test]
fn root_kfuncs_are_found_by_their_prototypes() {
    let facts = KernelFacts::running();
    let btf = facts.btf().unwrap();
    if btf.function("bpf_task_from_pid").is_none() {
        println!("skipped: this kernel has no kfunc bpf_task_from_pid");
        return;
    }
    let pointer = |to: CType| CType::Pointer(Box::new(to));
    let task = || pointer(CType::Struct("task_struct".into()));
    let int = |bytes, signed| CType::Int { bytes, signed };
    let kfunc =
        |name: &str, result, parameters: &[CType]| Kfunc { name: name.into(), parameters: parameters.to_vec(), result };
    let out = Label(0);
    let program = [
        Insn::call_helper(GET_CURRENT_PID_TGID).into(),
        Insn::mov(W64, R1, R0).into(),
        Insn::call_kfunc(KfuncIndex(0)).into(),
        Insn::jump_if_imm(Cond::Eq, W64, R0, 0, out).into(),
        Insn::mov(W64, R1, R0).into(),
        Insn::call_kfunc(KfuncIndex(1)).into(),
        Item::Bind(out),
        Insn::mov_imm(W64, R0, 0).into(),
        Insn::exit().into(),
    ];
    let mask = pointer(CType::Struct("cpumask".into()));
    let pid_type = CType::Enum("pid_type".into());
    let mut kfuncs = vec![
        kfunc("bpf_task_from_pid", task(), &[int(4, true)]),
        kfunc("bpf_task_release", CType::Void, &[task()]),
        // Not called, but found nonetheless.
        kfunc("bpf_cpumask_test_cpu", CType::Bool, &[int(4, false), mask]),
        kfunc("scx_bpf_reenqueue_local___v2", CType::Void, &[]),
        kfunc("bpf_send_signal_task", int(4, true), &[task(), int(4, true), pid_type, int(8, false)]),
    ];
    kfuncs.retain(|kfunc| {
        let there = btf.function(&kfunc.name).is_some();
        if !there {
            println!("skipped: this kernel has no kfunc {}", kfunc.name);
        }
        there
    });
    let object = Object {
        license: "GPL".into(),
        functions: vec![entry("takes_task", "tp_btf/sched_switch", &program)],
        kfuncs,
        ..Object::default()
    };
    let (loaded, log) = load(&object, "takes_task", 2);
    loaded.unwrap_or_else(|error| panic!("{error}\n{log}"));
    assert!(log.contains("call bpf_task_from_pid#"), "{log}");
}

#[test]
fn root_the_kernel_makes_each_kind_of_map() {
    const NO_PREALLOC: u32 = 1;
    const MMAPABLE: u32 = 1 << 10;
    let kinds = [
        (MapKind::Hash, (8, 8), 16, 0),
        (MapKind::Array, (4, 8), 16, 0),
        (MapKind::ProgArray, (4, 4), 4, 0),
        (MapKind::PerfEventArray, (4, 4), 4, 0),
        (MapKind::PerCpuHash, (8, 8), 16, 0),
        (MapKind::PerCpuArray, (4, 8), 16, 0),
        (MapKind::StackTrace, (4, 8 * 16), 64, 0),
        (MapKind::CgroupArray, (4, 4), 4, 0),
        (MapKind::LruHash, (8, 8), 16, 0),
        (MapKind::LruPerCpuHash, (8, 8), 16, 0),
        (MapKind::LpmTrie, (8, 8), 16, NO_PREALLOC),
        (MapKind::Queue, (0, 8), 16, 0),
        (MapKind::Stack, (0, 8), 16, 0),
        (MapKind::RingBuf, (0, 0), 4096, 0),
        (MapKind::BloomFilter, (0, 8), 16, 0),
        (MapKind::UserRingBuf, (0, 0), 4096, 0),
        (MapKind::Arena, (0, 0), 16, MMAPABLE),
    ];
    let mut maps = Vec::new();
    for (kind, sizes, entries, flags) in kinds {
        // SAFETY: null stands for no options.
        if unsafe { libbpf_sys::libbpf_probe_bpf_map_type(kind.number(), std::ptr::null()) } == 0 {
            println!("skipped: this kernel has no maps of the kind {kind:?}");
            continue;
        }
        maps.push(MapDef { flags, ..map(&format!("{kind:?}"), kind, sizes, entries) });
    }
    let there = maps.len();
    assert!(there >= 14, "all but three kinds are older than any kernel that has what tracing needs");
    let object = Object { license: "GPL".into(), maps, ..Object::default() };
    let loaded = ObjectBuilder::default().open_memory(&write(&object).unwrap()).unwrap().load().unwrap();
    assert_eq!(loaded.maps().count(), there);
}
