//! What events say, against what the kernel says otherwise: of a process by /proc/PID, of sockets by getsockname(2) and
//! getpeername(2), of files by stat(2).
//!
//! Both sides tell the same things by ways that share nothing: an expression walks the kernel's structures by BTF, and
//! the kernel's own code prints them. What each looks at is made for the purpose, with properties that nothing has by
//! chance: a wrong offset, width or sign is another number.

mod e2e;

#[path = "differential/files.rs"]
mod files;
#[path = "differential/process.rs"]
mod process;
#[path = "differential/sockets.rs"]
mod sockets;

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use porthole::declare::{Declaration, Event, Field, Probe, Step};
use porthole::kernel::KernelFacts;
use porthole::plan::plan;
use porthole_tests::declaration::of_fields;
use porthole_tests::live::{Seen, trace};
use porthole_tests::machine::Value;

/// What this system call's probes tell of the thread that makes it.
const ACCESS: &str = "tracepoint:syscalls:sys_enter_access";
/// Fields of a probe: what all of them take fits into one program.
const FIELDS: usize = 20;

/// Something that is told in two ways.
struct Claim {
    /// In the kernel's words.
    name: String,
    /// Expressions that mean it, of which a kernel takes the first that it has the types for: structures change.
    expressions: Vec<String>,
    /// What is true, as [`told`] writes it.
    truth: String,
}

fn claim(name: &str, expressions: &str, truth: impl ToString) -> Claim {
    let expressions = expressions.split(" else ").map(str::to_owned).collect();
    Claim { name: name.to_owned(), expressions, truth: truth.to_string() }
}

/// The first of its expressions that this kernel has the types for.
fn chosen<'a>(claim: &'a Claim, attach: &str, facts: &KernelFacts) -> &'a str {
    let accepted = |e: &&String| plan(&of_fields(attach, [("f", e.as_str())]), facts).is_ok();
    claim.expressions.iter().find(accepted).unwrap_or_else(|| {
        let last = claim.expressions.last().expect("there is one").as_str();
        panic!("{}\n{}", claim.name, plan(&of_fields(attach, [("f", last)]), facts).expect_err("it was refused"))
    })
}

/// Probes at an attach point with all these expressions, where the condition holds. The field `fN` is the Nth.
fn probes(attach: &str, when: &str, expressions: &[&str]) -> Declaration {
    let fields: Vec<Field> = expressions.iter().enumerate().map(|(n, e)| field(n, e)).collect();
    let probe = |(n, fields): (usize, &[Field])| {
        let emit = Step::Emit(Event { name: "e".to_owned(), fields: fields.to_vec() });
        Probe { name: format!("p{n}"), attach: vec![attach.to_owned()], body: vec![Step::When(when.to_owned()), emit] }
    };
    Declaration { probes: fields.chunks(FIELDS).enumerate().map(probe).collect(), ..Declaration::default() }
}

fn field(n: usize, value: &str) -> Field {
    Field { name: format!("f{n}"), value: value.to_owned() }
}

/// What events say of all claims, whose probes fire once each in `work`.
fn events(attach: &str, when: &str, claims: &[Claim], work: impl FnOnce()) -> Vec<String> {
    let facts = KernelFacts::running();
    let expressions: Vec<&str> = claims.iter().map(|claim| chosen(claim, attach, &facts)).collect();
    let declaration = probes(attach, when, &expressions);
    let seen = trace(&declaration, work);
    assert_eq!(seen.rows.len(), declaration.probes.len(), "each fires once: {:?}", seen.counts);
    in_order(seen, claims.len())
}

/// The values of [`probes`] of so many expressions, each of which has fired once.
fn in_order(seen: Seen, expressions: usize) -> Vec<String> {
    assert_eq!(seen.named.iter().map(Vec::len).sum::<usize>(), expressions, "{:?}", seen.named);
    let by_name: HashMap<String, Value> = seen.named.into_iter().flatten().collect();
    (0..expressions).map(|n| told(&by_name[&format!("f{n}")])).collect()
}

/// Compares the events with what is true.
fn compare(attach: &str, when: &str, claims: &[Claim], work: impl FnOnce()) {
    let told = events(attach, when, claims, work);
    let differs = |(claim, told): (&Claim, &String)| {
        let shown = || format!("{}: {} is {told}, and {} is true", claim.name, claim.expressions[0], claim.truth);
        (*told != claim.truth).then(shown)
    };
    let faults: Vec<String> = claims.iter().zip(&told).filter_map(differs).collect();
    println!("{} values compared", claims.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A value as truths are written.
fn told(value: &Value) -> String {
    match value {
        Value::Text { bytes, cut: false } => String::from_utf8_lossy(bytes).into_owned(),
        Value::Enumeration(value, _) => value.to_string(),
        other => other.to_string(),
    }
}

/// What stat(2) says, of the inode that this expression points to.
fn of_inode(inode: &str, stat: &Metadata) -> Vec<Claim> {
    let (major, minor) = (libc::major(stat.dev()), libc::minor(stat.dev()));
    let time = |which: &str, part: &str| {
        let of = |form: &str| format!("{inode}.{}", form.replace('?', which));
        match part {
            "s" => [of("i_?_sec"), of("i_?.tv_sec"), of("__i_?.tv_sec")].join(" else "),
            _ => [of("i_?_nsec"), of("i_?.tv_nsec"), of("__i_?.tv_nsec")].join(" else "),
        }
    };
    let member = |name: &str, path: &str, truth: &dyn ToString| {
        claim(
            name,
            &path.split(" else ").map(|p| format!("{inode}.{p}")).collect::<Vec<_>>().join(" else "),
            truth.to_string(),
        )
    };
    vec![
        member("st_ino", "i_ino", &stat.ino()),
        member("st_size", "i_size", &stat.size()),
        member("st_mode", "i_mode", &stat.mode()),
        member("st_nlink", "i_nlink", &stat.nlink()),
        member("st_uid", "i_uid.val", &stat.uid()),
        member("st_gid", "i_gid.val", &stat.gid()),
        // In units of 512 bytes, both.
        member("st_blocks", "i_blocks", &stat.blocks()),
        claim("st_blksize", &format!("1 << {inode}.i_blkbits"), stat.blksize()),
        // MINORBITS of include/linux/kdev_t.h.
        claim("major of st_dev", &format!("{inode}.i_sb.s_dev >> 20"), major),
        claim("minor of st_dev", &format!("{inode}.i_sb.s_dev & 0xfffff"), minor),
        claim("major of st_rdev", &format!("{inode}.i_rdev >> 20"), libc::major(stat.rdev())),
        claim("minor of st_rdev", &format!("{inode}.i_rdev & 0xfffff"), libc::minor(stat.rdev())),
        claim("st_mtime", &time("mtime", "s"), stat.mtime()),
        claim("nanoseconds of st_mtime", &time("mtime", "ns"), stat.mtime_nsec()),
        claim("st_atime", &time("atime", "s"), stat.atime()),
        claim("nanoseconds of st_atime", &time("atime", "ns"), stat.atime_nsec()),
    ]
}

/// Asks whether there is a file of that name, which nobody else asks for.
fn access(path: &str) {
    let path = CString::new(path).expect("no 0 in it");
    // SAFETY: the path ends in a 0, and lives as long.
    unsafe { libc::syscall(libc::SYS_access, path.as_ptr(), 0) };
}

/// A path that is not there, and the condition that it is asked for.
fn call() -> (String, String) {
    let path = format!("/porthole-{}", e2e::unique());
    let when = format!("str(args.filename) == \"{path}\"");
    (path, when)
}
