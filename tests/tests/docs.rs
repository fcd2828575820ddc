//! What the documentation shows is what happens. The Rust code in it is compiled by the SDK's doctests, expressions are
//! tried by `expressions`.

mod e2e;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use porthole::kernel::KernelFacts;
use porthole::kernel::kfunc::{Usage, all_known};
use porthole::lower::{MAX_PATHS, MAX_STEPS};
use porthole::plan::layout::Schema;
use porthole::plan::{MAX_KFUNCS, MAX_NESTED_WALKS, MAX_SEARCHED, STR_DEFAULT, STR_MAX, kind_name, plan};
use porthole_tests::machine::{Machine, Memory, Space, World};
use porthole_tests::{declaration, facts, golden};

/// docs/records.md: the example's schema, and its record byte by byte.
#[test]
fn the_record_is_what_the_declaration_gives() {
    let page = page("docs/records.md");
    let declaration = declaration::parse(block(&page, "declaration")).unwrap();
    let plan = plan(&declaration, &facts::recorded()).unwrap_or_else(|e| panic!("{e}"));
    assert_shown(&page, "schema", &schema(&plan.schemas[0]));

    let mut memory = Memory::default();
    let path = memory.add(Space::User, b"/etc/hostname\0");
    // A task of zeros, with no parent: more bytes than a task_struct has.
    let task = memory.add(Space::Kernel, &[0; 16 * 1024]);
    // int dfd, const char *filename, int flags, each in 8 bytes behind the 16 of what all system calls' records have.
    let context = [[0; 2], [0, path], [0, 0]].concat().into_iter().flat_map(u64::to_le_bytes).collect::<Vec<u8>>();
    let mut machine = Machine::new(&plan).unwrap();
    let outcome = machine.run(0, &context, &Rc::new(World { task, memory, ..World::new() }));
    assert_eq!(outcome.records.len(), 1, "{outcome:?}");
    assert_shown(&page, "record", &dump(&outcome.records[0]));
}

/// docs/plugins.md: the message about a wrong name.
#[test]
fn the_message_is_what_the_fault_gives() {
    let page = page("docs/plugins.md");
    let declaration = declaration::parse(
        "probe unlink\nattach tracepoint:syscalls:sys_enter_unlinkat\nemit unlink\n  pid = pid\n  path = str(args.pathnam)\n",
    );
    let Err(faults) = plan(&declaration.unwrap(), &facts::recorded()) else { panic!("it is accepted") };
    assert_shown(&page, "text", &format!("error: unlinks: its declaration has 1 fault:\n{faults}"));
}

/// docs/plugins.md: the three files make a plugin, which is accepted.
#[test]
fn the_guides_plugin_builds_and_is_accepted() {
    let page = page("docs/plugins.md");
    let component = built("unlinks", block(page.split_once("`.cargo/config.toml`").unwrap().1, "rust"));
    // What the SDK promises of plugins that pull in no formatting.
    assert!(fs::metadata(&component).unwrap().len() < 60_000, "the component has grown");
    let checked = e2e::porthole().args(["check", "--no-cache"]).arg(&component).output().unwrap();
    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(text.contains("path = str(args.pathname) : text of at most 256 bytes"), "{text}");
}

/// docs/plugins.md: the event that calls the kernel's functions has the values that they give.
#[test]
fn root_the_guides_kfuncs_are_called() {
    if !e2e::is_root() {
        return;
    }
    for kfunc in ["bpf_task_from_pid", "bpf_iter_task_new"] {
        if KernelFacts::running().kfunc(kfunc).expect("facts").is_none() {
            println!("skipped: this kernel does not have {kfunc}");
            return;
        }
    }
    if std::env::var_os("PORTHOLE_TEST_HOST").is_some() {
        println!("skipped: no plugin can be built here");
        return;
    }
    let page = page("docs/plugins.md");
    let event = block(page.split_once("## Calling the kernel's functions").unwrap().1, "rust");
    let rest = "
        #[derive(Default)]
        struct Ancestry;

        impl Plugin for Ancestry {
            type Event<'a> = Exec;
            fn on(&mut self, exec: &Exec, out: &mut Output) {
                out.row(exec);
            }
        }

        porthole_guest::register!(Ancestry);
    ";
    let host = e2e::host::Run::new(&built("ancestry", &format!("{event}{rest}"))).attach();
    // Of the shell there are as many threads as of any, and as many children as it waits for.
    let shell = ["-c", "sleep 0 & /bin/true; wait; exit 0"];
    let mut shell = Command::new("/bin/sh").args(shell).spawn().unwrap();
    let (pid, parent) = (shell.id(), std::process::id());
    assert!(shell.wait().unwrap().success());
    let rows = host.interrupt().successful().rows();
    let named = |comm: &str, grandparent: u32| {
        let found = |row: &&serde_json::Value| {
            row["fields"]["comm"] == comm
                && row["fields"]["grandparent"] == grandparent
                && row["fields"]["parent"] == "sh"
        };
        rows.iter().find(found).unwrap_or_else(|| panic!("no {comm} below {pid} in {rows:#?}"))["fields"].clone()
    };
    let vpid = KernelFacts::running().kfunc("bpf_task_from_vpid").expect("facts");
    let init = vpid.map(|_| fs::read_to_string("/proc/1/comm").unwrap().trim_end().to_owned());
    let init = serde_json::Value::from(init);
    for comm in ["sleep", "true"] {
        let row = named(comm, parent);
        assert_eq!(row["threads_of_parent"], 1, "{row:#}");
        if row["init"].is_null() {
            println!("skipped: this kernel or machine keeps its first process from being found by its number");
        } else {
            assert_eq!(row["init"], init, "{row:#}");
        }
        // The other one may have come and gone.
        assert!((1..=2).contains(&row["siblings"].as_u64().unwrap()), "{row:#}");
    }
}

/// docs/kfuncs.md: bounds, each where it is told.
#[test]
fn bounds_of_kfuncs_are_those_of_the_compiler() {
    let page = page("docs/kfuncs.md");
    let deep = ["one", "two", "three"][MAX_NESTED_WALKS - 1];
    for told in [
        format!("| kfuncs of a declaration | {MAX_KFUNCS} |"),
        format!(", times the operations of the probe | {MAX_PATHS} |"),
        format!("whose bounds multiplied are {MAX_SEARCHED} at most"),
        format!("that is a constant from 1 to {STR_MAX}; others give at most {STR_DEFAULT} |"),
        format!("Walks may stand {deep} deep in one another."),
        format!("All walks of a hit make {MAX_STEPS} steps together at most"),
    ] {
        assert!(page.contains(&told), "docs/kfuncs.md does not say: {told}");
    }
}

/// A plugin of this code, with the guide's other two files.
fn built(name: &str, code: &str) -> PathBuf {
    let page = page("docs/plugins.md");
    let root = root();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let (manifest, config) = page.split_once("`.cargo/config.toml`").unwrap();
    let sdk = root.join("guest-sdk");
    let manifest = block(manifest, "toml").replace("../porthole/guest-sdk", sdk.to_str().unwrap());
    write("Cargo.toml", &manifest.replace("\"unlinks\"", &format!("{name:?}")));
    write(".cargo/config.toml", block(config, "toml"));
    write("src/lib.rs", code);
    // The crates that the examples have been built with, so that nothing need be fetched.
    fs::copy(root.join("examples/Cargo.lock"), directory.join("Cargo.lock")).unwrap();

    // Where the examples are built, as it needs the same crates.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--offline", "--release", "--target", "wasm32-unknown-unknown"]).current_dir(&directory);
    let built = cargo.env("CARGO_TARGET_DIR", target).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    target.join(format!("wasm32-unknown-unknown/release/{name}.wasm"))
}

/// As the README says it: the files that it and the other pages lead to are there.
#[test]
fn links_lead_somewhere() {
    let root = root();
    let mut pages = vec![root.join("README.md"), root.join("ARCHITECTURE.md"), root.join("CHANGELOG.md")];
    let examples = fs::read_dir(root.join("examples")).unwrap().map(|entry| entry.unwrap().path());
    let examples = examples.filter(|path| path.join("README.md").exists());
    let folders = ["docs", "examples", "guest-sdk", "tests/guests"].map(|folder| root.join(folder));
    for folder in folders.into_iter().chain(examples) {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(files.filter(|path| path.extension().is_some_and(|e| e == "md")));
    }
    let mut wrong = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let file = target.split('#').next().unwrap_or_default();
            if !page.parent().unwrap().join(file).exists() {
                wrong.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// docs/kfuncs.md: what plugins do not call, and why, is what the table of kfuncs has.
#[test]
fn the_kfuncs_that_plugins_do_not_call_are_those_of_the_table() {
    let (mut by_the_host, mut by_nobody) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
    for known in all_known() {
        match known.usage {
            Usage::Call => {}
            Usage::Host(instead) => by_the_host.entry(instead).or_default().push(known.name),
            Usage::No(why) => by_nobody.entry(why).or_default().push(known.name),
        }
    }
    let table = |head: &str, rows: BTreeMap<&str, Vec<&str>>| {
        let row = |(why, names): (&str, Vec<&str>)| {
            let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
            format!("| {} | {why} |\n", names.join(", "))
        };
        format!("| kfuncs | {head} |\n|---|---|\n{}", rows.into_iter().map(row).collect::<String>())
    };
    let page = page("docs/kfuncs.md");
    let sections = ["## Those that the host calls itself\n", "## Those that no plugin can call\n"];
    let (written, _) = page.split_once(sections[0]).unwrap();
    let actual = format!(
        "{written}{}\nA plugin does not call these.\n\n{}\n{}\n{}",
        sections[0],
        table("what to write", by_the_host),
        sections[1],
        table("why not", by_nobody)
    );
    if std::env::var_os(golden::BLESS).is_some() {
        fs::write(root().join("docs/kfuncs.md"), &actual).unwrap();
        return;
    }
    assert!(actual == page, "docs/kfuncs.md differs from the table; write it anew by {}=1", golden::BLESS);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// The first block of this kind.
fn block<'a>(page: &'a str, kind: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("```{kind}\n")).unwrap_or_else(|| panic!("no block of {kind}"));
    rest.split_once("```").unwrap().0
}

fn assert_shown(page: &str, kind: &str, actual: &str) {
    assert_eq!(block(page, kind).trim_end(), actual.trim_end(), "the page should show:\n{actual}");
}

fn schema(schema: &Schema) -> String {
    let mut text = format!("id {}, probe {}, event {}, {} bytes\n", schema.id, schema.probe, schema.name, schema.size);
    for field in &schema.fields {
        let _ = writeln!(text, "offset {}: {}, {}", field.offset, field.name, kind_name(&field.kind));
    }
    text
}

/// As `hexdump -C` shows bytes.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, number) in bytes.chunks(16).zip(0..) {
        let hex: Vec<String> = line.iter().map(|b| format!("{b:02x}")).collect();
        let shown = line.iter().map(|b| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '.' });
        let _ = writeln!(text, "{:3}  {:<47}  {}", 16 * number, hex.join(" "), shown.collect::<String>());
    }
    text
}
