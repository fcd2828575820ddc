//! The ELF file itself: sections, symbols and relocations.

use object::write::{
    self as out, Relocation, RelocationFlags, SectionId, Symbol, SymbolFlags, SymbolId, SymbolSection,
};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolKind, SymbolScope, elf};

use super::check::WriteError;
use super::layout::{Layout, Placed, Section};
use super::types::Types;
use super::{Function, Linkage, Object, Role, extern_name};
use crate::bpf::{self, RawInsn, Target};

/// Writes an object that [`super::check`] found nothing wrong with.
pub(super) fn write(object: &Object, layout: &Layout<'_>, types: &Types) -> Result<Vec<u8>, WriteError> {
    let mut writer = Writer::new(object);
    let sections: Vec<SectionId> = layout.sections.iter().map(|section| writer.code(section)).collect();
    writer.maps(&types.maps);
    writer.kfuncs();
    writer.read_only();
    // Relocations refer to symbols, so they come when all are there.
    for (section, &id) in layout.sections.iter().zip(&sections) {
        writer.relocations(section, id)?;
    }
    let license = [object.license.as_bytes(), b"\0"].concat();
    writer.data("license", SectionKind::Data, &license, 1);
    writer.data(".BTF", SectionKind::Elf(elf::SHT_PROGBITS), &types.btf, 4);
    // libbpf takes a table of no sections for a damaged one.
    if !layout.sections.is_empty() {
        writer.data(".BTF.ext", SectionKind::Elf(elf::SHT_PROGBITS), &types.btf_ext, 4);
    }
    Ok(writer.elf.write()?)
}

struct Writer<'a> {
    object: &'a Object,
    elf: out::Object<'static>,
    functions: Vec<Option<SymbolId>>,
    maps: Vec<SymbolId>,
    kfuncs: Vec<SymbolId>,
    data: Option<SymbolId>,
}

impl<'a> Writer<'a> {
    fn new(object: &'a Object) -> Self {
        let elf = out::Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
        Self {
            object,
            elf,
            functions: vec![None; object.functions.len()],
            maps: Vec::new(),
            kfuncs: Vec::new(),
            data: None,
        }
    }

    fn data(&mut self, name: &str, kind: SectionKind, content: &[u8], align: u64) -> SectionId {
        let section = self.elf.add_section(Vec::new(), name.into(), kind);
        self.elf.append_section_data(section, content, align);
        section
    }

    /// An executable section with its functions and their symbols.
    fn code(&mut self, section: &Section<'_>) -> SectionId {
        let object = self.object;
        let bodies = section.functions.iter().map(|placed| object.functions[placed.function].code.to_bytes());
        let content = bodies.collect::<Vec<_>>().concat();
        let id = self.data(section.name, SectionKind::Text, &content, 8);
        for placed in &section.functions {
            let function = &object.functions[placed.function];
            self.functions[placed.function] = Some(self.elf.add_symbol(function_symbol(function, *placed, id)));
        }
        id
    }

    /// The variables of `.maps`, `places` being their offsets and sizes. All content is in BTF; the section is zeros.
    fn maps(&mut self, places: &[(u32, u32)]) {
        let Some(&(offset, size)) = places.last() else { return };
        let zeros = vec![0; (offset + size) as usize];
        let section = SymbolSection::Section(self.data(".maps", SectionKind::Data, &zeros, 8));
        for (map, &(offset, size)) in self.object.maps.iter().zip(places) {
            let symbol = Symbol {
                value: offset.into(),
                size: size.into(),
                ..symbol(&map.name, SymbolKind::Data, SymbolScope::Dynamic, section)
            };
            self.maps.push(self.elf.add_symbol(symbol));
        }
    }

    /// Kfuncs are symbols that the object leaves undefined.
    fn kfuncs(&mut self) {
        for kfunc in &self.object.kfuncs {
            let symbol =
                symbol(&extern_name(&kfunc.name), SymbolKind::Text, SymbolScope::Dynamic, SymbolSection::Undefined);
            self.kfuncs.push(self.elf.add_symbol(symbol));
        }
    }

    fn read_only(&mut self) {
        if !self.object.data.is_empty() {
            let section = self.data(".rodata", SectionKind::ReadOnlyData, &self.object.data, 8);
            self.data = Some(self.elf.section_symbol(section));
        }
    }

    fn relocations(&mut self, section: &Section<'_>, id: SectionId) -> Result<(), WriteError> {
        let object = self.object;
        for placed in &section.functions {
            let function = &object.functions[placed.function];
            for &bpf::Relocation { slot, target } in &function.code.relocations {
                let unknown = || WriteError::UnknownTarget { function: function.name.clone(), slot, target };
                let (symbol, r_type) = self.resolve(target).ok_or_else(unknown)?;
                let flags = RelocationFlags::Elf { r_type };
                let relocation = Relocation { offset: placed.offset(slot), symbol, addend: 0, flags };
                self.elf.add_relocation(id, relocation)?;
            }
        }
        Ok(())
    }

    /// The symbol of a target and the type of relocation: 64 bits for an immediate, 32 for a call.
    fn resolve(&self, target: Target) -> Option<(SymbolId, u32)> {
        match target {
            Target::Map(map) => Some((*self.maps.get(map.0 as usize)?, elf::R_BPF_64_64)),
            Target::Data(_) => Some((self.data?, elf::R_BPF_64_64)),
            Target::Function(function) => Some(((*self.functions.get(function.0 as usize)?)?, elf::R_BPF_64_32)),
            Target::Kfunc(kfunc) => Some((*self.kfuncs.get(kfunc.0 as usize)?, elf::R_BPF_64_32)),
        }
    }
}

fn function_symbol(function: &Function, placed: Placed, section: SectionId) -> Symbol {
    // libbpf refuses programs that are local symbols.
    let scope = match function.role {
        Role::Entry { .. } | Role::Subprogram { linkage: Linkage::Global, .. } => SymbolScope::Dynamic,
        Role::Subprogram { linkage: Linkage::Static, .. } => SymbolScope::Compilation,
    };
    Symbol {
        value: placed.offset(0),
        size: (function.code.insns.len() * RawInsn::SIZE) as u64,
        ..symbol(&function.name, SymbolKind::Text, scope, SymbolSection::Section(section))
    }
}

fn symbol(name: &str, kind: SymbolKind, scope: SymbolScope, section: SymbolSection) -> Symbol {
    let flags = SymbolFlags::None;
    Symbol { name: name.into(), value: 0, size: 0, kind, scope, weak: false, section, flags }
}
