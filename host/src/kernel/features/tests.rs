use super::machine::{CAP_DAC_READ_SEARCH, parse_capabilities, parse_version};
use super::*;

#[test]
fn versions() {
    assert_eq!(parse_version("6.18.44-amd64"), Some((6, 18)));
    assert_eq!(parse_version("5.8-rc1"), Some((5, 8)));
    assert_eq!(parse_version("linux"), None);
    assert_eq!(parse_version(""), None);
}

#[test]
fn capabilities() {
    let machine = |set: u64| Machine {
        release: String::new(),
        version: None,
        capabilities: parse_capabilities(&format!("Name:\tx\nCapEff:\t{set:016x}\nCapBnd:\t0\n")),
    };
    assert!(!machine(0).may_trace());
    assert!(!machine(1 << 39).may_trace());
    assert!(machine(1 << 39 | 1 << 38).may_trace());
    assert!(machine(1 << 21).may_trace());
    assert!(!machine(1 << 39 | 1 << 38).may(&CAP_SYS_ADMIN));
    assert!(!machine(1 << 21).may(&CAP_DAC_READ_SEARCH));
    assert_eq!(parse_capabilities("Name:\tx\n"), None);
}

#[test]
fn refusals_without_privileges_tell_nothing() {
    let machine = |capabilities| Machine { release: String::new(), version: None, capabilities: Some(capabilities) };
    let refused = || Err(io::Error::from_raw_os_error(libc::EPERM));
    assert!(matches!(machine(0).judge(refused(), ""), Answer::Unknown(_)));
    assert!(matches!(machine(1 << 21).judge(refused(), ""), Answer::No(_)));
    assert_eq!(machine(0).judge(Ok(()), ""), Answer::Yes);
    let unknown = Err(io::Error::from_raw_os_error(libc::EINVAL));
    assert_eq!(machine(0).judge(unknown, "since 9.9").to_string(), "no: this kernel does not know it: since 9.9");
}

#[test]
fn root_what_tracing_needs_is_there() {
    assert_eq!(missing_privileges(), Vec::<&str>::new());
    let checks = checks(&KernelFacts::running());
    for needed in [
        "kernel 5.8 or later",
        "CAP_BPF",
        "CAP_PERFMON",
        "bpf() system call",
        "kernel types (BTF)",
        "tracefs",
        "BPF ring buffer",
        "reading kernel memory",
        "reading user memory",
        "tracepoint programs",
        "typed raw tracepoint programs (tp_btf)",
        "attaching to tracepoints",
    ] {
        let check = checks.iter().find(|check| check.name == needed).unwrap();
        assert_eq!(check.answer, Answer::Yes, "{needed}");
        assert_eq!(check.advice, None, "{needed}");
    }
    for check in &checks {
        println!("{:40} {}", check.name, check.answer);
    }
}
