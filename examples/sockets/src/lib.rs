//! TCP connections that are opened, accepted, closed, or there already; what is sent again; and packets that are
//! dropped, with the kernel's reason.
//!
//! All of it is read from the kernel's own structures where they change, so each event is a row: the plugin only
//! forwards it.

#![expect(
    clippy::duplicated_attributes,
    reason = "probes of one event bind the same names, some of them to the same expression"
)]

use std::net::IpAddr;

use porthole_guest::Step;
use porthole_guest::prelude::*;

/// Something has happened to a TCP connection, or to a socket that listens; or it is there when the plugin starts.
///
/// `sk` is what all kinds of sockets begin with; `tcp` the whole socket. What is left of a connection for a while when
/// it has been closed, and what is there of one before it has been made, is smaller than a whole one: then `tcp` is
/// null, and what would be read there absent.
#[derive(Event)]
#[probe(
    name = "change",
    attach = "rawtracepoint:inet_sock_set_state",
    when = "args.sk.sk_protocol == IPPROTO_TCP && args.newstate in (TCP_ESTABLISHED, TCP_CLOSE, TCP_LISTEN)",
    bind(
        what = "args.newstate == TCP_LISTEN ? \"listens\" \
            : args.newstate == TCP_CLOSE ? (args.oldstate == TCP_SYN_SENT ? \"failed\" : \"closed\") \
            : args.oldstate == TCP_SYN_SENT ? \"opened\" : \"accepted\"",
        state = "(typeof(TCP_ESTABLISHED))args.newstate",
        sk = "&args.sk.__sk_common",
        tcp = "(struct tcp_sock *)args.sk",
        port = "ntohs(((struct inet_sock *)args.sk).inet_sport)",
        remote_port = "ntohs(sk.skc_dport)"
    )
)]
#[probe(
    name = "again",
    attach = "rawtracepoint:tcp_retransmit_skb",
    bind(
        what = "\"sent again\"",
        sk = "&args.sk.__sk_common",
        state = "(typeof(TCP_ESTABLISHED))sk.skc_state",
        tcp = "(struct tcp_sock *)args.sk",
        port = "sk.skc_num",
        remote_port = "ntohs(sk.skc_dport)"
    )
)]
#[probe(
    name = "there",
    attach = "iter:tcp",
    bind(
        what = "\"is there\"",
        sk = "args.sk_common",
        state = "(typeof(TCP_ESTABLISHED))sk.skc_state",
        tcp = "(struct tcp_sock *)(sk.skc_state in (TCP_TIME_WAIT, TCP_NEW_SYN_RECV) ? 0 : (u64)sk)",
        port = "sk.skc_num",
        remote_port = "ntohs(sk.skc_dport)"
    )
)]
struct Tcp<'a> {
    #[expr("what")]
    what: Text<'a>,
    #[expr("state")]
    state: i64,
    #[expr("sk.skc_family == AF_INET ? ntop(sk.skc_rcv_saddr) : ntop(sk.skc_v6_rcv_saddr)")]
    local: Option<IpAddr>,
    #[expr("port")]
    port: u16,
    #[expr("sk.skc_family == AF_INET ? ntop(sk.skc_daddr) : ntop(sk.skc_v6_daddr)")]
    remote: Option<IpAddr>,
    #[expr("remote_port")]
    remote_port: u16,
    /// Bytes handed to the network, those sent again not counted once more; confirmed by the other end; received.
    #[expr("tcp.bytes_sent - tcp.bytes_retrans")]
    sent: Option<u64>,
    #[expr("tcp.bytes_acked")]
    acked: Option<u64>,
    #[expr("tcp.bytes_received")]
    received: Option<u64>,
    /// Segments sent again.
    #[expr("tcp.total_retrans")]
    again: Option<u32>,
    #[expr("((struct sock *)tcp).sk_uid.val")]
    uid: Option<u32>,
}

/// An IP packet has been dropped.
#[derive(Event)]
#[probe(
    attach = "rawtracepoint:kfree_skb",
    when = "ntohs(args.skb.protocol) in (0x0800, 0x86dd)",
    bind(
        v6 = "ntohs(args.skb.protocol) == 0x86dd",
        network = "(u64)args.skb.head + args.skb.network_header",
        ip = "(struct iphdr *)network",
        ip6 = "(struct ipv6hdr *)network",
        protocol = "v6 ? ip6.nexthdr : ip.protocol",
        has_ports = "protocol in (IPPROTO_TCP, IPPROTO_UDP) && args.skb.transport_header > args.skb.network_header \
            && args.skb.transport_header != 0xffff",
        ports = "(struct udphdr *)(has_ports ? (u64)args.skb.head + args.skb.transport_header : 0)",
        port = "ntohs(ports.source)",
        remote_port = "ntohs(ports.dest)"
    )
)]
struct Drop {
    #[expr("args.reason")]
    reason: i64,
    #[expr("protocol")]
    protocol: Option<u8>,
    #[expr("v6 ? ntop(ip6.saddr) : ntop(ip.saddr)")]
    from: Option<IpAddr>,
    #[expr("port")]
    from_port: Option<u16>,
    #[expr("v6 ? ntop(ip6.daddr) : ntop(ip.daddr)")]
    to: Option<IpAddr>,
    #[expr("remote_port")]
    to_port: Option<u16>,
    #[expr("args.skb.len")]
    length: u32,
    /// Where in the kernel.
    #[expr("ksym(args.location)")]
    place: u64,
}

#[derive(Event)]
enum Socket<'a> {
    Tcp(Tcp<'a>),
    Drop(Drop),
}

#[derive(Default)]
struct Sockets;

impl Plugin for Sockets {
    type Event<'a> = Socket<'a>;

    fn declare(&mut self, args: &mut Args, declaration: &mut Declaration) -> Result<(), String> {
        if let Some(port) = args.value::<u16>("--port")? {
            // Each probe binds both, and has its event last.
            for probe in &mut declaration.probes {
                let last = probe.body.len() - 1;
                probe.body.insert(last, Step::When(format!("port == {port} || remote_port == {port}")));
            }
        }
        Ok(())
    }

    fn on(&mut self, _: &Socket, out: &mut Output) {
        out.forward();
    }
}

porthole_guest::register!(Sockets);

#[cfg(test)]
mod tests {
    use super::*;
    use porthole_guest::testing::{Run, Sent, declare};

    #[test]
    fn a_port_is_asked_for_behind_what_it_is_read_from() {
        let declaration = declare::<Sockets>(&["--port", "443"]).expect("the arguments are good");
        let names: Vec<_> = declaration.probes.iter().map(|probe| probe.name.as_str()).collect();
        assert_eq!(names, ["change", "again", "there", "drop"]);
        for probe in &declaration.probes {
            let [before @ .., Step::When(condition), Step::Emit(_)] = &probe.body[..] else { panic!("{probe:?}") };
            assert_eq!(condition, "port == 443 || remote_port == 443");
            for name in ["port", "remote_port"] {
                assert!(before.iter().any(|step| matches!(step, Step::Bind(bound) if bound.name == name)), "{probe:?}");
            }
        }
        assert!(declare::<Sockets>(&["--port", "65536"]).is_err());
    }

    #[test]
    fn each_event_is_forwarded() {
        let mut run = Run::<Sockets>::start(&[]).expect("it starts");
        let sent = run
            .batch(|batch| {
                batch.event("there", 1, 0, &[("what", "is there".into()), ("port", 22u16.into())]);
                batch.event("drop", 2, 0, &[("to_port", 53u16.into()), ("length", 40u32.into())]);
            })
            .expect("the batch is good");
        assert!(matches!(&sent[..], [Sent::Forwarded(_)]), "{sent:?}");
    }
}
