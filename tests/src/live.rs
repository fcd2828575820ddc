//! What a declaration sees of the running kernel: loaded and attached while something is done, its records read back.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use porthole::compile::compile;
use porthole::declare::{Declaration, KfuncUse, Probe, Step};
use porthole::events::Batch;
use porthole::kernel::KernelFacts;
use porthole::load::{Counts, check_privileges, load};
use porthole::output::{Format, Renderer, Sent};
use porthole::plan::layout::{LENGTH, SCHEMA, Schema, WALK_CUT};
use porthole::plan::{Policy, plan_under};
use porthole::plugin::Emitted;
use porthole::symbols::Symbols;

use crate::declaration;
use crate::machine::{Value, decode};

const RING: u32 = 1 << 22;

/// What a probe saw.
pub struct Seen {
    /// The fields of each record, in the order of the declaration.
    pub rows: Vec<Vec<Value>>,
    /// The same with their names.
    pub named: Vec<Vec<(String, Value)>>,
    pub counts: Counts,
    pub attaching: Duration,
    pub detaching: Duration,
    schemas: Vec<Schema>,
    records: Vec<u8>,
}

/// Attaches a declaration, does `work`, goes all walks of its iterators, and detaches.
///
/// # Panics
/// Where any of it fails, or the account does not add up.
pub fn trace(declaration: &Declaration, work: impl FnOnce()) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    // Whoever writes a test's declaration means what it changes.
    let policy = Policy { effects: true };
    let plan = plan_under(declaration, &KernelFacts::running(), &policy).unwrap_or_else(|e| panic!("{e}"));
    let loaded = load(&compile(&plan, "test", RING).unwrap()).unwrap_or_else(|e| panic!("{e}"));
    let begun = Instant::now();
    let mut attached = loaded.attach(&plan).unwrap_or_else(|e| panic!("{e}"));
    let attaching = begun.elapsed();
    let mut ring = attached.ring().unwrap();
    work();
    let mut records = Vec::new();
    let mut take_all = || {
        while let batch @ Batch { count: 1.., .. } = ring.take(Batch::default()).unwrap() {
            records.extend_from_slice(&batch.records);
        }
    };
    for mut walk in attached.walks().unwrap() {
        while walk.go_on().unwrap() {
            take_all();
        }
    }
    let begun = Instant::now();
    attached.detach();
    let detaching = begun.elapsed();
    take_all();
    let mut named = Vec::new();
    let mut rest = records.as_slice();
    while !rest.is_empty() {
        let at = LENGTH as usize;
        let (record, behind) = rest.split_at(u32::from_le_bytes(rest[at..at + 4].try_into().unwrap()) as usize);
        let schema = u16::from_le_bytes(record[SCHEMA as usize..][..2].try_into().unwrap()) & !WALK_CUT;
        named.push(decode(&plan.schemas[usize::from(schema)], record));
        rest = behind;
    }
    let values = |row: &Vec<(String, Value)>| row.iter().map(|(_, value)| value.clone()).collect();
    let rows = named.iter().map(values).collect();
    let counts = attached.counts(plan.probes.len()).unwrap();
    let mut sum = Counts::default();
    for of_probe in counts {
        assert_eq!(of_probe.hits, of_probe.filtered + of_probe.emitted + of_probe.lost);
        sum.hits += of_probe.hits;
        sum.filtered += of_probe.filtered;
        sum.emitted += of_probe.emitted;
        sum.lost += of_probe.lost;
    }
    Seen { rows, named, counts: sum, attaching, detaching, schemas: plan.schemas, records }
}

impl Seen {
    /// The fields of each record as the host shows them in JSON, when a plugin forwards it.
    ///
    /// # Panics
    /// Where the host writes no JSON.
    pub fn shown(&self) -> Vec<serde_json::Value> {
        let mut renderer = Renderer::new("p", Format::Json, self.schemas.clone(), false, 0);
        let mut sent = Sent::from(vec![Emitted::Forward(self.records.clone())]);
        let (mut lines, mut symbols) = (Vec::new(), Symbols::default());
        while !sent.is_empty() {
            lines.extend(renderer.render(&mut sent, &mut symbols));
        }
        let rows = serde_json::Deserializer::from_slice(&lines).into_iter::<serde_json::Value>();
        rows.map(|row| row.expect("a row is JSON")["fields"].take()).collect()
    }
}

/// A probe with one event of these values, where this holds.
pub fn probe(attach: &[&str], when: &str, values: &[&str]) -> Declaration {
    let names: Vec<String> = (0..values.len()).map(|n| format!("f{n}")).collect();
    let fields = names.iter().map(String::as_str).zip(values.iter().copied());
    let mut declaration = declaration::of_fields("", fields);
    let Probe { attach: points, body, .. } = &mut declaration.probes[0];
    *points = attach.iter().map(|a| (*a).to_owned()).collect();
    body.insert(0, Step::When(when.to_owned()));
    declaration
}

/// Whether programs cannot be loaded here, so that the kernel part of a test cannot run; says why.
pub fn unless_root() -> bool {
    check_privileges().map_err(|error| println!("skipped: {error}")).is_err()
}

/// The number of the thread that asks, as the kernel has it where there is one namespace of processes.
pub fn this_thread() -> i64 {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) }
}

/// The declaration, which lists these kfuncs as required.
pub fn listing<'a>(kfuncs: impl IntoIterator<Item = &'a str>, declaration: Declaration) -> Declaration {
    let names: BTreeSet<&str> = kfuncs.into_iter().collect();
    let listed = |name: &str| KfuncUse { name: name.to_owned(), required: true, claim: None };
    Declaration { kfuncs: names.into_iter().map(listed).collect(), ..declaration }
}

/// Longer than anything here takes: an unoptimised host on a busy machine. Where machines are slower still, as virtual
/// ones without hardware for it, the variable `PORTHOLE_TEST_PATIENCE` says how many seconds.
///
/// # Panics
/// Where that is no number.
pub fn patience() -> Duration {
    let told = std::env::var("PORTHOLE_TEST_PATIENCE").ok();
    Duration::from_secs(told.map_or(60, |seconds| seconds.parse().expect("PORTHOLE_TEST_PATIENCE is a number")))
}

/// The number of the mount that an open file is in.
///
/// # Panics
/// Where procfs is not mounted.
pub fn mount_of(file: &File) -> String {
    let path = format!("/proc/thread-self/fdinfo/{}", file.as_raw_fd());
    let text = fs::read_to_string(path).expect("procfs is mounted");
    text.lines().find_map(|line| line.strip_prefix("mnt_id:")).expect("it is told").trim().to_owned()
}

/// Where what this process takes for the root is mounted: nowhere else than at the root, but for processes in a chroot,
/// as in the virtual machines. Paths over all mounts begin with it. A thread asks before it gets mounts of its own,
/// whose numbers are other ones.
///
/// # Panics
/// Where procfs is not mounted.
pub fn root_of_mounts() -> String {
    let mount = mount_of(&File::open("/").expect("there is one"));
    let mounts = fs::read_to_string("/proc/1/mountinfo").expect("procfs is mounted");
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(&mount));
    let point = line.and_then(|line| line.split(' ').nth(4)).unwrap_or("/");
    point.trim_end_matches('/').to_owned()
}
