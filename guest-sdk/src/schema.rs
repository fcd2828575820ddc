//! The schemas that the host sends, compared with what the structs want: once, when the plugin starts.

use crate::bindings::porthole::trace::events::{FieldKind, FieldLayout, Schema};
use crate::field::integer_name;
use crate::record::{Cell, HEADER, Record, Records};
use crate::text::concat;
use crate::{FieldSpec, ProbeSpec};

/// Where the fields of each event are, by the schema's id.
#[derive(Debug, Default)]
pub(crate) struct Layouts {
    by_id: Vec<Option<Layout>>,
}

/// Where the fields of one event are.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Index of the probe among those of the plugin's event.
    pub(crate) probe: usize,
    /// The fields' places, in the order of the struct.
    pub(crate) cells: Vec<Cell>,
    /// Bytes of a record at least.
    size: usize,
}

impl Layouts {
    /// Fails with all the differences, one on a line.
    pub(crate) fn new(probes: &[ProbeSpec], schemas: &[Schema]) -> Result<Layouts, String> {
        let mut layouts = Layouts::default();
        let mut faults = Vec::new();
        for schema in schemas {
            let Some(probe) = probes.iter().position(|probe| probe.name == schema.probe) else {
                faults.push(format!(
                    "event `{}` of probe `{}`: the plugin has no struct for it",
                    schema.name, schema.probe
                ));
                continue;
            };
            match Layout::new(probe, &probes[probe], schema) {
                Ok(layout) => layouts.insert(schema.id, layout),
                Err(found) => faults.extend(found),
            }
        }
        if faults.is_empty() { Ok(layouts) } else { Err(faults.join("\n")) }
    }

    pub(crate) fn of(&self, record: Record<'_>) -> Option<&Layout> {
        self.by_id.get(usize::from(record.schema()))?.as_ref()
    }

    /// Fails where the bytes are not whole records, so many, of known events.
    pub(crate) fn check(&self, batch: &[u8], count: u32) -> Result<(), String> {
        let mut records = Records::new(batch);
        let mut found = 0u32;
        for (_, record) in &mut records {
            found += 1;
            match self.of(record) {
                None => return Err("a record of the batch has an unknown schema".to_owned()),
                Some(layout) if record.as_bytes().len() < layout.size => {
                    return Err("a record of the batch is shorter than its schema says".to_owned());
                }
                Some(_) => {}
            }
        }
        if records.offset() < batch.len() {
            return Err("the batch does not end with a whole record".to_owned());
        }
        if found != count {
            return Err("the batch holds another number of records than it says".to_owned());
        }
        Ok(())
    }

    fn insert(&mut self, id: u16, layout: Layout) {
        let at = usize::from(id);
        if self.by_id.len() <= at {
            self.by_id.resize_with(at + 1, || None);
        }
        self.by_id[at] = Some(layout);
    }
}

impl Layout {
    fn new(probe: usize, spec: &ProbeSpec, schema: &Schema) -> Result<Layout, Vec<String>> {
        let mut faults = Vec::new();
        let mut cells = Vec::with_capacity(spec.fields.len());
        for field in spec.fields {
            match cell(field, schema) {
                Ok(cell) => cells.push(cell),
                Err(fault) => {
                    faults.push(concat(&[&*origin(schema), ", field `", field.name, "`: ", &fault]));
                }
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Layout { probe, cells, size: schema.size as usize })
    }
}

/// The field's place, where the struct can hold what the kernel gives.
fn cell(field: &FieldSpec, schema: &Schema) -> Result<Cell, String> {
    let Some(index) = schema.fields.iter().position(|layout| layout.name == field.name) else {
        return Err("the schema has no such field".to_owned());
    };
    let FieldLayout { kind, offset, .. } = &schema.fields[index];
    if !field.kind.holds(kind) {
        let (given, wanted, ty) = (describe(kind), field.kind.name(), suitable(kind));
        return Err(concat(&["the kernel gives ", given, ", the struct wants ", wanted, "; ", ty, " holds it"]));
    }
    let (width, signed) = match *kind {
        FieldKind::Boolean => (1, false),
        FieldKind::Signed(width) => (width, true),
        FieldKind::Unsigned(width) => (width, false),
        FieldKind::Enumeration(_) => (8, true),
        FieldKind::KernelSymbol => (8, false),
        FieldKind::UserSymbol => (16, false),
        FieldKind::Address => (20, false),
        FieldKind::Text | FieldKind::Bytes | FieldKind::KernelStack => (4, false),
        FieldKind::UserStack => (8, false),
        FieldKind::Flags(_) => (8, false),
        FieldKind::HardwareAddress => (6, false),
    };
    let offset = *offset as usize;
    let end = offset.checked_add(usize::from(width));
    if offset < HEADER || end.is_none_or(|end| end > schema.size as usize) || index >= 64 {
        return Err("the schema puts it outside of the record".to_owned());
    }
    Ok(Cell { offset, presence: 1 << index, width, signed })
}

fn origin(schema: &Schema) -> String {
    concat(&["event `", &schema.name, "` of probe `", &schema.probe, "`"])
}

/// The kernel's kind in words.
fn describe(kind: &FieldKind) -> &'static str {
    match kind {
        FieldKind::Boolean => "bool",
        FieldKind::Signed(width) => integer_name(true, *width),
        FieldKind::Unsigned(width) => integer_name(false, *width),
        FieldKind::Enumeration(_) => "a value of an enumeration",
        FieldKind::Flags(_) => "flags",
        FieldKind::Text => "text",
        FieldKind::Bytes => "bytes",
        FieldKind::Address => "an IP address",
        FieldKind::HardwareAddress => "a hardware address",
        FieldKind::KernelSymbol => "an address in the kernel",
        FieldKind::UserSymbol => "an address in user space",
        FieldKind::KernelStack => "a call stack of the kernel",
        FieldKind::UserStack => "a call stack of a process",
    }
}

/// A type that holds the kernel's kind.
fn suitable(kind: &FieldKind) -> &'static str {
    match kind {
        FieldKind::Boolean => "bool",
        FieldKind::Signed(width) => integer_name(true, *width),
        FieldKind::Unsigned(width) => integer_name(false, *width),
        FieldKind::Enumeration(_) => "i64",
        FieldKind::Text => "Text<'a>, Comm or String",
        FieldKind::Bytes => "&'a [u8]",
        FieldKind::Address => "IpAddr",
        FieldKind::HardwareAddress => "Mac",
        FieldKind::Flags(_) => "u64",
        FieldKind::KernelSymbol => "KernelSymbol or u64",
        FieldKind::UserSymbol => "UserSymbol or u64",
        FieldKind::KernelStack => "KernelStack",
        FieldKind::UserStack => "UserStack",
    }
}
