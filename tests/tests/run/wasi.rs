//! Plugins built for a target with WASI: they run like any other, and WASI gives them nothing.

use std::fs::{self, Permissions};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::e2e::host::Run;
use crate::e2e::load::getppid;
use crate::e2e::{Directory, is_root, unique, wasi_plugin};

/// What `wasm32-wasip2` makes of a Rust plugin imports WASI, whether it needs it or not.
#[test]
fn root_a_plugin_built_for_wasi_runs_like_any_other() {
    if !is_root() {
        return;
    }
    let comm = unique();
    let host = Run::new(&wasi_plugin("calls")).args("--rows --comm").arg(&comm).attach();
    getppid(&comm, 1000);
    let ended = host.interrupt().successful();
    assert_eq!(ended.counts("calls", "call").delivered, 1000);
    let rows = ended.rows();
    assert_eq!(rows.len(), 1001);
    let sum = u64::from(std::process::id()) * 1000;
    assert_eq!(rows[1000]["fields"], json!({ "events": 1000, "lost": 0, "sum": sum }));
}

/// No files, no network, no environment, no arguments; and what it prints goes to its log.
#[test]
fn root_wasi_gives_nothing() {
    if !is_root() {
        return;
    }
    let directory = Directory::new("reach");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).expect("it is ours");
    let listener = TcpListener::bind("127.0.0.1:0").expect("this machine has a loopback");
    let address = listener.local_addr().expect("it has an address");
    let socket = UdpSocket::bind(address).expect("what is free for TCP is free for UDP too");
    let reach = format!("{} {} {address}", directory.file("secret", "x").display(), directory.path().display());
    let run = Run::new(&wasi_plugin("hostile")).args("--in start --do reach --text").arg(reach);
    let ended = run.option("--duration=0.1").finish().successful();
    let nothing = json!({
        "arguments": 0, "environment": 0, "input": "",
        "read": false, "list": false, "write": false,
        "tcp": false, "udp": false, "lookup": false,
    });
    assert_eq!(ended.rows()[0]["fields"], nothing);
    assert_eq!(fs::read_dir(directory.path()).expect("it is ours").count(), 1, "the secret alone");
    listener.set_nonblocking(true).and_then(|()| socket.set_nonblocking(true)).expect("they are sockets");
    assert!(listener.accept().is_err() && socket.recv(&mut [0; 1]).is_err(), "nobody has called");
    let logged: Vec<_> = ended.stderr.lines().filter(|line| line.starts_with("hostile: ")).collect();
    assert_eq!(logged, ["hostile: to stdout", "hostile: warning: to stderr"]);
}
