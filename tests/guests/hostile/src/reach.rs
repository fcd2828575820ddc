//! What lies outside of a plugin, reached for by the means of the standard library.

use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::{env, fs, io};

use porthole_guest::prelude::*;

/// Sends a row that tells what of all this it has got: a count, or whether it was there. `text` has the words
/// `FILE DIRECTORY ADDRESS`: a file that there is, a directory that anybody may write to, and an address at which
/// somebody listens.
pub fn reach(text: &str, out: &mut Output) {
    let mut words = text.split_whitespace();
    let mut word = || words.next().unwrap_or_default();
    let (file, directory, address) = (word(), word(), word());
    println!("to stdout");
    eprintln!("to stderr");
    let send = |socket: UdpSocket| socket.send_to(b"x", address);
    out.new_row("reached")
        .column("arguments", env::args().count() as u64)
        .column("environment", env::vars().count() as u64)
        .column("input", io::read_to_string(io::stdin()).unwrap_or_default().as_str())
        .column("read", fs::read(file).is_ok())
        .column("list", fs::read_dir(directory).is_ok())
        .column("write", fs::write(format!("{directory}/written"), "x").is_ok())
        .column("tcp", TcpStream::connect(address).is_ok())
        .column("udp", UdpSocket::bind("127.0.0.1:0").and_then(send).is_ok())
        .column("lookup", ("localhost", 80).to_socket_addrs().is_ok())
        .send();
}
