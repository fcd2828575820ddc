//! Sockets, by getsockname(2) and getpeername(2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;

use super::files::InMemory;
use super::*;

/// The socket of a descriptor of this thread.
fn socket(fd: RawFd) -> String {
    format!("((struct socket *)task.files.fdt.fd[{fd}].private_data).sk")
}

/// Two ends of a connection, as the sockets that these expressions point to have them.
fn of_ends(sk: &str, own: SocketAddr, peer: Option<SocketAddr>) -> Vec<Claim> {
    let common = format!("{sk}.__sk_common");
    let mut claims = vec![
        claim("own port", &format!("{common}.skc_num"), own.port()),
        claim("family", &format!("{common}.skc_family"), if own.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }),
    ];
    if let Some(peer) = peer {
        claims.push(claim("peer's port", &format!("ntohs({common}.skc_dport)"), peer.port()));
        claims.extend(of_address("peer's address", &common, ["skc_daddr", "skc_v6_daddr"], peer.ip()));
    }
    claims.extend(of_address("own address", &common, ["skc_rcv_saddr", "skc_v6_rcv_saddr"], own.ip()));
    claims
}

fn of_address(name: &str, common: &str, members: [&str; 2], address: IpAddr) -> Vec<Claim> {
    match address {
        IpAddr::V4(address) => {
            vec![claim(name, &format!("ntohl({common}.{})", members[0]), u32::from(address))]
        }
        IpAddr::V6(address) => {
            let part = |(n, part): (usize, &u16)| {
                claim(name, &format!("ntohs({common}.{}.in6_u.u6_addr16[{n}])", members[1]), part)
            };
            address.segments().iter().enumerate().map(part).collect()
        }
    }
}

/// The socket's file and its states (include/net/tcp_states.h).
fn of_file(fd: RawFd, sk: &str, state: u8) -> Vec<Claim> {
    let inode = std::fs::metadata(format!("/proc/self/fd/{fd}")).expect("it is open").ino();
    vec![
        claim("st_ino", &format!("container_of({sk}.sk_socket, struct socket_alloc, socket).vfs_inode.i_ino"), inode),
        claim("state", &format!("{sk}.__sk_common.skc_state"), state),
        // SAFETY: it cannot fail.
        claim("owner", &format!("{sk}.sk_uid.val"), unsafe { libc::geteuid() }),
    ]
}

const ESTABLISHED: u8 = 1;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;

/// A connection to itself over the loopback, by IPv4 or by IPv6 where there is one.
fn connection(address: IpAddr) -> (TcpListener, TcpStream, TcpStream) {
    let listener = TcpListener::bind((address, 0)).expect("a port is free");
    let client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    let server = listener.accept().expect("somebody has come").0;
    (listener, client, server)
}

fn loopbacks() -> Vec<IpAddr> {
    let mut all = vec![IpAddr::V4(Ipv4Addr::new(127, 1, 2, 3))];
    match UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(_) => all.push(Ipv6Addr::LOCALHOST.into()),
        Err(error) => println!("skipped: no IPv6 here: {error}"),
    }
    all
}

#[test]
fn root_sockets_are_what_getsockname_says() {
    if !e2e::is_root() {
        return;
    }
    let mut claims = Vec::new();
    let mut open: Vec<Box<dyn AsRawFd>> = Vec::new();
    for address in loopbacks() {
        let (listener, client, server) = connection(address);
        let ends = [
            (listener.as_raw_fd(), listener.local_addr(), None, LISTEN),
            (client.as_raw_fd(), client.local_addr(), Some(client.peer_addr()), ESTABLISHED),
            (server.as_raw_fd(), server.local_addr(), Some(server.peer_addr()), ESTABLISHED),
        ];
        for (fd, own, peer, state) in ends {
            let sk = socket(fd);
            let peer = peer.map(|peer| peer.expect("it is connected"));
            claims.extend(of_ends(&sk, own.expect("it is bound"), peer));
            claims.extend(of_file(fd, &sk, state));
            claims.push(claim("protocol", &format!("{sk}.sk_protocol"), libc::IPPROTO_TCP));
            claims.push(claim("type", &format!("{sk}.sk_type"), libc::SOCK_STREAM));
        }
        let udp = UdpSocket::bind((address, 0)).expect("a port is free");
        let sk = socket(udp.as_raw_fd());
        claims.extend(of_ends(&sk, udp.local_addr().expect("it is bound"), None));
        claims.extend(of_file(udp.as_raw_fd(), &sk, CLOSE));
        claims.push(claim("protocol", &format!("{sk}.sk_protocol"), libc::IPPROTO_UDP));
        open.extend([Box::new(listener) as Box<dyn AsRawFd>, Box::new(client), Box::new(server), Box::new(udp)]);
    }
    let directory = InMemory::new();
    let path = directory.0.join("unix");
    let unix = UnixListener::bind(&path).expect("the path is new");
    let sk = socket(unix.as_raw_fd());
    let bound = unix.local_addr().expect("it is bound");
    let bound = bound.as_pathname().expect("to a path").to_str().expect("it is UTF-8");
    claims.push(claim("path", &format!("str((char *)&((struct unix_sock *){sk}).addr.name[0].sun_path)"), bound));
    claims.push(claim("family", &format!("{sk}.__sk_common.skc_family"), libc::AF_UNIX));
    claims.extend(of_file(unix.as_raw_fd(), &sk, LISTEN));

    let (path, when) = call();
    compare(ACCESS, &when, &claims, || access(&path));
}

/// A connection while it is made: at the state's change, from the `struct sock` that the tracepoint is handed, and from
/// the tracepoint's own fields.
#[test]
fn root_connections_are_what_their_ends_say() {
    if !e2e::is_root() {
        return;
    }
    for address in loopbacks() {
        let listener = TcpListener::bind((address, 0)).expect("a port is free");
        let there = listener.local_addr().expect("it is bound");
        let established = format!("args.newstate == {ESTABLISHED} &&");
        // The client's end: its peer is the listener. The other end has the ports the other way round.
        let raw = format!("{established} ntohs(args.sk.__sk_common.skc_dport) == {}", there.port());
        let formatted = format!("{established} args.dport == {}", there.port());
        for (attach, when, by_format) in [
            ("rawtracepoint:inet_sock_set_state", &raw, false),
            ("tracepoint:sock:inet_sock_set_state", &formatted, true),
        ] {
            let mut connected = None;
            // The port is chosen by the kernel in `work`, so the claims are made of what comes.
            let expressions = if by_format { formatted_fields(address) } else { walked_fields(address) };
            let expressions: Vec<&str> = expressions.iter().map(String::as_str).collect();
            let seen = trace(&probes(attach, when, &expressions), || {
                let client = TcpStream::connect(there).expect("it listens");
                connected = Some((client.local_addr().expect("bound"), client.peer_addr().expect("connected")));
                listener.accept().expect("somebody has come");
            });
            let (own, peer) = connected.expect("it has been made");
            let told = in_order(seen, expressions.len());
            let family = if own.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
            let mut truth = vec![own.port().to_string(), peer.port().to_string(), family.to_string()];
            for ip in [own.ip(), peer.ip()] {
                match ip {
                    IpAddr::V4(ip) => truth.extend(ip.octets().map(|octet| octet.to_string())),
                    IpAddr::V6(ip) => truth.extend(ip.octets().map(|octet| octet.to_string())),
                }
            }
            assert_eq!(told, truth, "{attach}");
            println!("{} values compared", truth.len());
        }
    }
}

/// Ports, family and the bytes of both addresses, from the socket.
fn walked_fields(address: IpAddr) -> Vec<String> {
    let common = "args.sk.__sk_common";
    let mut fields =
        vec![format!("{common}.skc_num"), format!("ntohs({common}.skc_dport)"), format!("{common}.skc_family")];
    for (v4, v6) in [("skc_rcv_saddr", "skc_v6_rcv_saddr"), ("skc_daddr", "skc_v6_daddr")] {
        match address {
            IpAddr::V4(_) => fields.extend((0..4).map(|n| format!("((u8 *)&{common}.{v4})[{n}]"))),
            IpAddr::V6(_) => fields.extend((0..16).map(|n| format!("{common}.{v6}.in6_u.u6_addr8[{n}]"))),
        }
    }
    fields
}

/// The same from the tracepoint's format.
fn formatted_fields(address: IpAddr) -> Vec<String> {
    let mut fields = vec!["args.sport".to_owned(), "args.dport".to_owned(), "args.family".to_owned()];
    let (members, bytes) = match address {
        IpAddr::V4(_) => (["saddr", "daddr"], 4),
        IpAddr::V6(_) => (["saddr_v6", "daddr_v6"], 16),
    };
    for member in members {
        fields.extend((0..bytes).map(|n| format!("args.{member}[{n}]")));
    }
    fields
}
