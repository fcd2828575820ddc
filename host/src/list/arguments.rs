//! What a program can be told at an attach point and nowhere else, as expressions with their C types.

use std::collections::HashMap;

use crate::kernel::{Btf, FieldLocation, KernelFacts, Kind, TracepointField, TracepointFormat, TypeId};
use crate::plan::{self, AttachPoint, Fault, FunctionKind, KernelFunction, UserKind, UserPoint};

/// An argument, the result, or how long it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// As it is written in an expression; of an array that is no value as a whole, its first element.
    pub expression: String,
    /// As C writes the type, with `__user` where it points into a process's memory.
    pub c_type: String,
    /// Why no expression can read it.
    pub refused: Option<String>,
}

/// Tells the arguments of attach points of one kernel.
pub struct Arguments<'a> {
    facts: &'a KernelFacts,
    /// Types by their names, as many functions have arguments of the same types.
    names: HashMap<TypeId, String>,
}

/// Registers that hold the first arguments, as expressions name them.
const REGISTERS: [&str; 6] = ["arg0", "arg1", "arg2", "arg3", "arg4", "arg5"];

impl<'a> Arguments<'a> {
    pub fn new(facts: &'a KernelFacts) -> Arguments<'a> {
        Arguments { facts, names: HashMap::new() }
    }

    /// Those of the attach point that is written so.
    pub fn of(&mut self, attach: &str) -> Result<Vec<Argument>, Fault> {
        let points = plan::find(attach, self.facts)?;
        // Of a marker there may be several, each with the same arguments in other places.
        let Some(point) = points.first() else { return Ok(Vec::new()) };
        let arguments = match point {
            AttachPoint::Tracepoint(format) => of_format(format),
            AttachPoint::RawTracepoint(raw) => self.fields(&raw.params),
            AttachPoint::Iter(iter) => self.fields(&iter.params),
            AttachPoint::Function(function) => self.of_function(function),
            AttachPoint::Perf(event) => {
                let field = |name: &&str| (format!("args.{name}"), "__u64".to_owned());
                event.argument_names().iter().map(field).collect()
            }
            AttachPoint::User(place) => of_user_point(place),
        };
        let checked = arguments.into_iter().map(|(expression, c_type)| self.checked(expression, c_type, point));
        Ok(checked.chain(self.duration(point)).collect())
    }

    /// How long a function took, where the kernel offers what tells of it. All that is told goes together in one probe,
    /// so not where its result has no type and is a register.
    fn duration(&self, point: &AttachPoint) -> Option<Argument> {
        const EXPRESSION: &str = "duration";
        if matches!(point, AttachPoint::Function(function) if function.prototype.is_none()) {
            return None;
        }
        plan::type_of(EXPRESSION, point, self.facts).ok()?;
        Some(Argument { expression: EXPRESSION.to_owned(), c_type: "u64".to_owned(), refused: None })
    }

    fn checked(&self, expression: String, c_type: String, point: &AttachPoint) -> Argument {
        let refused = |text: &str| plan::type_of(text, point, self.facts).err().map(told);
        let Some(why) = refused(&expression) else { return Argument { expression, c_type, refused: None } };
        let first = format!("{expression}[0]");
        match c_type.split_once('[') {
            Some((element, _)) if refused(&first).is_none() => {
                Argument { expression: first, c_type: format!("{element} of {c_type}"), refused: None }
            }
            _ => Argument { expression, c_type, refused: Some(why) },
        }
    }

    fn of_function(&mut self, function: &KernelFunction) -> Vec<(String, String)> {
        let at_return = matches!(function.kind, FunctionKind::Fexit | FunctionKind::Kretprobe);
        let Some(prototype) = &function.prototype else {
            let registers = if at_return { &["reg(\"ax\")"][..] } else { &REGISTERS };
            return registers.iter().map(|name| ((*name).to_owned(), "u64".to_owned())).collect();
        };
        let mut arguments =
            if function.kind == FunctionKind::Kretprobe { Vec::new() } else { self.fields(&prototype.params) };
        if at_return && !self.is_void(prototype.result) {
            arguments.push(("retval".to_owned(), self.name(prototype.result)));
        }
        arguments
    }

    fn fields(&mut self, params: &[(String, TypeId)]) -> Vec<(String, String)> {
        params.iter().map(|(name, ty)| (format!("args.{name}"), self.name(*ty))).collect()
    }

    fn name(&mut self, ty: TypeId) -> String {
        let Ok(btf) = self.facts.btf() else { return "?".to_owned() };
        self.names.entry(ty).or_insert_with(|| btf.c_name(ty)).clone()
    }

    fn is_void(&self, ty: TypeId) -> bool {
        self.facts.btf().is_ok_and(|btf: &Btf| btf.kind(btf.strip(ty).id) == Kind::Void)
    }
}

fn told(faults: Vec<Fault>) -> String {
    faults.into_iter().map(|fault| fault.message).collect::<Vec<_>>().join("; ")
}

fn of_format(format: &TracepointFormat) -> Vec<(String, String)> {
    let fields = plan::readable_fields(format).into_iter();
    fields.map(|field| (format!("args.{}", field.name), declared(format, field))).collect()
}

/// The type as the format has it. What system calls are passed points into the process's memory, which formats do not
/// say.
fn declared(format: &TracepointFormat, field: &TracepointField) -> String {
    let of = match field.c_type.strip_suffix('*') {
        Some(target) if format.system == "syscalls" => format!("{}__user *", spaced(target)),
        _ => field.c_type.clone(),
    };
    match (field.location, field.array) {
        (FieldLocation::DataLoc | FieldLocation::RelLoc, _) | (_, Some(0)) => format!("{of}[]"),
        (_, Some(count)) => format!("{of}[{count}]"),
        (_, None) => of,
    }
}

fn spaced(text: &str) -> String {
    format!("{} ", text.trim_end())
}

fn of_user_point(point: &UserPoint) -> Vec<(String, String)> {
    let integer = |bytes: u8, signed: bool| format!("{}{}", if signed { "s" } else { "u" }, u32::from(bytes) * 8);
    match point.kind {
        UserKind::Entry => REGISTERS.map(|name| (name.to_owned(), integer(8, false))).to_vec(),
        UserKind::Return => vec![("retval".to_owned(), integer(8, false))],
        UserKind::Marker => {
            let arguments = point.arguments.iter().zip(0..);
            arguments.map(|(argument, n)| (format!("arg{n}"), integer(argument.bytes, argument.signed))).collect()
        }
    }
}
