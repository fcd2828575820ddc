//! The BTF of an object: types of its functions, maps and kfuncs, and what `.BTF.ext` says of its instructions.

use std::borrow::Cow;
use std::collections::HashMap;

use super::btf::{Btf, BtfError, FunctionLinkage, IntEncoding, Placement, TypeId};
use super::ext::{self, FuncInfo, LineInfo, SectionInfo};
use super::layout::{Layout, Placed, Section};
use super::{Function, Linkage, MapDef, MapKind, Object, Role, extern_name};
use crate::bpf::{CType, Kfunc, Reason};

/// What the sections `.BTF` and `.BTF.ext` contain, and where maps are in `.maps`.
pub(super) struct Types {
    pub(super) btf: Vec<u8>,
    pub(super) btf_ext: Vec<u8>,
    /// Offset and size of each map's variable, in bytes.
    pub(super) maps: Vec<(u32, u32)>,
}

impl Types {
    pub(super) fn of(object: &Object, layout: &Layout<'_>) -> Result<Self, BtfError> {
        let mut builder = Builder::new(object)?;
        let maps = builder.maps()?;
        builder.kfuncs()?;
        let functions =
            object.functions.iter().map(|function| builder.function(function)).collect::<Result<Vec<_>, _>>()?;
        let sections = layout.sections.iter().map(|section| builder.section_info(section, &functions));
        let btf_ext = ext::encode(&sections.collect::<Result<Vec<_>, _>>()?);
        Ok(Self { btf: builder.btf.to_bytes()?, btf_ext, maps })
    }
}

struct Builder<'a> {
    object: &'a Object,
    btf: Btf,
    int: TypeId,
    u8: TypeId,
    u64: TypeId,
    /// Types of kfuncs' parameters that are there already.
    c_types: HashMap<CType, TypeId>,
    /// By reason, its line, where that is there already.
    lines: Vec<Option<LineInfo>>,
}

impl<'a> Builder<'a> {
    fn new(object: &'a Object) -> Result<Self, BtfError> {
        let mut btf = Btf::new()?;
        let int = btf.int("int", 4, IntEncoding::Signed)?;
        let u8 = btf.int("u8", 1, IntEncoding::Unsigned)?;
        let u64 = btf.int("u64", 8, IntEncoding::Unsigned)?;
        Ok(Self { object, btf, int, u8, u64, c_types: HashMap::new(), lines: vec![None; object.reasons.len()] })
    }

    /// Describes the maps as libbpf reads them, each by a variable of a struct type; gives the variables' offsets and
    /// sizes.
    fn maps(&mut self) -> Result<Vec<(u32, u32)>, BtfError> {
        let object = self.object;
        let mut placements = Vec::new();
        let mut end = 0;
        for map in &object.maps {
            let (variable, size) = self.map(map)?;
            placements.push(Placement { variable, offset: end, size });
            end += size;
        }
        if !placements.is_empty() {
            self.btf.data_section(".maps", end, &placements)?;
        }
        Ok(placements.iter().map(|placement| (placement.offset, placement.size)).collect())
    }

    /// libbpf takes a number from the length of the array that a member points to, and the absence of a member as 0.
    /// The array is one of bytes, because the kernel refuses arrays of 4 GiB.
    fn map(&mut self, map: &MapDef) -> Result<(TypeId, u32), BtfError> {
        let numbers = [
            ("type", map.kind.number()),
            ("key_size", map.key_size),
            ("value_size", map.value_size),
            ("max_entries", map.max_entries),
            ("map_flags", map.flags),
        ];
        let mut fields = Vec::new();
        for (name, number) in numbers.into_iter().filter(|&(_, number)| number != 0) {
            let array = self.btf.array(self.int, self.u8, number)?;
            fields.push((name, self.btf.pointer(array)?));
        }
        let definition = self.btf.struct_of_pointers("", &fields)?;
        Ok((self.btf.variable(&map.name, definition)?, 8 * fields.len() as u32))
    }

    /// Kfuncs are functions of the section `.ksyms`, whose offsets libbpf makes up.
    fn kfuncs(&mut self) -> Result<(), BtfError> {
        let object = self.object;
        let mut members = Vec::new();
        for kfunc in &object.kfuncs {
            members.push(Placement { variable: self.kfunc(kfunc)?, offset: 0, size: 0 });
        }
        if !members.is_empty() {
            self.btf.data_section(".ksyms", 0, &members)?;
        }
        Ok(())
    }

    fn kfunc(&mut self, kfunc: &Kfunc) -> Result<TypeId, BtfError> {
        let result = self.c_type(&kfunc.result)?;
        let parameters = kfunc.parameters.iter().map(|ty| self.c_type(ty)).collect::<Result<Vec<_>, _>>()?;
        let prototype = self.prototype(result, &parameters)?;
        self.btf.function(&extern_name(&kfunc.name), FunctionLinkage::Extern, prototype)
    }

    fn c_type(&mut self, ty: &CType) -> Result<TypeId, BtfError> {
        if let Some(&id) = self.c_types.get(ty) {
            return Ok(id);
        }
        let id = match ty {
            CType::Void => TypeId::VOID,
            CType::Int { bytes, signed: false } => self.btf.int("unsigned", *bytes, IntEncoding::Unsigned)?,
            CType::Int { bytes, signed: true } => self.btf.int("signed", *bytes, IntEncoding::Signed)?,
            CType::Bool => self.btf.int("bool", 1, IntEncoding::Bool)?,
            CType::Enum(name) => self.btf.empty_enum(name)?,
            CType::Struct(name) => self.btf.struct_of_pointers(name, &[])?,
            CType::Union(name) => self.btf.empty_union(name)?,
            CType::Forward(name) => self.btf.forward(name)?,
            CType::Pointer(to) => {
                let to = self.c_type(to)?;
                self.btf.pointer(to)?
            }
        };
        self.c_types.insert(ty.clone(), id);
        Ok(id)
    }

    fn function(&mut self, function: &Function) -> Result<TypeId, BtfError> {
        let (prototype, linkage) = match function.role {
            Role::Entry { .. } => {
                let context = self.btf.pointer(TypeId::VOID)?;
                (self.btf.prototype(self.int, &[("ctx", context)])?, FunctionLinkage::Global)
            }
            Role::Subprogram { parameters, linkage } => {
                let linkage = match linkage {
                    Linkage::Static => FunctionLinkage::Static,
                    Linkage::Global => FunctionLinkage::Global,
                };
                (self.prototype(self.u64, &vec![self.u64; parameters.into()])?, linkage)
            }
        };
        self.btf.function(&function.name, linkage, prototype)
    }

    /// The kernel wants a name for each parameter.
    fn prototype(&mut self, result: TypeId, parameters: &[TypeId]) -> Result<TypeId, BtfError> {
        let names = ["arg1", "arg2", "arg3", "arg4", "arg5"];
        let parameters: Vec<_> = names.into_iter().zip(parameters.iter().copied()).collect();
        self.btf.prototype(result, &parameters)
    }

    fn section_info(&mut self, section: &Section<'_>, types: &[TypeId]) -> Result<SectionInfo, BtfError> {
        let name = self.btf.string(section.name)?;
        let mut info = SectionInfo { name, functions: Vec::new(), lines: Vec::new() };
        for &placed in &section.functions {
            let ty = types[placed.function].number();
            info.functions.push(FuncInfo { offset: placed.offset(0) as u32, ty });
            self.push_lines(&mut info.lines, placed)?;
        }
        Ok(info)
    }

    /// The kernel wants a line for the first instruction of every function (`check_btf_line` in kernel/bpf/verifier.c),
    /// so one that begins without a reason gets its own name for a line.
    fn push_lines(&mut self, lines: &mut Vec<LineInfo>, placed: Placed) -> Result<(), BtfError> {
        let object = self.object;
        let function = &object.functions[placed.function];
        if function.code.lines.first().is_none_or(|&(slot, _)| slot != 0) {
            let name = self.btf.string(&function.name)?;
            lines.push(LineInfo { offset: placed.offset(0) as u32, file: name, text: name, line: 0, column: 0 });
        }
        for &(slot, reason) in &function.code.lines {
            let offset = placed.offset(slot) as u32;
            let line = match self.lines[reason.0 as usize] {
                Some(line) => LineInfo { offset, ..line },
                None => {
                    let Reason { file, text, line, column } = &object.reasons[reason.0 as usize];
                    let (file, text) = (self.btf.string(&one_line(file))?, self.btf.string(&one_line(text))?);
                    LineInfo { offset, file, text, line: *line, column: *column }
                }
            };
            self.lines[reason.0 as usize] = Some(line);
            lines.push(line);
        }
        Ok(())
    }
}

/// The verifier formats a line of its log in 1024 bytes and complains to the kernel's log about a longer one.
const LONGEST_LINE: usize = 400;

/// The text as it can stand in one line of the verifier's log.
fn one_line(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST_LINE && !text.contains(char::is_control) {
        return text.into();
    }
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > LONGEST_LINE {
        line.truncate(line.floor_char_boundary(LONGEST_LINE));
        line.push('…');
    }
    line.into()
}

impl MapKind {
    /// The kernel's number of the kind.
    pub(super) fn number(self) -> u32 {
        use libbpf_sys as sys;
        match self {
            Self::Hash => sys::BPF_MAP_TYPE_HASH,
            Self::Array => sys::BPF_MAP_TYPE_ARRAY,
            Self::ProgArray => sys::BPF_MAP_TYPE_PROG_ARRAY,
            Self::PerfEventArray => sys::BPF_MAP_TYPE_PERF_EVENT_ARRAY,
            Self::PerCpuHash => sys::BPF_MAP_TYPE_PERCPU_HASH,
            Self::PerCpuArray => sys::BPF_MAP_TYPE_PERCPU_ARRAY,
            Self::StackTrace => sys::BPF_MAP_TYPE_STACK_TRACE,
            Self::CgroupArray => sys::BPF_MAP_TYPE_CGROUP_ARRAY,
            Self::LruHash => sys::BPF_MAP_TYPE_LRU_HASH,
            Self::LruPerCpuHash => sys::BPF_MAP_TYPE_LRU_PERCPU_HASH,
            Self::LpmTrie => sys::BPF_MAP_TYPE_LPM_TRIE,
            Self::Queue => sys::BPF_MAP_TYPE_QUEUE,
            Self::Stack => sys::BPF_MAP_TYPE_STACK,
            Self::RingBuf => sys::BPF_MAP_TYPE_RINGBUF,
            Self::BloomFilter => sys::BPF_MAP_TYPE_BLOOM_FILTER,
            Self::UserRingBuf => sys::BPF_MAP_TYPE_USER_RINGBUF,
            Self::Arena => sys::BPF_MAP_TYPE_ARENA,
        }
    }
}
