//! WASI 0.2 with nothing in it: no files, no network, no environment, no arguments, no input. What a plugin writes to
//! stdout and stderr goes to its log, line by line.
//!
//! It exists so that components whose toolchain imports WASI whether it is used or not can run. What is left of it is
//! bounded: host memory by the limits below, waiting by [`super::budget`].

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};
use wasmtime_wasi::{WasiCtx, WasiCtxView};

use super::outbox::{Full, Outbox};
use super::refusal::Refusal;
use super::row::Level;

/// Streams, pollables and the like that a plugin may hold at once. Each is host memory.
const RESOURCES: usize = 4096;
/// Bytes of one call of `get-random-bytes` at most.
const RANDOM: u64 = 1 << 20;
/// Bytes of one write to stdout or stderr at most; more is written in several.
const WRITE: usize = 64 << 10;
/// Bytes of a line at most; a longer one is logged in several.
const LINE: usize = 4096;

/// The interfaces of [`wasmtime_wasi::p2::add_to_linker_async`], as version 0.2 names them.
pub const INTERFACES: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// The WASI state of one plugin.
pub struct Shell {
    context: WasiCtx,
    table: ResourceTable,
    stdout: LogStream,
    stderr: LogStream,
}

impl Shell {
    /// Whose stdout and stderr go to `outbox`.
    pub fn new(outbox: &Outbox) -> Shell {
        let stdout = LogStream::new(Level::Info, outbox);
        let stderr = LogStream::new(Level::Warning, outbox);
        let context = WasiCtx::builder()
            .stdout(stdout.clone())
            .stderr(stderr.clone())
            .allow_tcp(false)
            .allow_udp(false)
            .max_random_size(RANDOM)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES);
        Shell { context, table, stdout, stderr }
    }

    /// What the WASI functions work on.
    pub fn view(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.context, table: &mut self.table }
    }

    /// Logs what stands on an unfinished line of stdout or stderr.
    pub fn finish_lines(&self) -> Result<(), Full> {
        self.stdout.finish_line()?;
        self.stderr.finish_line()
    }
}

/// A stream whose lines become lines of the plugin's log. Clones write to the same line.
#[derive(Clone)]
struct LogStream {
    level: Level,
    outbox: Outbox,
    /// The line begun.
    line: Arc<Mutex<Vec<u8>>>,
}

impl LogStream {
    fn new(level: Level, outbox: &Outbox) -> LogStream {
        LogStream { level, outbox: outbox.clone(), line: Arc::default() }
    }

    fn append(&self, mut bytes: &[u8]) -> Result<(), Full> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            line.extend_from_slice(&bytes[..end]);
            self.log(&mut line)?;
            bytes = &bytes[end + 1..];
        }
        line.extend_from_slice(bytes);
        if line.len() >= LINE { self.log(&mut line) } else { Ok(()) }
    }

    fn finish_line(&self) -> Result<(), Full> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.is_empty() { Ok(()) } else { self.log(&mut line) }
    }

    fn log(&self, line: &mut Vec<u8>) -> Result<(), Full> {
        let line = std::mem::take(line);
        if line.len() <= LINE {
            return self.outbox.log(self.level, &String::from_utf8_lossy(&line));
        }
        line.chunks(LINE).try_for_each(|part| self.outbox.log(self.level, &String::from_utf8_lossy(part)))
    }
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        self.append(&bytes).map_err(|Full| StreamError::Trap(Refusal::Output.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

impl AsyncWrite for LogStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.append(bytes).map(|()| bytes.len()).map_err(|Full| io::ErrorKind::StorageFull.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
