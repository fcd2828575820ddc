//! A program that the verifier refused, as Porthole's user is told of it and as it is reported.
//!
//! The user needs to know that it is no fault of the declaration, and which expression to leave out meanwhile; who
//! mends it needs the declaration, the program, the kernel and the whole log. The first fits a message, the second a
//! file, which is written where nobody else can read it.

use std::fmt::{self, Write as _};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{env, iter};

use sha2::{Digest, Sha256};

use super::log::{VerifierLog, tail};
use crate::bpf::Reason;
use crate::compile::Compiled;
use crate::declare::Declaration;
use crate::plan::Shown;

/// Bytes at most of each part of a report.
const PART: usize = 1 << 20;
/// Reports at most in one directory: a service that is started again and again must not fill a disk.
const REPORTS: usize = 32;
/// What reports are called.
const PREFIX: &str = "refused-";

/// A program that the verifier refused. That is a fault of Porthole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The program's name in the object.
    program: String,
    /// The attach point that it serves.
    at: String,
    /// What the refused instruction was made from.
    reason: Option<Reason>,
    slot: Option<usize>,
    disassembly: String,
    /// The verifier's.
    log: String,
    /// What the system call answered.
    source: String,
}

impl Refusal {
    /// None where the verifier has refused nothing. `said` is what libbpf said.
    pub(super) fn find(compiled: &Compiled, source: &libbpf_rs::Error, said: &str) -> Option<Refusal> {
        let log = VerifierLog::find(said)?;
        let object = &compiled.object;
        let index = object.functions.iter().position(|function| function.name == log.program);
        let code = index.map(|index| &object.functions[index].code);
        let reason = |slot: usize| {
            let code = code.filter(|code| slot < code.insns.len())?;
            let behind = code.lines.partition_point(|(first, _)| *first as usize <= slot);
            let (_, id) = code.lines.get(behind.checked_sub(1)?)?;
            object.reasons.get(id.0 as usize)
        };
        // Where the slot lies in no function of ours, what the log quotes.
        let quoted = || {
            let (text, place) = log.source()?;
            let is_quoted = |r: &&Reason| r.text == text && place.is_none_or(|p| p == format!("{}:{}", r.file, r.line));
            object.reasons.iter().find(is_quoted)
        };
        let at = index.and_then(|index| compiled.points.get(index)).map(ToString::to_string);
        Some(Refusal {
            program: log.program.to_owned(),
            at: at.unwrap_or_default(),
            reason: log.slot().and_then(reason).or_else(quoted).cloned(),
            slot: log.slot(),
            disassembly: index.map(|index| object.disassemble_one(index)).unwrap_or_default(),
            log: last(log.text).to_owned(),
            source: source.to_string(),
        })
    }

    /// The expression whose instruction was refused, if it is one's.
    pub fn expression(&self) -> Option<&str> {
        self.reason.as_ref().map(|reason| reason.text.as_str())
    }

    /// All that is known of it, to be attached to a report.
    pub fn report(&self, declaration: &Declaration) -> String {
        let mut text = String::new();
        let declaration = serde_json::to_string_pretty(declaration).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "A program of Porthole's that the kernel's verifier refused. That is a bug of Porthole: please report it, with this file.\n\
             \n\
             The log may hold addresses in this kernel's memory, which help who wants to attack it, and the declaration what the plugin looks\n\
             for. Read the file before you make it public.\n\
             \n\
             porthole  {}\nkernel    {}\nprogram   {} at {}\nrefused   {}\nanswer    {}\n\
             \n==== declaration\n{}\n\n==== program\n{}\n\n==== log\n{}\n",
            env!("CARGO_PKG_VERSION"),
            kernel(),
            self.program,
            Shown(&self.at),
            self.place(),
            self.source,
            first(&declaration),
            first(&self.disassembly),
            self.log,
        );
        text
    }

    /// Writes the report into the first of these directories that takes it, and gives its path. A file that is there is
    /// never changed: of a program that was refused before there is one already.
    pub fn save(&self, declaration: &Declaration, directories: &[PathBuf]) -> io::Result<PathBuf> {
        let report = self.report(declaration);
        let mut failed = io::Error::other("there is no place for it");
        for directory in directories {
            match self.save_in(directory, &report) {
                Ok(path) => return Ok(path),
                Err(error) => failed = io::Error::new(error.kind(), format!("{}: {error}", directory.display())),
            }
        }
        Err(failed)
    }

    fn save_in(&self, directory: &Path, report: &str) -> io::Result<PathBuf> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let name = format!("{PREFIX}{}", self.digest());
        for number in 0.. {
            let end = if number == 0 { String::new() } else { format!("-{number}") };
            let path = directory.join(format!("{name}{end}.txt"));
            if is_ours(&path) {
                return Ok(path);
            }
            if fs::read_dir(directory)?.flatten().filter(|e| is_report(&e.file_name())).count() >= REPORTS {
                return Err(io::Error::other(format!("it holds {REPORTS} reports already")));
            }
            // A new file only, so no link is followed either.
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(mut file) => {
                    return match file.write_all(report.as_bytes()) {
                        Ok(()) => Ok(path),
                        Err(error) => fs::remove_file(&path).and(Err(error)),
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("there are too many"))
    }

    /// Of what the refusal depends on; the log tells times, too.
    fn digest(&self) -> String {
        let mut digest = Sha256::new();
        let kernel = kernel();
        for part in
            [env!("CARGO_PKG_VERSION").as_bytes(), kernel.as_bytes(), self.at.as_bytes(), self.disassembly.as_bytes()]
        {
            digest.update(part);
            digest.update([0]);
        }
        digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    fn place(&self) -> String {
        let slot = self.slot.map(|slot| format!("instruction {slot}"));
        let reason = self
            .reason
            .as_ref()
            .map(|Reason { file, line, column, text }| format!("`{text}` ({file}:{line}:{column})"));
        let known: Vec<String> = iter::empty().chain(reason).chain(slot).collect();
        if known.is_empty() { "the program as a whole".to_owned() } else { known.join(", ") }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the kernel's verifier refused ")?;
        match &self.reason {
            Some(reason) => write!(f, "what `{}` became", Shown(&reason.text))?,
            None => f.write_str("a program")?,
        }
        write!(f, ", at {}\n{}\n{}", Shown(&self.at), tail(&self.log), self.source)
    }
}

/// Where reports are kept: `$XDG_STATE_HOME/porthole`, else `~/.local/state/porthole` (XDG Base Directory
/// Specification), else, for root without a home, `/var/lib/porthole`; and where that cannot be written, where
/// temporary files are.
pub fn report_directories() -> Vec<PathBuf> {
    let variable = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = variable("XDG_STATE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
        .or_else(|| rustix::process::geteuid().is_root().then(|| PathBuf::from("/var/lib")));
    state.map(|state| state.join("porthole")).into_iter().chain([env::temp_dir()]).collect()
}

/// Release, version and how it was built.
fn kernel() -> String {
    fs::read_to_string("/proc/version").map(|text| text.trim_end().to_owned()).unwrap_or_default()
}

/// Whether a file is there, and this user's: in a directory for everybody it may be anybody's.
fn is_ours(path: &Path) -> bool {
    let user = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.uid() == user)
}

fn is_report(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(PREFIX))
}

/// As much of the beginning as a report holds.
fn first(text: &str) -> &str {
    &text[..text.floor_char_boundary(PART)]
}

/// As much of the end.
fn last(text: &str) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(PART))..]
}
