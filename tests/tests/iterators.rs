//! Iterators: each object once, no event lost, and the end of the run that follows from the end of the walk.

mod e2e;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use porthole::kernel::KernelFacts;
use serde_json::Value;

use e2e::host::{Ended, Run};
use e2e::load::getppid;
use e2e::{Directory, is_root, plugin, unique};

/// One walk, to its own end; each row's fields.
fn walked(attach: &str, fields: &str) -> (Ended, Vec<Value>) {
    walked_by(Run::new(&plugin("hostile")), attach, fields)
}

fn walked_by(run: Run, attach: &str, fields: &str) -> (Ended, Vec<Value>) {
    let ended = run.arg("--attach").arg(attach).arg("--fields").arg(fields).finish().successful();
    let rows: Vec<Value> = ended.rows().into_iter().map(|row| row["fields"].clone()).collect();
    let counts = ended.counts("hostile", "call");
    assert_eq!((counts.lost, counts.emitted, counts.delivered), (0, rows.len() as u64, rows.len() as u64), "{attach}");
    (ended, rows)
}

/// Children that sleep under names of their own, killed at the end.
struct Sleepers(Vec<(Child, String)>);

impl Sleepers {
    fn start(directory: &Directory, count: usize) -> Sleepers {
        let start = |_| {
            let comm = unique();
            let path = directory.path().join(&comm);
            symlink("/bin/sleep", &path).expect("the directory can be written");
            let mut child = Command::new(&path);
            (child.arg("600").spawn().expect("there is a sleep"), comm)
        };
        Sleepers((0..count).map(start).collect())
    }

    fn all(&self) -> BTreeMap<u64, String> {
        self.0.iter().map(|(child, comm)| (u64::from(child.id()), comm.clone())).collect()
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        for (child, _) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn number(row: &Value, name: &str) -> u64 {
    row[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {row}"))
}

/// The processes of /proc.
fn processes() -> BTreeSet<u64> {
    let entries = fs::read_dir("/proc").expect("procfs is mounted").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[test]
fn root_each_task_comes_once() {
    if !is_root() {
        return;
    }
    let directory = Directory::new("tasks");
    let sleepers = Sleepers::start(&directory, 7);
    let before = processes();
    let fields =
        "tid = args.task.pid; tgid = args.task.tgid; comm = args.task.comm; parent = args.task.real_parent.tgid";
    let (ended, rows) = walked("iter:task", fields);
    let after = processes();

    let counts = ended.counts("hostile", "call");
    assert_eq!((counts.hits, counts.filtered), (rows.len() as u64, 0), "the end of the walk is no hit");
    let threads: BTreeSet<u64> = rows.iter().map(|row| number(row, "tid")).collect();
    assert_eq!(threads.len(), rows.len(), "each thread once");
    let traced: BTreeSet<u64> = rows.iter().map(|row| number(row, "tgid")).collect();
    // The first process of a container has another number outside of it.
    let lived: BTreeSet<u64> = before.intersection(&after).copied().filter(|pid| *pid != 1).collect();
    assert_eq!(lived.difference(&traced).next(), None, "processes of /proc that the walk has left out");
    let ours: BTreeMap<u64, String> = rows
        .iter()
        .filter(|row| sleepers.all().contains_key(&number(row, "tgid")))
        .map(|row| {
            assert_eq!(number(row, "parent"), u64::from(std::process::id()), "{row}");
            (number(row, "tgid"), row["comm"].as_str().expect("a comm").to_owned())
        })
        .collect();
    assert_eq!(ours, sleepers.all());
}

#[test]
fn root_a_filtered_walk_counts_each_object() {
    if !is_root() {
        return;
    }
    let directory = Directory::new("filtered");
    let sleepers = Sleepers::start(&directory, 1);
    let (_, comm) = &sleepers.0[0];
    let run = Run::new(&plugin("hostile")).arg("--when").arg(format!("args.task.comm == \"{comm}\""));
    let (ended, rows) = walked_by(run, "iter:task", "tgid = args.task.tgid");
    assert_eq!(
        rows.iter().map(|row| number(row, "tgid")).collect::<Vec<_>>(),
        sleepers.all().into_keys().collect::<Vec<_>>()
    );
    let counts = ended.counts("hostile", "call");
    assert!(counts.filtered > 0 && counts.hits == counts.filtered + 1, "{counts:?}");
}

/// The ring has room for a few dozen records, and the walk makes thousands.
#[test]
fn root_a_walk_loses_nothing() {
    if !is_root() {
        return;
    }
    // On a machine at rest there may be few.
    let _files: Vec<File> = (0..500).map(|_| File::open("/dev/null").expect("it is there")).collect();
    for (ring, attach) in [("4K", "iter:task_vma"), ("4K", "iter:task_file"), ("256K", "iter:ksym")] {
        let run = Run::new(&plugin("hostile")).option(format!("--ring-size={ring}"));
        let (_, rows) = walked_by(run, attach, "n = args.meta.seq_num");
        let numbers: Vec<u64> = rows.iter().map(|row| number(row, "n")).collect();
        let stray = numbers.iter().zip(0..).find(|(number, n)| *number != n);
        assert_eq!(stray, None, "{attach}: each once, in order");
        assert!(rows.len() > 200, "{attach}: {} rows", rows.len());
    }
}

#[test]
fn root_open_sockets_are_found() {
    if !is_root() {
        return;
    }
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = u64::from(tcp.local_addr().expect("it is bound").port());
    let (_, rows) =
        walked("iter:tcp", "port = args.sk_common.skc_num; state = args.sk_common.skc_state; uid = args.uid");
    let ours: Vec<&Value> = rows.iter().filter(|row| number(row, "port") == port).collect();
    // TCP_LISTEN of include/net/tcp_states.h.
    assert!(ours.len() == 1 && number(ours[0], "state") == 10, "{ours:?}");

    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let port = u64::from(udp.local_addr().expect("it is bound").port());
    let (_, rows) = walked(
        "iter:udp",
        "port = args.udp_sk.inet.sk.__sk_common.skc_num; address = args.udp_sk.inet.sk.__sk_common.skc_rcv_saddr",
    );
    let ours: Vec<&Value> = rows.iter().filter(|row| number(row, "port") == port).collect();
    assert!(ours.len() == 1 && number(ours[0], "address") == u64::from(u32::from_ne_bytes([127, 0, 0, 1])), "{ours:?}");
}

/// Files, sockets and the like that are certainly there, and BPF's own things, of which the host makes some itself.
#[test]
fn root_every_kind_walks() {
    if !is_root() {
        return;
    }
    let directory = Directory::new("kinds");
    let _unix = UnixListener::bind(directory.path().join("socket")).expect("a socket can be made");
    let _tcp = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let _udp = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let facts = KernelFacts::running();
    let btf = facts.btf().expect("BTF");
    let kinds = [
        ("task", "args.task.pid"),
        ("task_file", "args.fd + args.file.f_flags + args.task.tgid"),
        ("task_vma", "args.vma.vm_start + args.task.tgid"),
        ("tcp", "args.sk_common.skc_family"),
        ("udp", "args.bucket"),
        ("unix", "args.uid"),
        ("netlink", "args.sk.portid"),
        ("cgroup", "args.cgroup.level"),
        ("bpf_map", "args.map.id"),
        ("bpf_prog", "args.prog.aux.id"),
        ("bpf_link", "args.link.id"),
        ("ksym", "args.ksym.value"),
        ("kmem_cache", "args.s.object_size"),
    ];
    for (kind, value) in kinds {
        if btf.function(&format!("bpf_iter_{kind}")).is_none() {
            println!("skipped: this kernel has no iterator {kind}");
            continue;
        }
        let (_, rows) = walked(&format!("iter:{kind}"), &format!("value = {value}"));
        assert!(!rows.is_empty(), "{kind}: not one row");
        assert!(rows.iter().any(|row| !row["value"].is_null()), "{kind}: {value} is never there");
    }
}

/// With a tick, a walk stands before each `on-tick`, and nothing ends by itself.
#[test]
fn root_a_tick_walks_again() {
    if !is_root() {
        return;
    }
    let directory = Directory::new("ticks");
    let sleepers = Sleepers::start(&directory, 1);
    let (child, comm) = &sleepers.0[0];
    let run = Run::new(&plugin("hostile")).args("--in on-tick --do count --attach iter:task --when");
    let run = run.arg(format!("args.task.comm == \"{comm}\"")).args("--tick 50 --fields tgid=args.task.tgid");
    let host = run.attach();
    host.wait_for_rows(8);
    let ended = host.interrupt().successful();
    let mut events = 0;
    for row in ended.rows() {
        match row["event"].as_str() {
            Some("count") => assert_eq!(row["fields"]["events"], events, "behind each walk, its tick"),
            _ => {
                events += 1;
                assert_eq!(row["fields"]["tgid"], child.id());
            }
        }
    }
    assert!(events >= 4, "{events} walks");
    let counts = ended.counts("hostile", "call");
    assert_eq!((counts.emitted, counts.delivered, counts.lost), (events, events, 0));
}

/// Where others fire by themselves, the end of the walk is not the end.
#[test]
fn root_a_walk_beside_other_probes_does_not_end_the_run() {
    if !is_root() {
        return;
    }
    let run = Run::new(&plugin("hostile")).args("--attach iter:task,tracepoint:syscalls:sys_enter_getppid");
    let mut host = run.attach();
    host.wait_for_rows(1);
    sleep(Duration::from_millis(300));
    assert!(!host.has_ended());
    getppid(&unique(), 5);
    let rows = host.interrupt().successful().rows();
    let ours = rows.iter().filter(|row| row["fields"]["pid"] == std::process::id()).count();
    assert!(ours >= 5, "{ours} system calls are seen behind the walk");
}
