//! Links of one program to the entries or returns of many of the kernel's functions, by their names.
//!
//! The kernel makes such a link to all or to none and does not tell which it does not take, so where it refuses, halves are tried.

use std::io;

use libbpf_rs::{ErrorKind, KprobeMultiOpts, Link, ProgramMut};

use crate::plan::{FunctionKind, KernelFunction};

/// Functions of one program that may be refused: each takes some tries, and each try has the kernel look through all its names.
const MOST_REFUSED: usize = 64;

/// A function that the kernel takes no program for, and what it said.
pub struct Refused<'a> {
    pub function: &'a KernelFunction,
    pub source: io::Error,
}

/// Attaches a program to all of these functions that take it; the others are refused. With each goes a number that the program can ask for.
pub fn attach_to_all<'a>(
    program: &ProgramMut<'_>,
    functions: &[(&'a KernelFunction, i64)],
    links: &mut Vec<Link>,
    refused: &mut Vec<Refused<'a>>,
) -> io::Result<()> {
    let [(first, _), ..] = functions else { return Ok(()) };
    let options = KprobeMultiOpts {
        symbols: functions.iter().map(|(function, _)| function.name.clone()).collect(),
        cookies: functions.iter().map(|(_, number)| number.cast_unsigned()).collect(),
        retprobe: is_return(first),
        ..KprobeMultiOpts::default()
    };
    let error = match program.attach_kprobe_multi_with_opts(options) {
        Ok(link) => {
            links.push(link);
            return Ok(());
        }
        Err(error) => error,
    };
    // What does not lie in a function is the same for each half.
    let lies_elsewhere =
        matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::OutOfMemory | ErrorKind::Unsupported);
    let source = io::Error::other(error);
    if lies_elsewhere || refused.len() >= MOST_REFUSED {
        return Err(source);
    }
    if functions.len() == 1 {
        refused.push(Refused { function: first, source });
        return Ok(());
    }
    let (some, others) = functions.split_at(functions.len() / 2);
    attach_to_all(program, some, links, refused)?;
    attach_to_all(program, others, links, refused)
}

fn is_return(function: &KernelFunction) -> bool {
    function.kind == FunctionKind::Kretprobe
}
