//! What users of bpftrace and C try because they know it from there, and what to write here instead.

/// What is not there yet, by the names that bpftrace gives it.
const LATER: [(&str, &[&str]); 2] = [
    ("addresses of programs' symbols", &["uaddr"]),
    (
        "maps",
        &[
            "count", "sum", "avg", "min", "max", "stats", "hist", "lhist", "tseries", "delete", "clear", "has_key",
            "len",
        ],
    ),
];

/// Help for a word where an operator is expected.
pub fn operator(word: &str) -> Option<&'static str> {
    Some(match word {
        "and" => "it is written `&&`",
        "or" => "it is written `||`",
        "is" | "eq" | "equals" => "it is written `==`",
        "ne" => "it is written `!=`",
        "xor" => "it is written `^`",
        "mod" => "it is written `%`",
        "not" => "it is written `!(value in (…))`",
        "like" | "matches" => "`starts_with`, `ends_with` and `contains` look for a text in another",
        _ => return None,
    })
}

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
        "if" | "else" | "while" | "for" | "unroll" | "return" | "let" | "loop" => {
            "there are no statements: steps run in their order, `when` ends them, and `?:` chooses between values"
        }
        "not" => "it is written `!`",
        "ncpus" | "numaid" | "jiffies" | "rand" | "usermode" | "cpid" => {
            "bpftrace has that, and it is not there yet; most of it a handler can find out"
        }
        "username" => "`uid` is the user's number",
        "tgid" => "`pid` is the thread group's number",
        "euid" => "`task.cred.euid.val` is the effective user",
        "elapsed" => {
            "`nsecs` is the time since boot; at `fexit`, `kretprobe` and `uretprobe`, `duration` is how long the function took"
        }
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
        "printf" | "print" | "join" | "strftime" | "cat" | "system" => {
            "an `emit` step sends values to the plugin, and its handlers do the rest"
        }
        "htons" | "be16toh" | "htobe16" => "`ntohs(x)` turns the bytes of a number of 16 bits",
        "htonl" | "be32toh" | "htobe32" => "`ntohl(x)` turns the bytes of a number of 32 bits",
        "strerror" => "`errno(x)` is shown by the error's name",
        "exit" => "a handler ends the run by `finish`",
        "override" | "unwatch" | "skboutput" => "Porthole observes; it changes nothing",
        "macaddr" => "`mac(pointer)` is a hardware address",
        "pton" => "an address to compare with is in quotes: `ntop(…) == \"192.0.2.1\"`",
        "strlen" => "a handler can count",
        "cgroupid" | "cgroup_path" => {
            "`cgroup` is the number of the thread's cgroup: that of its directory in cgroupfs (`ls -di`)"
        }
        "time" | "errorf" | "debugf" | "warnf" => {
            "an `emit` step sends values to the plugin, and its handlers do the rest"
        }
        "zero" => "maps are not there yet",
        "stack_len" => "a handler counts a stack's frames",
        "strcmp" => "`==` and `!=` compare texts",
        "strncmp" | "strprefix" => "`starts_with(text, \"…\")`",
        "strcontains" | "strstr" => "`contains(text, \"…\")`",
        "kptr" => "`kernel(pointer)` is the same address in the kernel's memory",
        "percpu_kaddr" => "`this_cpu(\"name\")` and `per_cpu(\"name\", cpu)` are a CPU's own variable",
        "uptr" => "`user(pointer)` is the same address in the process's memory",
        _ if name.starts_with("bpf_") => {
            "kfuncs can be called (`porthole kfuncs` lists them); helpers the host calls by itself"
        }
        _ => return None,
    };
    Some(help.to_owned())
}

/// Help for a kind of attach point that is not there yet, or has another name elsewhere.
pub fn attach_kind(kind: &str) -> Option<&'static str> {
    match kind {
        "BEGIN" | "begin" => Some("what a plugin does at first stands in its handler `start`"),
        "END" | "end" => Some("what a plugin does at last stands in its handler `stop`"),
        "interval" => Some("a declaration's `tick` has `on-tick` called at intervals"),
        "asyncwatchpoint" => Some("`watchpoint:ADDRESS:LENGTH:MODE` watches an address that is known"),
        "raw_tp" | "tp_btf" | "raw_tracepoint" => Some("write `rawtracepoint`"),
        "tp" => Some("write `tracepoint`"),
        "syscall" | "syscalls" | "ksyscall" | "kretsyscall" => Some(
            "a system call is `tracepoint:syscalls:sys_enter_NAME`, and its end `tracepoint:syscalls:sys_exit_NAME`",
        ),
        "fmod_ret" => Some("Porthole observes; `fexit` sees what a function returns"),
        "function" | "kernel" => Some("write `func`"),
        "perf" | "perf_event" => Some("there are `software:EVENT:N`, `hardware:EVENT:N` and `profile:hz:N`"),
        "xdp" | "tc" | "tcx" | "cgroup" | "struct_ops" | "netfilter" | "sk_lookup" => {
            Some("Porthole observes; it takes no part in what the kernel decides")
        }
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
