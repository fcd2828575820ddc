//! Bytes, addresses and flags, as the running kernel has them, against what this test did and what the system says of
//! itself.

mod e2e;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};

use porthole_tests::live::{Seen, probe, this_thread, trace};
use porthole_tests::machine::Value;

use e2e::is_root;

fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes { bytes: bytes.to_vec(), cut: false }
}

fn cut(bytes: &[u8]) -> Value {
    Value::Bytes { bytes: bytes.to_vec(), cut: true }
}

/// Each row as the host shows it.
fn shown(seen: &Seen) -> Vec<Vec<String>> {
    seen.rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect()
}

/// What is written to a pipe: bytes of every value, few and many, and from where nothing is.
#[test]
fn root_bytes_are_those_that_were_written() {
    if !is_root() {
        return;
    }
    let all: Vec<u8> = (0..5000).map(|n| (n % 256) as u8).collect();
    let (mut pipe, null) = ([0; 2], std::ptr::null::<u8>());
    // SAFETY: there is room for two numbers of files, which this test alone uses.
    assert_eq!(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    let when = format!("tid == {} && args.fd == {}", this_thread(), pipe[1]);
    let values = [
        "buf(args.buf, args.count)",
        "buf(args.buf, args.count, 4096)",
        "buf(args.buf, 4)",
        "buf(args.buf, args.count - 5, 3)",
        "buf(args.buf, args.count) == \"\\x01\\x02\\x03\"",
        "buf(task.comm, 2)",
    ];
    let writes = [(&all[..], 256), (&all, 257), (&all[1..], 3), (&all, 5000), (&all, 0)];
    let seen = trace(&probe(&["tracepoint:syscalls:sys_enter_write"], &when, &values), || {
        for (from, count) in writes {
            // SAFETY: so many bytes can be read there, and the pipe has room for all of them.
            assert_eq!(unsafe { libc::write(pipe[1], from.as_ptr().cast(), count) }, count as isize);
        }
        // SAFETY: the kernel checks the address, and refuses it.
        assert_eq!(unsafe { libc::write(pipe[1], null.cast(), 8) }, -1);
    });
    for file in pipe {
        // SAFETY: nobody else has it.
        unsafe { libc::close(file) };
    }
    assert_eq!(seen.rows.len(), 6, "{:?}", shown(&seen));
    let comm = fs::read("/proc/thread-self/comm").unwrap();
    for (row, (from, count)) in seen.rows.iter().zip(writes) {
        let limited = |most: usize| if count > most { cut(&from[..most]) } else { bytes(&from[..count]) };
        assert_eq!(row[..2], [limited(256), limited(4096)], "{count} bytes");
        assert_eq!(row[2], bytes(&from[..4]));
        // The length is unsigned there: below 5 it is huge.
        assert_eq!(row[3], if count == 5 { bytes(b"") } else { cut(&from[..3]) });
        assert_eq!(row[4], Value::Boolean(count == 3));
        assert_eq!(row[5], bytes(&comm[..2]));
    }
    assert_eq!(seen.rows[5][..4], [Value::Absent, Value::Absent, Value::Absent, Value::Absent]);
    // A sink has them without loss.
    let json = &seen.shown()[2];
    assert_eq!((&json["f0"], &json["f2"]), (&"\u{1}\u{2}\u{3}".into(), &"\u{1}\u{2}\u{3}\u{4}".into()));
    assert_eq!(seen.shown()[0]["f2"], "\0\u{1}\u{2}\u{3}");
    assert!(seen.shown()[0]["f0"]["escaped"].as_str().unwrap().ends_with("\\xfe\\xff"));
}

/// A connection over loopback, in both families: its ends are what the sockets themselves say they are.
#[test]
fn root_addresses_are_those_of_the_sockets() {
    if !is_root() {
        return;
    }
    const SK: &str = "((struct sock *)args.sk).__sk_common";
    let values = [
        "$.skc_family == AF_INET ? ntop($.skc_daddr) : ntop($.skc_v6_daddr)",
        "$.skc_family == AF_INET ? ntop($.skc_rcv_saddr) : ntop($.skc_v6_rcv_saddr)",
        "ntohs($.skc_dport)",
        "$.skc_num",
        "ntop($.skc_family, &$.skc_v6_daddr)",
        "ntop($.skc_daddr) in (\"127.0.0.1\", \"127.0.0.2\")",
        "ntop(AF_INET6, &$.skc_v6_daddr) == \"::1\"",
    ]
    .map(|value| value.replace('$', SK));
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let mut listeners = vec![TcpListener::bind("127.0.0.1:0").unwrap()];
    match TcpListener::bind("[::1]:0") {
        Ok(listener) => listeners.push(listener),
        Err(error) => println!("skipped: no IPv6: {error}"),
    }
    // When it is closed, the socket has had both addresses and ports for long.
    let when = format!("tid == {} && args.newstate == TCP_FIN_WAIT1", this_thread());
    let mut ends: Vec<(SocketAddr, SocketAddr)> = Vec::new();
    let seen = trace(&probe(&["rawtracepoint:inet_sock_set_state"], &when, &values), || {
        for listener in &listeners {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            ends.push((stream.peer_addr().unwrap(), stream.local_addr().unwrap()));
        }
    });
    assert_eq!(seen.rows.len(), ends.len(), "{:?}", shown(&seen));
    for (row, (peer, local)) in seen.rows.iter().zip(&ends) {
        assert_eq!(row[..2], [Value::Address(peer.ip()), Value::Address(local.ip())]);
        assert_eq!(row[2], Value::Unsigned(peer.port().into()));
        assert_eq!(row[3], Value::Unsigned(local.port().into()));
        if peer.is_ipv6() {
            assert_eq!(row[4], Value::Address(peer.ip()));
        }
        assert_eq!(row[5], Value::Boolean(peer.is_ipv4()));
        assert!(peer.is_ipv4() || row[6] == Value::Boolean(true), "{row:?}");
    }
    assert_eq!(seen.shown()[0]["f0"], ends[0].0.ip().to_string());
}

/// The devices of this network namespace, in the order of the kernel's list.
#[test]
fn root_hardware_addresses_are_those_of_the_devices() {
    if !is_root() {
        return;
    }
    const DEVICES: usize = 4;
    let device = |n: usize| {
        let entry = format!("task.nsproxy.net_ns.dev_base_head.next{}", ".next".repeat(n));
        format!("container_of({entry}, struct net_device, dev_list)")
    };
    let values: Vec<String> = (0..DEVICES)
        .flat_map(|n| {
            let device = device(n);
            // Behind the last device stands the list's head, which is in no device.
            [
                format!("str((char *)&{device}.name)"),
                format!("mac({device}.dev_addr)"),
                format!("mac({device}.perm_addr)"),
            ]
        })
        .collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let when = format!("tid == {}", this_thread());
    let seen = trace(&probe(&["tracepoint:syscalls:sys_enter_access"], &when, &values), || {
        // SAFETY: the path ends in a 0.
        unsafe { libc::access(c"/".as_ptr(), libc::R_OK) };
    });
    let row = shown(&seen).remove(0);
    // Not all that stands there is a device: `bonding_masters` is none.
    let address = |name: &str| fs::read_to_string(format!("/sys/class/net/{name}/address")).ok();
    let all = fs::read_dir("/sys/class/net").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let there = all.filter(|name| address(name).is_some()).count();
    let mut found = BTreeSet::new();
    for device in row.chunks(3).take(there) {
        let name = device[0].trim_matches('"');
        assert_eq!(Some(device[1].as_str()), address(name).as_deref().map(str::trim), "{row:?}");
        found.insert(name);
    }
    assert!(there > 0 && found.len() == there.min(DEVICES), "{found:?} of {there}: {row:?}");
}

/// Calls whose flags this test chose, by their names; a name that the table of macros lacks comes from the kernel's
/// types.
#[test]
fn root_flags_have_the_names_that_were_passed() {
    if !is_root() {
        return;
    }
    let path = CString::new("/dev/null").unwrap();
    let when = format!("tid == {}", this_thread());
    let opens = [
        (libc::O_RDONLY, "O_RDONLY"),
        (libc::O_WRONLY | libc::O_CLOEXEC, "O_WRONLY|O_CLOEXEC"),
        (libc::O_RDWR | libc::O_SYNC | libc::O_NONBLOCK, "O_RDWR|O_NONBLOCK|O_SYNC"),
        (libc::O_RDONLY | libc::O_DSYNC | 0x4000_0000, "O_RDONLY|O_DSYNC|0x40000000"),
        (libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, "O_RDONLY|O_DIRECTORY|O_NOFOLLOW|O_PATH"),
    ];
    let values =
        ["flags(args.flags, \"O_\")", "flags(args.flags, \"O_\") + 0", "flags(args.flags, \"O_\") & O_CLOEXEC"];
    let seen = trace(&probe(&["tracepoint:syscalls:sys_enter_openat"], &when, &values), || {
        for (flags, _) in opens {
            // SAFETY: the path ends in a 0, and what was opened is closed.
            unsafe {
                let file = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags);
                libc::close(file as i32);
            }
        }
    });
    let told: Vec<(String, String)> = shown(&seen).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let wanted: Vec<(String, String)> =
        opens.iter().map(|(flags, names)| ((*names).to_owned(), flags.to_string())).collect();
    assert_eq!(told, wanted);
    let names: Vec<&str> = opens[3].1.split('|').collect();
    assert_eq!(seen.shown()[3]["f0"], serde_json::json!(names));

    let sockets = [
        (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, "SOCK_DGRAM|SOCK_CLOEXEC"),
        (libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK, "SOCK_SEQPACKET|SOCK_NONBLOCK"),
        (libc::SOCK_STREAM, "SOCK_STREAM"),
    ];
    let values = ["flags(args.type, \"SOCK_\")"];
    let seen = trace(&probe(&["tracepoint:syscalls:sys_enter_socket"], &when, &values), || {
        for (kind, _) in sockets {
            // SAFETY: what was made is closed.
            unsafe {
                libc::close(libc::socket(libc::AF_UNIX, kind, 0));
            }
        }
    });
    assert_eq!(shown(&seen).concat(), sockets.map(|(_, names)| names));

    let maps = [
        (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, ["PROT_NONE", "MAP_PRIVATE|MAP_ANONYMOUS"]),
        (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            ["PROT_READ|PROT_WRITE", "MAP_SHARED|MAP_ANONYMOUS|MAP_NORESERVE"],
        ),
    ];
    let when = format!("{when} && args.len == 12288");
    let values = ["flags(args.prot, \"PROT_\")", "flags(args.flags, \"MAP_\")"];
    let seen = trace(&probe(&["tracepoint:syscalls:sys_enter_mmap"], &when, &values), || {
        for (protection, flags, _) in maps {
            // SAFETY: memory that nobody has yet, and that is given back.
            unsafe {
                let at = libc::mmap(std::ptr::null_mut(), 12288, protection, flags, -1, 0);
                libc::munmap(at, 12288);
            }
        }
    });
    assert_eq!(shown(&seen), maps.map(|(_, _, names)| names));
    // A device's flags, whose names are an enumeration's.
    let device = "container_of(task.nsproxy.net_ns.dev_base_head.next, struct net_device, dev_list)";
    let value = format!("flags({device}.flags, \"enum net_device_flags\")");
    let when = format!("tid == {}", this_thread());
    let seen = trace(&probe(&["tracepoint:syscalls:sys_enter_access"], &when, &[&value]), || {
        // SAFETY: the path ends in a 0.
        unsafe { libc::access(c"/".as_ptr(), libc::R_OK) };
    });
    // The first device is `lo`.
    let names = shown(&seen).concat().concat();
    assert!(names.split('|').any(|name| name == "IFF_LOOPBACK"), "{names}");
}
