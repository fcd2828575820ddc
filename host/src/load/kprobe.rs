//! Links of one program to the entries or returns of many of the kernel's functions, by their names.
//!
//! The kernel makes such a link to all or to none and does not tell which it does not take, so where it refuses, halves
//! are tried.

use std::ffi::{CString, c_char};
use std::io;
use std::ptr::{self, NonNull};

use libbpf_rs::{AsRawLibbpf, Link, ProgramMut};
use libbpf_sys as sys;

use crate::plan::{FunctionKind, KernelFunction, PointPlan};

/// Functions of one program that may be refused: each takes some tries, and each try has the kernel look through all
/// its names.
const MOST_REFUSED: usize = 64;

/// Where functions call a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Entry,
    Return,
    Both,
}

impl At {
    pub fn of(point: &PointPlan) -> At {
        match point.function() {
            _ if point.session.is_some() => At::Both,
            Some(function) if function.kind == FunctionKind::Kretprobe => At::Return,
            _ => At::Entry,
        }
    }
}

/// A function that the kernel takes no program for, and what it said.
pub struct Refused<'a> {
    pub function: &'a KernelFunction,
    pub source: io::Error,
}

/// Attaches a program to all of these functions that take it; the others are refused. With each goes a number that the
/// program can ask for.
pub fn attach_to_all<'a>(
    program: &ProgramMut<'_>,
    functions: &[(&'a KernelFunction, i64)],
    at: At,
    links: &mut Vec<Link>,
    refused: &mut Vec<Refused<'a>>,
) -> io::Result<()> {
    let [(first, _), ..] = functions else { return Ok(()) };
    let source = match link(program, functions, at) {
        Ok(link) => {
            links.push(link);
            return Ok(());
        }
        Err(error) => error,
    };
    // What does not lie in a function is the same for each half.
    let lies_elsewhere = matches!(
        source.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::OutOfMemory | io::ErrorKind::Unsupported
    );
    if lies_elsewhere || refused.len() >= MOST_REFUSED {
        return Err(source);
    }
    if functions.len() == 1 {
        refused.push(Refused { function: first, source });
        return Ok(());
    }
    let (some, others) = functions.split_at(functions.len() / 2);
    attach_to_all(program, some, at, links, refused)?;
    attach_to_all(program, others, at, links, refused)
}

/// One link to all of them. (libbpf-rs makes none at both entry and return.)
fn link(program: &ProgramMut<'_>, functions: &[(&KernelFunction, i64)], at: At) -> io::Result<Link> {
    let names: Vec<CString> =
        functions.iter().map(|(function, _)| CString::new(&*function.name)).collect::<Result<_, _>>()?;
    let mut names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let numbers: Vec<u64> = functions.iter().map(|(_, number)| number.cast_unsigned()).collect();
    let options = sys::bpf_kprobe_multi_opts {
        sz: size_of::<sys::bpf_kprobe_multi_opts>() as sys::size_t,
        syms: names.as_mut_ptr(),
        cookies: numbers.as_ptr(),
        cnt: names.len() as sys::size_t,
        retprobe: at == At::Return,
        session: at == At::Both,
        ..Default::default()
    };
    // SAFETY: the program is loaded; the options and what they point to outlive the call, which keeps none of it.
    let link = unsafe {
        sys::bpf_program__attach_kprobe_multi_opts(program.as_libbpf_object().as_ptr(), ptr::null(), &raw const options)
    };
    let link = NonNull::new(link).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the link is nobody else's.
    Ok(unsafe { Link::from_ptr(link) })
}
