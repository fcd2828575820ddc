//! The derive macro of `porthole-guest`. It is documented there too, where it is re-exported.

mod attributes;
mod expand;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a struct the event of one or more probes, or an enum of such structs one event.
///
/// A struct's fields are named, and each has a type of those that stand at the trait `Field`. The struct may have one
/// lifetime, for fields that borrow from the record. The event's name, and the probe's, is the struct's in snake_case.
/// Attributes of the struct:
///
/// * `#[probe(…)]`, at least once: a probe that sends the event. Several need different names. In the order in which
///   they stand:
///   * `attach = "POINT"` or `attach = ["POINT", …]`, at least one: where the probe fires, such as
///     `tracepoint:sched:sched_switch`,
///     `rawtracepoint:sched_process_exec`, or by a pattern or list `tracepoint:syscalls:sys_enter_{open,unlink}*`;
///   * `name = "NAME"`: the probe's name;
///   * `when = "EXPRESSION"`, any number: the event is sent only where all are true;
///   * `bind(NAME = "EXPRESSION", …)`, any number: a name for a value, for the steps and fields behind it;
///   * `kfuncs = "NAME"` or `kfuncs = ["NAME", "NAME?", …]`: kernel functions that the expressions call; `?` stands
///     behind one that a kernel may lack.
/// * `#[event(name = "NAME")]`: the event's name.
///
/// Attribute of a field: `#[expr("EXPRESSION")]`, the field's value; without it, the field's name is the expression.
///
/// An enum's variants each hold one struct that is an event: `enum Call<'a> { Enter(Enter<'a>), Exit(Exit) }`.
///
/// ```
/// # use porthole_guest::prelude::*;
/// #[derive(Event)]
/// #[probe(
///     attach = ["tracepoint:syscalls:sys_enter_openat", "tracepoint:syscalls:sys_enter_open"],
///     when = "uid != 0",
///     bind(file = "args.filename")
/// )]
/// #[probe(name = "creat", attach = "tracepoint:syscalls:sys_enter_creat", when = "uid != 0", bind(file = "args.pathname"))]
/// struct Open {
///     pid: u32,
///     #[expr("str(file)")]
///     path: String,
/// }
/// ```
#[proc_macro_derive(Event, attributes(probe, event, expr))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::event(&input).unwrap_or_else(|error| error.into_compile_error()).into()
}
