//! Functions of the kernel: programs that fire at them see what the caller passed and got.
//!
//! Each condition compares what a program sees with what this test did; so a probe emits once for each time that it was
//! done, and what others do on the machine is filtered. What this kernel does not offer is skipped, and said; there the
//! refusal is looked at instead.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use porthole::compile::{Compiled, compile};
use porthole::declare::{Declaration, Event, Field, Probe, Step};
use porthole::kernel::{Answer, Feature, KernelFacts};
use porthole::load::{Counts, LoadError, check_privileges, load};
use porthole::plan::{AttachPoint, Plan, PointPlan, plan};
use porthole_tests::machine::Value;
use porthole_tests::{facts, live};

const RING: u32 = 1 << 16;
/// How often things are done.
const TIMES: u64 = 7;
/// Bytes asked for, a number that nobody else asks for.
const ASKED: usize = 7777;
/// Bytes there are.
const THERE: &[u8] = b"abc";

/// A probe that emits where the condition holds.
fn probe(name: &str, attach: &str, when: &str, field: &str) -> Probe {
    let fields = vec![Field { name: "f".into(), value: field.into() }];
    let when = format!("pid == {} && {when}", std::process::id());
    let body = vec![Step::When(when), Step::Emit(Event { name: "e".into(), fields })];
    Probe { name: name.into(), attach: vec![attach.into()], body }
}

/// Whether the feature is there; where not, it is said, and made sure that the load says it too, by name.
fn offered(facts: &KernelFacts, feature: Feature, attach: &str) -> bool {
    if let Err(error) = check_privileges() {
        println!("skipped: {error}");
        return false;
    }
    let answer = facts.offers(feature);
    let Answer::No(why) = &answer else { return true };
    println!("skipped: this kernel has no {}: {why}", feature.name());
    match run(facts, vec![probe("p", attach, "true", "pid")], || ()) {
        Err(LoadError::NotOffered { feature: told, at, .. }) => {
            assert_eq!((told, at.as_str()), (feature.name(), attach))
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("{attach} was attached to, and {} is not offered", feature.name()),
    }
    false
}

fn compiled(facts: &KernelFacts, probes: Vec<Probe>) -> (Plan, Compiled) {
    let plan = plan(&Declaration { probes, ..Declaration::default() }, facts).unwrap_or_else(|e| panic!("{e}"));
    let compiled = compile(&plan, "test", RING).unwrap_or_else(|e| panic!("{e}"));
    (plan, compiled)
}

/// Attaches the probes, does `work`, and tells what became of each probe's hits.
fn run(facts: &KernelFacts, probes: Vec<Probe>, work: impl FnOnce()) -> Result<Vec<Counts>, LoadError> {
    let (plan, compiled) = compiled(facts, probes);
    let mut attached = load(&compiled)?.attach(&plan)?;
    work();
    attached.detach();
    attached.counts(plan.probes.len())
}

fn expect_each(facts: &KernelFacts, probes: Vec<Probe>, work: impl FnOnce()) {
    let names: Vec<String> = probes.iter().map(|p| p.attach[0].clone()).collect();
    let counts = run(facts, probes, work).unwrap_or_else(|e| panic!("{e}"));
    for (name, counts) in names.iter().zip(&counts) {
        assert_eq!(counts.emitted, TIMES, "{name}: {counts:?}");
        assert_eq!(counts.hits, counts.filtered + counts.emitted + counts.lost, "{name}: {counts:?}");
    }
}

/// The recorded kernel, with what it offers and how its lists name its functions as told.
fn told(name: &str, features: &str, kallsyms: &str, traceable: &str) -> KernelFacts {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("functions-{name}"));
    let write = |file: &str, bytes: &[u8]| std::fs::write(directory.join(file), bytes).expect("it can be written");
    for inner in ["btf", "events"] {
        std::fs::create_dir_all(directory.join(inner)).expect("it can be made");
    }
    for btf in ["btf/vmlinux", "btf/booth"] {
        // Never changed, for others may have it mapped.
        if !directory.join(btf).exists() {
            write(btf, &std::fs::read(facts::directory().join(btf)).expect("it is there"));
        }
    }
    write("features", features.as_bytes());
    write("kallsyms", kallsyms.as_bytes());
    write("available_filter_functions", traceable.as_bytes());
    KernelFacts::from_dir(&directory)
}

/// The attach point that is found, or the fault.
fn found(facts: &KernelFacts, attach: &str) -> String {
    let declaration = Declaration { probes: vec![probe("p", attach, "true", "pid")], ..Declaration::default() };
    match plan(&declaration, facts) {
        Ok(plan) => plan.probes[0].points[0].attach.to_string(),
        Err(faults) => faults.0[0].message.clone(),
    }
}

#[test]
fn func_is_the_best_that_the_kernel_offers() {
    let both = "0 T vfs_read\n0 t init_once\n0 t init_once\n0 T entry_SYSCALL_64\n";
    for (name, features, expected) in [
        ("both", "fentry\nkprobe\n", "fentry:vfs_read"),
        ("kprobe", "kprobe\n", "kprobe:vfs_read"),
        ("fentry", "fentry\n", "fentry:vfs_read"),
        ("neither", "", "fentry:vfs_read"),
    ] {
        assert_eq!(found(&told(name, features, both, "vfs_read\n"), "func:vfs_read"), expected, "{name}");
    }
    // A function with more arguments than registers, where fentry cannot take it.
    let (map, traceable) = ("0 T do_mmap\n", "do_mmap\n");
    assert_eq!(found(&told("many", "fentry\nkprobe\n", map, traceable), "func:do_mmap"), "kprobe:do_mmap");
    let features = "fentry\nfentry with more than 6 arguments\nkprobe\n";
    assert_eq!(found(&told("stack", features, map, traceable), "func:do_mmap"), "fentry:do_mmap");
    // A function that BTF does not describe.
    let facts = told("undescribed", "fentry\nkprobe\n", both, "vfs_read\nentry_SYSCALL_64\n");
    assert_eq!(found(&facts, "func:entry_SYSCALL_64"), "kprobe:entry_SYSCALL_64");
}

/// Programs at both entry and return are attached by names, and the kernel looks for a name in itself and in all
/// modules.
#[test]
fn a_function_whose_name_is_not_its_own_has_no_duration() {
    let symbols = "0 T vfs_read\n0 T twice\n0 t once\t[some]\n0 t both\t[some]\n0 t both\t[other]\n0 t twice\t[some]\n";
    let traceable = "vfs_read\ntwice\nonce [some]\nboth [some]\nboth [other]\ntwice [some]\n";
    let facts = told("ambiguous", "kprobe\nkprobe.multi\nkprobe.session\n", symbols, traceable);
    for (attach, expected) in [
        ("kretprobe:vfs_read", Ok("kprobe.session")),
        ("kretprobe:some:once", Ok("kprobe.session")),
        ("kretprobe:some:both", Err("several functions are named `both`, and `duration` is told of one by its name")),
        ("kretprobe:some:twice", Err("several functions are named `twice`, and `duration` is told of one by its name")),
    ] {
        match plan(&live::probe(&[attach], "true", &["duration"]), &facts) {
            Ok(plan) => assert_eq!(Ok(plan.probes[0].points[0].section().as_str()), expected, "{attach}"),
            Err(faults) => assert_eq!(Err(faults.0[0].message.as_str()), expected, "{attach}"),
        }
    }
    // Nor is it told then that `kretprobe` has it.
    let features = "fentry\nkprobe\nkprobe.multi\nkprobe.session\n";
    for (symbols, expected) in [
        ("0 T vfs_read\n0 t booth_sell\t[booth]\n", "`kretprobe:booth:booth_sell` has it"),
        (
            "0 T booth_sell\n0 t booth_sell\t[booth]\n",
            "a handler can subtract the `nsecs` of an event at `fentry` from those of one at `fexit`",
        ),
    ] {
        let facts = told("way-out", features, symbols, "vfs_read\nbooth_sell\nbooth_sell [booth]\n");
        let faults = plan(&live::probe(&["fexit:booth:booth_sell"], "true", &["duration"]), &facts).unwrap_err();
        assert!(faults.to_string().ends_with(&format!("= help: {expected}")), "{faults}");
    }
}

#[test]
fn functions_that_cannot_be_traced_are_told() {
    let symbols = "0 T vfs_read\n0 T vfs_open\n0 T vfs_write\t[some]\n0 t fput.isra.0\n";
    let facts = told("untraceable", "fentry\nkprobe\n", symbols, "vfs_read\nvfs_write\n");
    for (attach, expected) in [
        ("kprobe:vfs_read", "kprobe:vfs_read"),
        (
            "fentry:vfs_open",
            "`vfs_open` cannot be traced: the kernel is built so that no tracer can hook into it (notrace)",
        ),
        (
            "kprobe:vfs_open",
            "`vfs_open` cannot be traced: the kernel is built so that no tracer can hook into it (notrace)",
        ),
        ("kprobe:vfs_write", "kprobe:some:vfs_write"),
        ("kretprobe:some:vfs_write", "kretprobe:some:vfs_write"),
        ("func:some:vfs_write", "kprobe:some:vfs_write"),
        ("fentry:vfs_write", "BTF does not describe `some:vfs_write`, and fentry needs that"),
        ("kprobe:other:vfs_write", "the module other has no function `vfs_write`"),
        ("kprobe:some:vfs_read", "the module some has no function `vfs_read`"),
        ("kprobe:some:vfs_wriet", "the module some has no function `vfs_wriet`"),
        ("kprobe:other:vfs_wriet", "no module `other` is loaded"),
        ("fentry:do_filp_open", "`do_filp_open` cannot be traced: the compiler has put it into its callers"),
        ("func:fput", "the compiler has made variants of `fput`, and there is none of that name"),
        ("kprobe:fput.isra.0", "kprobe:fput.isra.0"),
    ] {
        assert_eq!(found(&facts, attach), expected);
    }
}

/// A file with [`THERE`] in it, which goes when this is dropped.
struct Made(PathBuf);

impl Drop for Made {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// A file, and its inode's number.
fn file(name: &str) -> (Made, u64) {
    let name = format!("functions-{name}-{}", std::process::id());
    // Of a file of an overlay the kernel opens the one behind it, too; this is a file system without.
    let path = Path::new("/dev/shm").join(name);
    std::fs::write(&path, THERE).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let inode = std::fs::metadata(&path).expect("it has just been made").ino();
    (Made(path), inode)
}

fn read(path: &Path) {
    let mut file = File::open(path).expect("it is there");
    for _ in 0..TIMES {
        let mut bytes = [0; ASKED];
        assert!(file.read(&mut bytes).expect("it can be read") <= THERE.len());
        std::io::Seek::rewind(&mut file).expect("it is a file");
    }
}

#[test]
fn root_fentry_and_fexit_see_arguments_and_result() {
    let facts = KernelFacts::running();
    if !offered(&facts, Feature::Fentry, "fentry:vfs_read") {
        return;
    }
    let (path, inode) = file("fentry");
    let asked = format!("args.count == {ASKED}");
    let of_file = format!("args.file.f_inode.i_ino == {inode}");
    let probes = vec![
        probe("entry", "fentry:vfs_read", &asked, "args.pos"),
        probe("file", "f:vfs_read", &of_file, "args.file.f_flags"),
        probe("exit", "fexit:vfs_read", &format!("{asked} && {of_file} && retval == {}", THERE.len()), "retval"),
        probe("best", "func:vfs_read", &asked, "args.count"),
    ];
    expect_each(&facts, probes, || read(&path.0));
}

/// A pointer that is returned may be an error. Nothing can be read through it, and nothing breaks.
#[test]
fn root_fexit_follows_what_is_returned() {
    let facts = KernelFacts::running();
    // It has another name from 7.2 on.
    let name = ["do_filp_open", "do_file_open"].into_iter().find(|name| matches!(facts.function(name), Ok(Some(_))));
    let attach = format!("fexit:{}", name.expect("files are opened"));
    if !offered(&facts, Feature::Fentry, &attach) {
        return;
    }
    let (path, inode) = file("fexit");
    let probes = vec![
        probe("opened", &attach, &format!("retval.f_inode.i_ino == {inode}"), "retval"),
        probe("failed", &attach, "retval == -2", "retval"),
    ];
    expect_each(&facts, probes, || {
        for _ in 0..TIMES {
            File::open(&path.0).expect("it is there");
            File::open("/no/such/file").expect_err("it is not there");
        }
    });
}

#[test]
fn root_kprobe_and_kretprobe_see_registers() {
    let facts = KernelFacts::running();
    if !offered(&facts, Feature::Kprobe, "kprobe:vfs_read") {
        return;
    }
    let (path, inode) = file("kprobe");
    let asked = format!("args.count == {ASKED}");
    let of_file = format!("args.file.f_inode.i_ino == {inode}");
    let registers = format!("arg2 == {ASKED} && reg(\"dx\") == arg2 && reg(\"di\") == arg0 && reg(\"ip\") > 4095");
    let probes = vec![
        probe("entry", "kprobe:vfs_read", &format!("{asked} && {of_file}"), "args.pos"),
        probe("registers", "k:vfs_read", &registers, "arg3"),
        // No other read of this test returns so many bytes.
        probe("result", "kretprobe:vfs_read", &format!("retval == {}", THERE.len()), "retval"),
    ];
    expect_each(&facts, probes, || read(&path.0));
}

/// A page's number in a file that nobody else maps.
const PAGE: u64 = 77_777;

/// Maps the file from [`PAGE`] on.
fn map(path: &Path) {
    let file = File::open(path).expect("it is there");
    for _ in 0..TIMES {
        let offset = libc::off_t::try_from(PAGE * 4096).expect("it is small");
        // SAFETY: the kernel chooses an address that is free, and nothing is read there.
        unsafe {
            let at =
                libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), offset);
            assert_ne!(at, libc::MAP_FAILED);
            libc::munmap(at, 4096);
        }
    }
}

/// The last arguments of `do_mmap` are on the stack: from Linux 6.6 on the page's number, and always the head of a
/// list, which is empty.
const MAPPED: &str = "args.pgoff == 77777 && args.uf.next == args.uf";

#[test]
fn root_kprobe_sees_arguments_on_the_stack() {
    let facts = KernelFacts::running();
    if !offered(&facts, Feature::Kprobe, "kprobe:do_mmap") {
        return;
    }
    let names = facts.function("do_mmap").expect("facts").expect("it is there").params;
    let number = names.iter().position(|(name, _)| name == "uf").expect("it has it");
    assert!(number > 5, "it is not on the stack");
    let (path, _) = file("stack");
    let probes = vec![
        probe("named", "kprobe:do_mmap", MAPPED, "args.pgoff"),
        probe("numbered", "kprobe:do_mmap", &format!("{MAPPED} && arg{number} == args.uf"), "args.uf"),
    ];
    expect_each(&facts, probes, || map(&path.0));
}

#[test]
fn root_fentry_sees_arguments_on_the_stack() {
    let facts = KernelFacts::running();
    if offered(&facts, Feature::Fentry, "fentry:do_mmap") && offered(&facts, Feature::FentryOnStack, "fentry:do_mmap") {
        let (path, _) = file("slots");
        let probes = vec![
            probe("entry", "fentry:do_mmap", MAPPED, "args.pgoff"),
            probe("exit", "fexit:do_mmap", &format!("{MAPPED} && retval > 0"), "retval"),
        ];
        expect_each(&facts, probes, || map(&path.0));
    }
}

/// What takes arguments on the stack is chosen by what this kernel has.
#[test]
fn root_func_is_what_can_be_attached() {
    let facts = KernelFacts::running();
    if !offered(&facts, Feature::Kprobe, "kprobe:do_mmap") {
        return;
    }
    let fentry = facts.offers(Feature::FentryOnStack) == Answer::Yes;
    assert_eq!(found(&facts, "func:do_mmap"), if fentry { "fentry:do_mmap" } else { "kprobe:do_mmap" });
    let (path, _) = file("best");
    expect_each(&facts, vec![probe("best", "func:do_mmap", MAPPED, "args.pgoff")], || map(&path.0));
}

/// A command that there is not, for bpf(2) to refuse.
const COMMAND: u32 = 7777;

/// Calls bpf(2) with attributes at this address.
fn refused_command(at: &[u8; 64]) {
    for _ in 0..TIMES {
        // SAFETY: the kernel reads the attributes at most.
        let result = unsafe { libc::syscall(libc::SYS_bpf, COMMAND, at.as_ptr(), at.len()) };
        assert_eq!(result, -1);
    }
}

#[test]
fn root_structures_are_passed_by_value() {
    let facts = KernelFacts::running();
    if !offered(&facts, Feature::Kprobe, "kprobe:__sys_bpf") {
        return;
    }
    let attributes = [0; 64];
    let address = attributes.as_ptr() as u64;
    let passed = format!(
        "args.cmd == {COMMAND} && args.uattr.user == {address} && !args.uattr.is_kernel && args.size == {}",
        attributes.len()
    );
    let mut probes = vec![probe("registers", "kprobe:__sys_bpf", &passed, "args.size")];
    if facts.offers(Feature::Fentry) == Answer::Yes {
        probes.push(probe("entry", "fentry:__sys_bpf", &passed, "args.uattr.user"));
        probes.push(probe("exit", "fexit:__sys_bpf", &format!("{passed} && retval == -22"), "retval"));
    }
    expect_each(&facts, probes, || refused_command(&attributes));
}

#[test]
fn root_structures_are_returned_by_value() {
    const OWNER: u32 = 4_242_424;
    let facts = KernelFacts::running();
    if !offered(&facts, Feature::Kprobe, "kretprobe:make_kuid") {
        return;
    }
    let (path, _) = file("owner");
    let probes = vec![
        probe("id", "kretprobe:make_kuid", &format!("retval.val == {OWNER}"), "retval.val"),
        probe("of", "kprobe:make_kuid", &format!("args.uid == {OWNER}"), "args.uid"),
    ];
    expect_each(&facts, probes, || {
        (0..TIMES).for_each(|_| std::os::unix::fs::chown(&path.0, Some(OWNER), None).expect("this is root"));
    });
}

/// What is the same at several functions is one program, where the kernel links one to several, and all events are
/// there either way.
#[test]
fn root_a_pattern_attaches_to_all_that_it_matches() {
    let facts = KernelFacts::running();
    if !offered(&facts, Feature::Kprobe, "kprobe:vfs_read") {
        return;
    }
    let multi = facts.offers(Feature::KprobeMulti) == Answer::Yes;
    if !multi {
        println!("skipped: this kernel has no kprobe.multi; perf events are used");
    }
    let (path, inode) = file("pattern");
    let asked = format!("args.count == {ASKED} && args.file.f_inode.i_ino == {inode}");
    let probes = vec![
        probe("entry", "kprobe:vfs_{read,write}", &asked, "args.count"),
        probe("return", "kretprobe:vfs_{read,write}", &format!("retval == {}", THERE.len()), "retval"),
        // By registers, each has a program of its own everywhere.
        probe("apart", "kprobe:vfs_{read,write}", &format!("{asked} && reg(\"ip\") > 4095"), "args.count"),
    ];
    let (plan, compiled) = compiled(&facts, probes);
    assert_eq!(compiled.programs.len(), if multi { 4 } else { 6 });
    let mut attached = load(&compiled).and_then(|loaded| loaded.attach(&plan)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((attached.points(), attached.left_out().len()), (6, 0));
    read(&path.0);
    attached.detach();
    for counts in attached.counts(plan.probes.len()).expect("they can be read") {
        assert_eq!((counts.emitted, counts.hits), (TIMES, counts.filtered + TIMES), "{counts:?}");
    }
}

/// By one program at both entries and returns. Where nobody wants a return, that is told at the entry, and counted
/// there.
#[test]
fn root_a_return_tells_how_long_the_call_took() {
    const NAP: Duration = Duration::from_millis(2);
    if live::unless_root() {
        return;
    }
    let (me, thread) = (std::process::id(), live::this_thread());
    let (path, _) = file("took");
    for (feature, attach, points) in [
        (Feature::KprobeSession, "kretprobe:hrtimer_nanosleep", 1),
        (Feature::KprobeSession, "kretprobe:{hrtimer_nanosleep,vfs_read}", 2),
        (Feature::Fsession, "fexit:{hrtimer_nanosleep,vfs_read}", 2),
    ] {
        let offered = KernelFacts::running().offers(feature);
        if offered != Answer::Yes {
            println!("skipped: {}: {offered}", feature.name());
            continue;
        }
        let of_kprobe = feature == Feature::KprobeSession;
        let reads = points - 1;
        for (condition, naps, reads) in [
            (format!("pid == {me} && tid == {thread}"), 1, reads),
            (format!("!(pid != {me}) && duration >= {} && tid == {thread} && retval == 0", NAP.as_nanos()), 1, 0),
            (format!("tid == {thread} && retval == {}", THERE.len()), 0, reads),
            (format!("tid == {thread} && duration < 0"), 0, 0),
            // Of these nothing comes but what is told at the entry.
            (format!("pid == {me} && pid != {me}"), 0, 0),
            (format!("{me} != pid && pid == 0x7fffffff"), 0, 0),
        ] {
            let declaration =
                live::probe(&[attach], &condition, &["duration", "retval", "duration - duration", "func"]);
            let (plan, compiled) = compiled(&KernelFacts::running(), declaration.probes.clone());
            let sections: Vec<String> = plan.probes[0].points.iter().map(PointPlan::section).collect();
            let wanted = if of_kprobe { "kprobe.session" } else { "fsession/" };
            assert!(sections.iter().all(|section| section.starts_with(wanted)), "{sections:?}");
            assert_eq!(compiled.programs.len(), if of_kprobe { 1 } else { sections.len() });
            let mut outside = Vec::new();
            let seen = live::trace(&declaration, || {
                for _ in 0..TIMES {
                    let begun = Instant::now();
                    std::thread::sleep(NAP);
                    outside.push(begun.elapsed().as_nanos() as u64);
                }
                read(&path.0);
            });
            let counts = seen.counts;
            assert_eq!((counts.emitted, counts.lost), ((naps + reads) * TIMES, 0), "{attach}, {condition}: {counts:?}");
            assert!(counts.hits >= points * TIMES, "{attach}, {condition}: {counts:?}");
            let (of_naps, of_reads): (Vec<_>, Vec<_>) = seen.rows.iter().partition(|row| row[1] == Value::Signed(0));
            assert_eq!((of_naps.len() as u64, of_reads.len() as u64), (naps * TIMES, reads * TIMES), "{:?}", seen.rows);
            for (row, longest) in of_naps.iter().zip(outside) {
                let Value::Unsigned(took) = row[0] else { panic!("{row:?}") };
                assert!((NAP.as_nanos() as u64..=longest).contains(&took), "{took}, of {longest}: {condition}");
            }
            assert!(seen.rows.iter().all(|row| row[2] == Value::Unsigned(0)), "{:?}", seen.rows);
        }
    }
}

/// More calls under way at once than the kernel has room for, on some versions and by some ways: what it does not
/// follow is counted. Where it follows all, a program may be preempted while it runs, and is skipped then for what
/// returns on its CPU: that is counted, too.
#[test]
fn root_returns_of_many_calls_at_once_are_seen_or_counted() {
    const SLEEPERS: u64 = 150;
    const ALL_SLEEP: Duration = Duration::from_secs(2);
    const APART: Duration = Duration::from_millis(4);
    let facts = KernelFacts::running();
    if !offered(&facts, Feature::Kprobe, "kretprobe:hrtimer_nanosleep") {
        return;
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs is mounted");
    let mut numbers = release.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let follows_all = version >= (6, 14);
    let mut ways = vec![
        ("kretprobe:hrtimer_nanosleep", "pid", follows_all),
        ("kretprobe:hrtimer_nanosleep", "reg(\"ax\")", false),
        ("kretprobe:{hrtimer_nanosleep,vfs_read}", "pid", follows_all),
    ];
    if facts.offers(Feature::KprobeSession) == Answer::Yes {
        ways.push(("kretprobe:hrtimer_nanosleep", "duration", follows_all));
    }
    if facts.offers(Feature::Fentry) == Answer::Yes {
        ways.push(("fexit:hrtimer_nanosleep", "pid", true));
    }
    for (attach, field, all) in ways {
        let (plan, compiled) = compiled(&facts, vec![probe("p", attach, "retval == 0", field)]);
        assert_eq!(plan.follows_calls(), attach.starts_with("kretprobe:"));
        let mut attached = load(&compiled).and_then(|loaded| loaded.attach(&plan)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(attached.tells_unfollowed(), version >= (6, 7));
        std::thread::scope(|scope| {
            for nth in 0..SLEEPERS as u32 {
                scope.spawn(move || std::thread::sleep(ALL_SLEEP + APART * nth));
            }
        });
        let while_attached = attached.counts(1).expect("they can be read")[0];
        attached.detach();
        let counts = attached.counts(1).expect("they can be read")[0];
        assert_eq!(counts, while_attached, "{attach}, {field}");
        println!("{attach}, {field}: {counts:?}");
        if all {
            assert_eq!(counts.emitted + counts.missed, SLEEPERS, "{attach}, {field}: {counts:?}");
            assert!(counts.emitted > SLEEPERS / 2, "{attach}, {field}: {counts:?}");
        } else if version >= (6, 7) {
            assert!(counts.missed > 0 && counts.emitted + counts.missed >= SLEEPERS, "{attach}, {field}: {counts:?}");
        } else {
            println!("skipped: this kernel does not tell which calls it does not follow");
        }
    }
}

/// A function that the kernel takes no program for: of those that a pattern matches it is left out, and one that is
/// written is told.
#[test]
fn root_functions_that_take_no_program_are_left_out_of_patterns() {
    let facts = KernelFacts::running();
    if !offered(&facts, Feature::Kprobe, "kprobe:vfs_read") {
        return;
    }
    let (path, inode) = file("refused");
    let when = format!("args.count == {ASKED} && args.file.f_inode.i_ino == {inode}");
    for (written, field) in [(false, "args.count"), (false, "reg(\"dx\")"), (true, "args.count")] {
        let probes = vec![probe("p", "kprobe:vfs_{write,read}", &when, field)];
        let (mut plan, compiled) = compiled(&facts, probes);
        let AttachPoint::Function(function) = &mut plan.probes[0].points[0].attach else { panic!("it is a function") };
        function.name = "there_is_none".to_owned();
        function.matched = !written;
        let attached = load(&compiled).and_then(|loaded| loaded.attach(&plan));
        if written {
            let error = attached.err().expect("it is refused").to_string();
            assert!(error.starts_with("kprobe:there_is_none cannot be attached to: "), "{error}");
            println!("{error}");
            continue;
        }
        let mut attached = attached.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(attached.left_out().len(), 1);
        assert_eq!(attached.points(), plan.probes[0].points.len() - 1);
        read(&path.0);
        attached.detach();
        assert_eq!(attached.counts(1).expect("they can be read")[0].emitted, TIMES);
    }
}

/// Over a hundred functions have one program, which comes and goes at once; the two ways are compared, and the times
/// printed.
#[test]
fn root_hundreds_of_functions_have_one_program() {
    let facts = KernelFacts::running();
    if !offered(&facts, Feature::Kprobe, "kprobe:vfs_read") {
        return;
    }
    let multi = facts.offers(Feature::KprobeMulti) == Answer::Yes;
    for (field, quick) in [("pid", multi), ("reg(\"ip\")", false)] {
        let attach = if quick { "kprobe:{vfs,security}_*" } else { "kprobe:vfs_*" };
        let (plan, compiled) = compiled(&facts, vec![probe("p", attach, "true", field)]);
        let points = plan.probes[0].points.len();
        let start = Instant::now();
        let mut attached = load(&compiled).and_then(|loaded| loaded.attach(&plan)).unwrap_or_else(|e| panic!("{e}"));
        let attached_in = start.elapsed();
        attached.detach();
        println!(
            "{attach}: {points} functions, {} programs, {} left out: attached in {attached_in:?}, all in {:?}",
            compiled.programs.len(),
            attached.left_out().len(),
            start.elapsed()
        );
        assert!(!quick || points > 100 && compiled.programs.len() == 1, "{points} functions");
    }
}

/// The machine's files are below an overlay where these tests run in a virtual machine.
#[test]
fn root_functions_of_modules_fire() {
    let facts = KernelFacts::running();
    if !offered(&facts, Feature::Kprobe, "kprobe:vfs_read") {
        return;
    }
    let functions = facts.symbols().map(|symbols| symbols.functions_of("overlay")).unwrap_or_default();
    if !functions.contains(&"ovl_open") {
        println!("skipped: the file system is no overlay that is a module's");
        return;
    }
    let name = format!("functions-module-{}", std::process::id());
    let path = Made(Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name));
    std::fs::write(&path.0, THERE).expect("it can be written");
    let opened = format!("str(args.file.f_path.dentry.d_name.name) == \"{name}\"");
    let mut probes = vec![
        probe("named", "kprobe:overlay:ovl_open", &opened, "str(((struct file *)arg1).f_path.dentry.d_name.name)"),
        probe("found", "kprobe:ovl_open", &opened, "args.inode.i_ino"),
        probe("matched", "kprobe:overlay:ovl_ope[n]", &opened, "args.file.f_flags"),
        probe("best", "func:overlay:ovl_open", &opened, "args.inode.i_ino"),
    ];
    if offered(&facts, Feature::Fentry, "fentry:vfs_read") {
        let done = format!("{opened} && retval == 0");
        probes.push(probe("typed", "fentry:overlay:ovl_open", &opened, "args.inode.i_ino"));
        probes.push(probe("returned", "fexit:ovl_open", &done, "args.inode.i_ino"));
        // A structure that only the module has.
        let of_module = format!(
            "{opened} && ((struct ovl_inode *)container_of(args.inode, struct ovl_inode, vfs_inode)).vfs_inode.i_ino == args.inode.i_ino"
        );
        probes.push(probe("cast", "fentry:overlay:ovl_open", &of_module, "sizeof(struct ovl_inode)"));
    }
    if facts.offers(Feature::KprobeSession) == Answer::Yes {
        probes.push(probe("took", "kretprobe:overlay:ovl_open", "retval == 0 && duration > 0", "duration"));
    }
    if facts.offers(Feature::Fsession) == Answer::Yes {
        let took = format!("{opened} && retval == 0 && duration > 0");
        probes.push(probe("both", "fexit:overlay:ovl_open", &took, "duration"));
    }
    expect_each(&facts, probes, || {
        (0..TIMES).for_each(|_| drop(File::open(&path.0).expect("it is there")));
    });
}

/// In the virtual machines there is a module through which a machine speaks with itself.
#[test]
fn root_raw_tracepoints_of_modules_fire() {
    const MODULE: &str = "vmw_vsock_virtio_transport_common";
    /// A port at which nobody listens.
    const PORT: u32 = 40007;
    let facts = KernelFacts::running();
    let point = "rawtracepoint:virtio_transport_alloc_pkt";
    if !facts.btf().expect("there is BTF").module_names().any(|module| module == MODULE) {
        println!("skipped: the module {MODULE} is not loaded");
        return;
    }
    let own = format!("args.dst_port == {PORT}");
    // A structure and a constant that only the module has.
    let fields = ["args.dst_cid", "sizeof(struct virtio_vsock_sock) > 8", "args.op == VIRTIO_VSOCK_OP_REQUEST"];
    let seen = live::trace(&live::probe(&[point], &own, &fields), || {
        // SAFETY: the call has no pointers; who made the socket owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)) };
        // SAFETY: all of it may be 0.
        let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
        address.svm_family = libc::AF_VSOCK as u16;
        (address.svm_cid, address.svm_port) = (libc::VMADDR_CID_LOCAL, PORT);
        let bytes = size_of_val(&address) as u32;
        // SAFETY: the address is as long as is said, and outlives the call.
        let result = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), bytes) };
        assert_eq!(result, -1, "nobody listens");
    });
    assert_eq!(
        seen.rows,
        [[Value::Unsigned(libc::VMADDR_CID_LOCAL.into()), Value::Boolean(true), Value::Boolean(true)]]
    );
}

#[test]
fn root_kprobe_inside_an_instruction_is_told() {
    let facts = KernelFacts::running();
    if !offered(&facts, Feature::Kprobe, "kprobe:vfs_read+0x1") {
        return;
    }
    let error = run(&facts, vec![probe("p", "kprobe:vfs_read+0x1", "true", "reg(\"ip\")")], || ());
    let error = error.expect_err("no instruction is one byte long there").to_string();
    assert!(error.starts_with("kprobe:vfs_read+0x1 cannot be attached to: "), "{error}");
    println!("{error}");
}

#[test]
fn root_lsm_sees_arguments_and_refuses_nothing() {
    let facts = KernelFacts::running();
    if !offered(&facts, Feature::Lsm, "lsm:file_open") {
        return;
    }
    let (path, inode) = file("lsm");
    let opened = format!("args.file.f_inode.i_ino == {inode}");
    expect_each(&facts, vec![probe("open", "lsm:file_open", &opened, "args.file.f_flags")], || {
        (0..TIMES).for_each(|_| drop(File::open(&path.0).expect("nothing is refused")));
    });
}

/// A function that has a type and that no program may be bound to: that is not taken for a fault of Porthole.
#[test]
fn root_a_function_that_takes_no_program_is_told() {
    let facts = KernelFacts::running();
    if !offered(&facts, Feature::Fentry, "fentry:migrate_disable") {
        return;
    }
    if facts.symbols().is_none_or(|symbols| symbols.count("migrate_disable") != 1) {
        println!("skipped: this kernel has no one function `migrate_disable`");
        return;
    }
    let declaration =
        Declaration { probes: vec![probe("p", "fentry:migrate_disable", "true", "pid")], ..Declaration::default() };
    // Where ftrace's list can be read, it is told when the declaration is planned.
    let Ok(plan) = plan(&declaration, &facts) else { return };
    let compiled = compile(&plan, "test", RING).unwrap_or_else(|e| panic!("{e}"));
    assert!(matches!(load(&compiled), Err(LoadError::Bound { .. })));
}
