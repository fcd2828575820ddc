//! What users of bpftrace and C try because they know it from there, and what to write here instead.

/// What is not there yet, by the names that bpftrace gives it.
const LATER: [(&str, &[&str]); 5] = [
    ("stacks", &["kstack", "ustack"]),
    ("symbols", &["ksym", "usym", "kaddr", "uaddr", "func", "probe"]),
    ("IP and hardware addresses", &["ntop", "pton", "macaddr"]),
    ("bytes", &["buf"]),
    (
        "maps",
        &[
            "count", "sum", "avg", "min", "max", "stats", "hist", "lhist", "tseries", "delete", "clear", "has_key",
            "len",
        ],
    ),
];

/// Help for a name that is none of the language's.
pub fn name(name: &str) -> Option<String> {
    if let Some(later) = later(name) {
        return Some(later);
    }
    let help = match name {
        "curtask" => "`task` is the running thread's `struct task_struct`",
        "ppid" => "`task.real_parent.tgid` is the parent's process id",
        "pcomm" => "`task.real_parent.comm` is the parent's name",
        "retval" => "at the exit of a system call it is `args.ret`",
        "NULL" | "null" | "nullptr" => "write `0`",
        "elapsed" => "`nsecs` is the time since boot; a handler can subtract",
        _ if is_numbered(name, "arg") || is_numbered(name, "sarg") => "arguments have names: `args.NAME`",
        _ => return None,
    };
    Some(help.to_owned())
}

/// Help for a function that is none of the language's.
pub fn function(name: &str) -> Option<String> {
    if let Some(later) = later(name) {
        return Some(later);
    }
    let help = match name {
        "printf" | "print" | "join" | "strftime" | "cat" | "system" | "exit" => {
            "an `emit` step sends values to the plugin, and its handlers do the rest"
        }
        "htons" | "be16toh" | "htobe16" => "`ntohs(x)` turns the bytes of a number of 16 bits",
        "htonl" | "be32toh" | "htobe32" => "`ntohl(x)` turns the bytes of a number of 32 bits",
        "strerror" => "`errno(x)` is shown by the error's name",
        "strcmp" => "`==` and `!=` compare texts",
        "strncmp" | "strprefix" => "`starts_with(text, \"…\")`",
        "strcontains" | "strstr" => "`contains(text, \"…\")`",
        "kptr" => "`kernel(pointer)` is the same address in the kernel's memory",
        "uptr" => "`user(pointer)` is the same address in the process's memory",
        _ if name.starts_with("bpf_") => "kfuncs are not there yet, and helpers are called by the host alone",
        _ => return None,
    };
    Some(help.to_owned())
}

/// Help for a kind of attach point that is not there yet, or nothing.
pub fn attach_kind(kind: &str) -> Option<&'static str> {
    match kind {
        "BEGIN" | "begin" => Some("what a plugin does at first stands in its handler `start`"),
        "END" | "end" => Some("what a plugin does at last stands in its handler `stop`"),
        "interval" => Some("a declaration's `tick` has `on-tick` called at intervals"),
        _ => None,
    }
}

fn later(name: &str) -> Option<String> {
    let (what, _) = LATER.iter().find(|(_, names)| names.contains(&name))?;
    Some(format!("{what} are not there yet"))
}

fn is_numbered(name: &str, stem: &str) -> bool {
    name.strip_prefix(stem).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}
