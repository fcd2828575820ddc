//! The example `sockets`: what it says of connections and packets of this test's own, against what was sent,
//! getsockname(2), /proc/net/tcp and TCP_INFO.

mod e2e;

use std::fs;
use std::io::{self, Read, Write};
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use porthole_tests::live::patience;
use serde_json::{Value, json};

use e2e::host::{Ended, Host, Run};
use e2e::{is_root, plugin};

/// Bytes from the client, and to it.
const THERE: (usize, usize) = (1000, 200);
const LATER: (usize, usize) = (300_000, 321);
const DATAGRAMS: usize = 5;

/// The loopback's addresses that this machine has.
fn loopbacks() -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    addresses.retain(|address| {
        let is_there = UdpSocket::bind((*address, 0)).is_ok();
        if !is_there {
            println!("skipped: this machine has no {address}");
        }
        is_there
    });
    addresses
}

fn watching(port: u16) -> Host {
    Run::new(&plugin("sockets")).arg("--port").arg(port.to_string()).attach()
}

/// The fields of rows of one event, in their order.
fn fields(ended: &Ended, event: &str) -> Vec<Value> {
    ended.rows().into_iter().filter(|row| row["event"] == event).map(|row| row["fields"].clone()).collect()
}

/// A connection's two ends, and so many bytes sent from the client, and to it.
fn connected(listener: &TcpListener, (sent, back): (usize, usize)) -> (TcpStream, TcpStream) {
    let address = listener.local_addr().expect("it is bound");
    let mut client = TcpStream::connect(address).expect("somebody listens");
    let (mut server, _) = listener.accept().expect("somebody connects");
    let writes = std::thread::scope(|scope| {
        let reads = scope.spawn(|| server.read_exact(&mut vec![0; sent]));
        client.write_all(&vec![b'x'; sent]).and_then(|()| reads.join().expect("it does not panic"))
    });
    writes.expect("it is connected");
    server.write_all(&vec![b'y'; back]).expect("it is connected");
    client.read_exact(&mut vec![0; back]).expect("it is connected");
    (client, server)
}

/// The client closes first.
fn close((client, mut server): (TcpStream, TcpStream)) {
    drop(client);
    assert_eq!(server.read(&mut [0]).expect("it is connected"), 0);
}

/// Local end, remote end, state and user of the sockets of a port, as proc_pid_net(5) tells them, as columns of the
/// example.
fn of_proc(port: u16, v6: bool) -> Vec<[Value; 6]> {
    let text = fs::read_to_string(if v6 { "/proc/net/tcp6" } else { "/proc/net/tcp" }).expect("procfs is mounted");
    let end = |text: &str| {
        let (address, port) = text.split_once(':').expect("address and port");
        // Words of the network's order of bytes, printed as numbers of this machine.
        let words = (0..address.len() / 8)
            .flat_map(|n| u32::from_str_radix(&address[n * 8..][..8], 16).expect("a number").to_le_bytes());
        let bytes: Vec<u8> = words.collect();
        let address: IpAddr = match <[u8; 4]>::try_from(&bytes[..]) {
            Ok(bytes) => bytes.into(),
            Err(_) => <[u8; 16]>::try_from(&bytes[..]).expect("4 or 16 bytes").into(),
        };
        (address.to_string(), u16::from_str_radix(port, 16).expect("a number"))
    };
    let line = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let ((local, local_port), (remote, remote_port)) = (end(columns[1]), end(columns[2]));
        let state = match columns[3] {
            "01" => "TCP_ESTABLISHED",
            "0A" => "TCP_LISTEN",
            other => other,
        };
        let uid: u32 = columns[7].parse().expect("a number");
        (local_port == port || remote_port == port)
            .then(|| [json!(local), json!(local_port), json!(remote), json!(remote_port), json!(state), json!(uid)])
    };
    sorted(text.lines().skip(1).filter_map(line).collect())
}

fn sorted(mut sockets: Vec<[Value; 6]>) -> Vec<[Value; 6]> {
    sockets.sort_by_key(|socket| format!("{socket:?}"));
    sockets
}

/// What a row says of one end of a connection.
fn ends(local: SocketAddr, remote: SocketAddr) -> impl Fn(&Value) -> bool {
    let is = move |row: &Value, address: &str, port: &str, end: SocketAddr| {
        row[address] == json!(end.ip().to_string()) && row[port] == json!(end.port())
    };
    move |row| is(row, "local", "port", local) && is(row, "remote", "remote_port", remote)
}

#[test]
fn root_connections_are_told_with_their_ends_and_bytes() {
    if !is_root() {
        return;
    }
    for loopback in loopbacks() {
        let listener = TcpListener::bind((loopback, 0)).expect("a port is free");
        let server = listener.local_addr().expect("it is bound");
        let before = connected(&listener, THERE);

        let host = watching(server.port());
        host.wait_for_rows(3);
        let there = of_proc(server.port(), loopback.is_ipv6());
        let later = connected(&listener, LATER);
        let clients = [&before.0, &later.0].map(|stream| stream.local_addr().expect("it is connected"));
        close(later);
        close(before);
        drop(listener);
        let refused = TcpStream::connect(server).expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let again = TcpListener::bind(server).expect("nobody else has taken the port");
        let ended = host.interrupt().successful();
        drop(again);

        let rows = fields(&ended, "tcp");
        let of = |what: &str| rows.iter().filter(|row| row["what"] == what).cloned().collect::<Vec<_>>();
        let columns = ["local", "port", "remote", "remote_port", "state", "uid"];
        let told = of("is there").iter().map(|row| columns.map(|column| row[column].clone())).collect();
        assert_eq!(sorted(told), there, "{rows:#?}");
        assert_eq!(there.len(), 3, "a socket that listens, and two ends: {there:?}");

        // The start (of who connects) and the end count as a byte each where they are confirmed, the end also where it
        // is received.
        let bytes = |row: &Value| ["sent", "acked", "received"].map(|column| row[column].as_u64().expect("a number"));
        let closed = |from: SocketAddr, to: SocketAddr| {
            let [row] = &of("closed").into_iter().filter(ends(from, to)).collect::<Vec<_>>()[..] else {
                panic!("{rows:#?}")
            };
            bytes(row)
        };
        for (client, (sent, back)) in clients.into_iter().zip([THERE, LATER]) {
            let (sent, back) = (sent as u64, back as u64);
            assert_eq!(closed(client, server), [sent, sent + 2, back + 1], "{rows:#?}");
            assert_eq!(closed(server, client), [back, back + 1, sent + 1], "{rows:#?}");
        }
        let [opened] = &of("opened")[..] else { panic!("{rows:#?}") };
        let [accepted] = &of("accepted")[..] else { panic!("{rows:#?}") };
        assert!(ends(clients[1], server)(opened), "{opened}");
        assert!(ends(server, clients[1])(accepted), "{accepted}");
        for row in [opened, accepted] {
            assert_eq!((&row["state"], row["received"].as_u64()), (&json!("TCP_ESTABLISHED"), Some(0)), "{row}");
        }
        // The socket that listened is the fifth to be closed.
        assert_eq!(of("closed").len(), 5, "{rows:#?}");
        let [failed] = &of("failed")[..] else { panic!("{rows:#?}") };
        assert_eq!((&failed["remote"], &failed["remote_port"]), (&json!(loopback.to_string()), &json!(server.port())));
        let [listens] = &of("listens")[..] else { panic!("{rows:#?}") };
        assert_eq!((&listens["local"], &listens["port"]), (&json!(loopback.to_string()), &json!(server.port())));

        // What nobody listened for is a packet dropped, too.
        let [drop] = &no_socket(&ended)[..] else { panic!("{rows:#?}") };
        assert_eq!((&drop["protocol"], &drop["from_port"]), (&json!(libc::IPPROTO_TCP), &failed["port"]), "{drop}");
        for probe in ["change", "again", "there", "drop"] {
            let counts = ended.counts("sockets", probe);
            assert_eq!((counts.lost, counts.emitted), (0, counts.delivered), "{probe}");
        }
    }
}

/// Packets for which there was no socket.
fn no_socket(ended: &Ended) -> Vec<Value> {
    let mut drops = fields(ended, "drop");
    drops.retain(|row| row["reason"] == "SKB_DROP_REASON_NO_SOCKET");
    drops
}

#[test]
fn root_a_datagram_for_nobody_is_dropped_with_its_reason() {
    if !is_root() {
        return;
    }
    for loopback in loopbacks() {
        let closed = UdpSocket::bind((loopback, 0)).and_then(|socket| socket.local_addr()).expect("a port is free");
        let host = watching(closed.port());
        let sender = UdpSocket::bind((loopback, 0)).expect("a port is free");
        for n in 0..DATAGRAMS {
            sender.send_to(&vec![b'x'; n], closed).expect("the loopback takes it");
        }
        let ended = host.interrupt().successful();
        let drops = no_socket(&ended);
        assert_eq!(drops.len(), DATAGRAMS, "{drops:#?}");
        let from = sender.local_addr().expect("it is bound");
        for (n, drop) in drops.iter().enumerate() {
            for (column, expected) in [
                ("protocol", json!(libc::IPPROTO_UDP)),
                ("from", json!(loopback.to_string())),
                ("from_port", json!(from.port())),
                ("to", json!(loopback.to_string())),
                ("to_port", json!(closed.port())),
                // UDP's header and the payload: those of lower layers have been taken off.
                ("length", json!(8 + n)),
            ] {
                assert_eq!(drop[column], expected, "{column} of {drop}");
            }
            assert!(drop["place"].as_str().is_some_and(|place| place.contains("udp")), "{drop}");
        }
    }
}

/// A listener whose queue is full answers to nobody, so the first segment is sent again, a second later.
#[test]
fn root_what_is_sent_again_is_told() {
    if !is_root() {
        return;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let server = listener.local_addr().expect("it is bound");
    // SAFETY: it is a socket that listens, and does so with another length of its queue from now on.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let _first = TcpStream::connect(server).expect("there is room for one");
    let host = watching(server.port());
    let waiting = connecting(server);
    let client = local_port(&waiting);
    let deadline = Instant::now() + patience();
    while total_retransmissions(&waiting) < 1 {
        assert!(Instant::now() < deadline, "nothing is sent again");
        sleep(Duration::from_millis(20));
    }
    // It has been counted just before it is told.
    sleep(Duration::from_millis(100));
    let sent = total_retransmissions(&waiting);
    let ended = host.interrupt().successful();
    let mut rows = fields(&ended, "tcp");
    rows.retain(|row| row["what"] == "sent again" && row["port"] == json!(client));
    let again: Vec<_> = rows.iter().filter_map(|row| row["again"].as_u64()).collect();
    assert!(again.len() as u64 >= sent && again.iter().copied().eq(1..=again.len() as u64), "{sent}: {rows:#?}");
    for row in &rows {
        assert_eq!(
            (&row["state"], &row["remote"], &row["remote_port"]),
            (&json!("TCP_SYN_SENT"), &json!("127.0.0.1"), &json!(server.port())),
            "{row}"
        );
    }
}

/// A socket that tries to connect.
fn connecting(to: SocketAddr) -> OwnedFd {
    let SocketAddr::V4(to) = to else { panic!("{to}") };
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: the socket is nobody else's, and the address as long as is said.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0);
        assert!(socket >= 0, "{}", io::Error::last_os_error());
        let socket = OwnedFd::from_raw_fd(socket);
        let length = size_of::<libc::sockaddr_in>() as u32;
        assert_eq!(libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length), -1);
        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::EINPROGRESS));
        socket
    }
}

fn local_port(socket: &OwnedFd) -> u16 {
    TcpStream::from(socket.try_clone().expect("it is open")).local_addr().expect("it has one").port()
}

/// As tcp(7) tells it.
fn total_retransmissions(socket: &OwnedFd) -> u64 {
    // SAFETY: zeros are a value of it, and as many bytes are written as it has at most.
    unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut length = size_of::<libc::tcp_info>() as u32;
        let at = (&raw mut info).cast();
        assert_eq!(libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, at, &raw mut length), 0);
        info.tcpi_total_retrans.into()
    }
}
