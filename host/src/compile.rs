//! The stages from a plan to an object file, in a row.

use crate::codegen::{self, CodegenError, Program};
use crate::ir;
use crate::lower::{self, LowerError, ProgramOf};
use crate::objfile::{self, Linkage, MapDef, Object, Role, WriteError};
use crate::plan::{AttachPoint, Plan};

/// A declaration as libbpf takes it.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The object file.
    pub bytes: Vec<u8>,
    /// Its parts, for the disassembly.
    pub object: Object,
    /// Which attach point each of the object's functions serves.
    pub programs: Vec<ProgramOf>,
    /// The attach points, in the order of the functions.
    pub points: Vec<AttachPoint>,
    /// Kfuncs of which nobody but the plugin says what they do with ownership.
    pub claimed: Vec<String>,
}

/// Why a plan cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The declaration asks for more than a program can hold. The user can change that.
    #[error(transparent)]
    TooLarge(#[from] LowerError),
    /// An expression needs more values at once than a program can hold. The user can change that.
    #[error(
        "probe `{probe}` is too complex: it needs {bytes} bytes of stack in the kernel, and {} is the most; bind fewer values, write shorter expressions, or use two probes",
        codegen::MAX_STACK
    )]
    TooComplex { probe: String, bytes: u32 },
    /// A fault of Porthole.
    #[error("this is a bug of porthole, please report it: {0}")]
    Codegen(CodegenError),
    /// A fault of Porthole.
    #[error("this is a bug of porthole, please report it: {0}")]
    Write(#[from] WriteError),
}

/// Compiles a plan. `plugin` names the plugin in reasons; `ring` is the ring buffer's size in bytes, a power of two and
/// a multiple of the page size.
pub fn compile(plan: &Plan, plugin: &str, ring: u32) -> Result<Compiled, CompileError> {
    let ir = lower::lower(plan, plugin, ring)?;
    let names: Vec<String> = ir.module.functions.iter().map(|function| function.name.clone()).collect();
    let program = codegen::generate(ir.module).map_err(|error| match error {
        CodegenError::Stack { function, bytes } => {
            let at = names.iter().position(|name| *name == function);
            let probe = at.map_or(function, |at| plan.probes[ir.programs[at].probe].name.clone());
            CompileError::TooComplex { probe, bytes }
        }
        error => CompileError::Codegen(error),
    })?;
    let object = object(program);
    let bytes = objfile::write(&object)?;
    let points = ir.programs.iter().map(|of| plan.probes[of.probe].points[of.point].attach.clone()).collect();
    let claimed = plan.kfuncs.iter().filter(|used| used.claimed).map(|used| used.name.clone()).collect();
    Ok(Compiled { bytes, object, programs: ir.programs, points, claimed })
}

/// A program as parts of an object file.
fn object(program: Program) -> Object {
    let functions = program.functions.into_iter().map(|function| {
        let role = match function.section {
            Some(section) => Role::Entry { section },
            None => Role::Subprogram { parameters: function.parameters, linkage: Linkage::Static },
        };
        objfile::Function { name: function.name, role, code: function.code }
    });
    let maps = program.maps.into_iter().map(|map| MapDef {
        name: map.name,
        kind: match map.kind {
            ir::MapKind::RingBuffer => objfile::MapKind::RingBuf,
            ir::MapKind::PerCpuArray => objfile::MapKind::PerCpuArray,
        },
        key_size: map.key_size,
        value_size: map.value_size,
        max_entries: map.max_entries,
        flags: 0,
    });
    Object {
        // Helpers that read kernel memory are for programs under a license compatible with the kernel's.
        license: "Dual BSD/GPL".to_owned(),
        functions: functions.collect(),
        maps: maps.collect(),
        kfuncs: program.kfuncs,
        data: program.data,
        reasons: program.reasons,
    }
}
