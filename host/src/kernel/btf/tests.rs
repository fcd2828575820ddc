use super::modules::KERNEL;
use super::part::size;
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
    assert_eq!(btf.kind(id), Kind::Int { name: "int".to_owned(), bytes: 4, signed: true, char: false, bool: false });
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
    let types =
        [[at("a"), info(8, false, 0), 1].as_slice(), &[0, info(4, false, 1), 4, 0, 2, 0], &[0, info(2, false, 0), 3]]
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
    let base = Btf::from_bytes(&made(24, &[name_at(names, "int"), info(1, false, 0), 4, 1 << 24 | 32], names)).unwrap();
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
