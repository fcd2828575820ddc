//! Paths of files: up the directories, over mounts, and what stands in no directory.

use super::*;
use porthole::lower::Counter;
use porthole_tests::machine::{Memory, Space};

/// Files of a kernel.
#[derive(Default)]
pub struct Files {
    pub memory: Memory,
    made: u64,
}

/// Where a directory or file is: its `struct vfsmount` and its dentry.
#[derive(Clone, Copy)]
pub struct At {
    mount: u64,
    dentry: u64,
}

/// What a walk does at most.
const STEPS: usize = 48;

impl Files {
    pub fn new(memory: Memory) -> Files {
        Files { memory, made: 0 }
    }

    fn place(&mut self) -> u64 {
        self.made += 1;
        0xffff_8880_1000_0000 + 0x1_0000 * self.made
    }

    /// A dentry, which is its own parent where it has no other.
    fn dentry(&mut self, name: &[u8], parent: Option<u64>) -> u64 {
        let at = self.place();
        let name = self.memory.add(Space::Kernel, &[name, &[0; 257]].concat()).to_le_bytes();
        let parent = parent.unwrap_or(at).to_le_bytes();
        let bytes = structure("dentry", &[("d_parent", &parent), ("d_name.name", &name)]);
        self.memory.add_at(Space::Kernel, at, &bytes);
        at
    }

    /// A mount of the file system with this root; the first of all where it is mounted nowhere. Its `struct vfsmount`.
    fn mount(&mut self, root: u64, on: Option<At>) -> u64 {
        let (at, inside) = (self.place(), inside());
        let (outer, point) = on.map_or((at, root), |on| (on.mount - inside, on.dentry));
        let [root, outer, point] = [root, outer, point].map(u64::to_le_bytes);
        let members: [(&str, &[u8]); 3] = [("mnt.mnt_root", &root), ("mnt_parent", &outer), ("mnt_mountpoint", &point)];
        self.memory.add_at(Space::Kernel, at, &structure("mount", &members));
        at + inside
    }

    /// A file system, mounted there.
    pub fn file_system(&mut self, on: Option<At>) -> At {
        let dentry = self.dentry(b"/", None);
        At { mount: self.mount(dentry, on), dentry }
    }

    /// What lies below a directory, by the names on the way.
    pub fn below(&mut self, from: At, names: &[&[u8]]) -> At {
        let dentry = names.iter().fold(from.dentry, |parent, name| self.dentry(name, Some(parent)));
        At { dentry, ..from }
    }

    /// The `struct file` of what is opened there.
    pub fn open(&mut self, at: At) -> u64 {
        let (mount, dentry) = (at.mount.to_le_bytes(), at.dentry.to_le_bytes());
        let bytes = structure("file", &[("f_path.mnt", &mount), ("f_path.dentry", &dentry)]);
        self.memory.add(Space::Kernel, &bytes)
    }
}

/// Of the `struct vfsmount` in a `struct mount`.
fn inside() -> u64 {
    let btf = FACTS.btf().unwrap();
    u64::from(btf.member(btf.structure("mount").unwrap(), "mnt").unwrap().bit_offset) / 8
}

/// The values of expressions in which `#` is this number, and the faults.
fn of_number(files: Files, number: u64, expressions: &[&str]) -> (Vec<String>, u64) {
    let mut record = vec![0; facts::RECORD];
    set(&mut record, "u64", number as i64);
    let expressions: Vec<String> = expressions.iter().map(|e| e.replace('#', "args.u64")).collect();
    let names: Vec<String> = (0..expressions.len()).map(|n| format!("f{n}")).collect();
    let fields = names.iter().map(String::as_str).zip(expressions.iter().map(String::as_str));
    let plan = plan(&declaration::of_fields(MADE, fields), &FACTS).unwrap_or_else(|e| panic!("{e}"));
    let mut machine = Machine::new(&plan).unwrap_or_else(|e| panic!("{e}"));
    let outcome = machine.run(0, &record, &Rc::new(World { memory: files.memory, ..World::new() }));
    let values = machine.decode(&outcome.records[0]).into_iter().map(|(_, value)| value.to_string());
    (values.collect(), outcome.counter(Counter::Faults))
}

const OF_FILE: &str = "path((struct file *)#)";

#[track_caller]
fn is(files: Files, file: u64, path: &str) {
    assert_eq!(of_number(files, file, &[OF_FILE]), (vec![path.to_owned()], 0));
}

#[test]
fn names_on_the_way_are_joined() {
    let longest = [b'n'; 255];
    for (names, path) in [
        (vec![&b"etc"[..], b"passwd"], "\"/etc/passwd\"".to_owned()),
        (vec![b"a"], "\"/a\"".to_owned()),
        (vec![], "\"/\"".to_owned()),
        (vec![b"a b", b"\xff\n\"", b"c"], "\"/a b/\\xff\\n\\\"/c\"".to_owned()),
        (vec![&longest, b"x", &longest], format!("\"/{0}/x/{0}\"", "n".repeat(255))),
    ] {
        let mut files = Files::default();
        let root = files.file_system(None);
        let at = files.below(root, &names);
        let file = files.open(at);
        is(files, file, &path);
    }
}

#[test]
fn mounts_are_gone_over() {
    let mut files = Files::default();
    let first = files.file_system(None);
    // As the first file system lies below that which one sees.
    let root = files.file_system(Some(first));
    let point = files.below(root, &[b"mnt", b"disk"]);
    let disk = files.file_system(Some(point));
    let deep = files.below(disk, &[b"home", b"me"]);
    // A directory that is mounted elsewhere: what lies above it there is not on the way.
    let there = files.below(root, &[b"srv"]);
    let bound = At { mount: files.mount(deep.dentry, Some(there)), dentry: deep.dentry };
    let [in_disk, in_bound] = [deep, bound].map(|from| files.below(from, &[b"file"]));
    for (at, path) in [
        (in_disk, "/mnt/disk/home/me/file"),
        (in_bound, "/srv/file"),
        (disk, "/mnt/disk"),
        (bound, "/srv"),
        (root, "/"),
        (first, "/"),
    ] {
        let file = files.open(at);
        let memory = files.memory.clone();
        is(Files { memory, made: 0 }, file, &format!("\"{path}\""));
    }
    // Of a dentry alone nobody can tell where its file system is mounted.
    let (values, faults) = of_number(files, in_bound.dentry, &["path((struct dentry *)#)"]);
    assert_eq!((values[0].as_str(), faults), ("\"/home/me/file\"", 0));
}

#[test]
fn what_is_in_no_directory_has_its_own_name() {
    for name in ["[eventpoll]", "", "TCP", "memfd:x"] {
        let mut files = Files::default();
        let inner = files.file_system(None);
        let at = At { dentry: files.dentry(name.as_bytes(), None), ..inner };
        let file = files.open(at);
        is(files, file, &format!("\"{name}\""));
    }
    let mut files = Files::default();
    let root = files.dentry(b"/", None);
    let (values, _) = of_number(files, root, &["path((struct dentry *)#)"]);
    assert_eq!(values[0], "\"/\"");
    // It has been taken out of its file system, and some directory is left above it.
    let mut files = Files::default();
    let first = files.file_system(None);
    let lost = files.dentry(b"lost", None);
    let at = files.below(At { dentry: lost, ..first }, &[b"a", b"b"]);
    let file = files.open(at);
    is(files, file, "\"/a/b\"");
}

#[test]
fn long_paths_are_cut_at_their_end() {
    let mut files = Files::default();
    let root = files.file_system(None);
    let at = files.below(root, &[b"usr", b"lib", b"x"]);
    let file = files.open(at);
    let expressions: Vec<String> = (1..=11).map(|n| format!("path((struct file *)#, {n})")).collect();
    let expressions: Vec<&str> = expressions.iter().map(String::as_str).collect();
    let (values, _) = of_number(files, file, &expressions);
    let wanted = (1..=11).map(|n| match n {
        10.. => "\"/usr/lib/x\"".to_owned(),
        _ => format!("\"{}\"…", &"/usr/lib/x"[..n]),
    });
    assert_eq!(values, wanted.collect::<Vec<_>>());
}

/// What is deeper than the walk goes is told without its beginning, and with the mark of a text that was cut.
#[test]
fn deep_paths_lose_their_beginning() {
    let names: Vec<String> = (0..60).map(|n| format!("d{n}")).collect();
    for depth in [STEPS - 2, STEPS - 1, STEPS, STEPS + 1, 60] {
        let mut files = Files::default();
        let root = files.file_system(None);
        let below: Vec<&[u8]> = names[..depth].iter().map(String::as_bytes).collect();
        let at = files.below(root, &below);
        let file = files.open(at);
        // The root is a step as well.
        let wanted = if depth < STEPS {
            format!("\"/{}\"", names[..depth].join("/"))
        } else {
            format!("\"{}\"…", names[depth - STEPS..depth].join("/"))
        };
        is(files, file, &wanted);
    }
    // Each mount is a step.
    let mut files = Files::default();
    let mut at = files.file_system(None);
    for _ in 0..60 {
        let point = files.below(at, &[b"m"]);
        at = files.file_system(Some(point));
    }
    let file = files.open(at);
    is(files, file, &format!("\"{}\"…", ["m"; STEPS / 2].join("/")));
}

#[test]
fn what_cannot_be_read_is_absent() {
    let broken = |dentry: u64, mount: u64| {
        let mut files = Files::default();
        let file = files.open(At { mount, dentry });
        of_number(files, file, &[OF_FILE])
    };
    let absent = |faults| (vec!["absent".to_owned()], faults);
    assert_eq!(of_number(Files::default(), 0, &[OF_FILE]), absent(0));
    assert_eq!(of_number(Files::default(), 0, &["path((struct dentry *)#)"]), absent(0));
    assert_eq!(of_number(Files::default(), 4096, &[OF_FILE]), absent(1));
    assert_eq!(of_number(Files::default(), 4096, &["path((struct dentry *)#)"]), absent(1));
    let mut files = Files::default();
    let root = files.file_system(None);
    let memory = files.memory.clone();
    let mut files = Files { memory, made: 9 };
    let file = files.open(At { dentry: 0, ..root });
    assert_eq!(of_number(files, file, &[OF_FILE]), absent(0), "a file that is not opened yet");
    assert_eq!(broken(4096, 8192), absent(1));
}

#[test]
fn paths_are_texts() {
    let mut files = Files::default();
    let root = files.file_system(None);
    let at = files.below(root, &[b"etc", b"passwd"]);
    let file = files.open(at);
    let expressions = [
        ("path((struct file *)#) == \"/etc/passwd\"", "true"),
        ("starts_with(path((struct file *)#), \"/etc/\")", "true"),
        ("contains(path(((struct file *)#).f_path), \"pass\")", "true"),
        ("ends_with(path(&((struct file *)#).f_path, 4), \"/etc\")", "true"),
        ("path((struct file *)#) == path(((struct file *)#).f_path.dentry)", "true"),
        ("path((struct file *)#) in (\"/\", \"/etc\")", "false"),
        ("args.b ? path((struct file *)#) : comm", "\"cat\""),
        ("args.b ? comm : path((struct file *)#)", "\"/etc/passwd\""),
        ("path(*(struct path *)&((struct file *)#).f_path)", "\"/etc/passwd\""),
    ];
    for (expression, value) in expressions {
        let memory = files.memory.clone();
        let found = of_number(Files { memory, made: 0 }, file, &[expression]);
        assert_eq!(found, (vec![value.to_owned()], 0), "{expression}");
    }
}

#[test]
fn a_bound_path_is_found_once() {
    let mut files = Files::default();
    let root = files.file_system(None);
    let at = files.below(root, &[b"var", b"log"]);
    let file = files.open(at);
    let mut record = vec![0; facts::RECORD];
    set(&mut record, "u64", file as i64);
    let of = |path: &str, last: &str| {
        let text = format!(
            "probe p\nattach {MADE}\nbind p = path((struct file *)args.u64)\nwhen {path} != \"/etc\"\nemit e\n  a = {path}\n  b = comm\n{last}"
        );
        plan(&declaration::parse(&text).unwrap(), &FACTS).unwrap_or_else(|e| panic!("{e}"))
    };
    let plan = of("p", "  c = p\n");
    // One more use is a few instructions, where the way up the directories is hundreds.
    let size = |plan| porthole::compile::compile(plan, "test", 1 << 16).unwrap().object.disassemble().lines().count();
    let again = "path((struct file *)args.u64)";
    let (once, used, found) = (size(&of("p", "")), size(&plan), size(&of("p", &format!("  c = {again}\n"))));
    assert!(used < once + 50 && found > once + 100, "{once}, used again {used}, found again {found}");
    let mut machine = Machine::new(&plan).unwrap();
    let outcome = machine.run(0, &record, &Rc::new(World { memory: files.memory, ..World::new() }));
    let values = machine.decode(&outcome.records[0]).into_iter().map(|(_, value)| value.to_string());
    assert_eq!(values.collect::<Vec<_>>(), ["\"/var/log\"", "\"cat\"", "\"/var/log\""]);
}
