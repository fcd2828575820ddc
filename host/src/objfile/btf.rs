//! BTF, built by libbpf behind a safe face.

use std::ffi::{CString, c_int};
use std::io;
use std::ptr::NonNull;

use libbpf_sys as sys;

/// libbpf could not add something to a BTF.
#[derive(Debug, thiserror::Error)]
#[error("cannot add {what}")]
pub struct BtfError {
    what: String,
    source: io::Error,
}

/// Id of a type in the [`Btf`] that gave it; 0 is `void`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TypeId(c_int);

impl TypeId {
    pub(super) const VOID: Self = Self(0);

    pub(super) fn number(self) -> u32 {
        // `succeeded` let no negative number through.
        self.0.unsigned_abs()
    }
}

/// Types and strings, in the order in which they are added.
pub(super) struct Btf(NonNull<sys::btf>);

/// What an integer's bits mean.
#[derive(Clone, Copy)]
pub(super) enum IntEncoding {
    Unsigned,
    Signed,
    Bool,
}

/// A variable's place in a data section, in bytes.
pub(super) struct Placement {
    pub(super) variable: TypeId,
    pub(super) offset: u32,
    pub(super) size: u32,
}

#[derive(Clone, Copy)]
pub(super) enum FunctionLinkage {
    Static,
    Global,
    Extern,
}

impl Btf {
    /// An empty BTF for a machine with pointers of 8 bytes.
    pub(super) fn new() -> Result<Self, BtfError> {
        // SAFETY: the function takes nothing and gives null or a BTF that is ours to free.
        let btf = unsafe { sys::btf__new_empty() };
        let Some(btf) = NonNull::new(btf).map(Self) else {
            return Err(BtfError { what: "an empty BTF".to_owned(), source: io::Error::last_os_error() });
        };
        // SAFETY: the pointer is to a live BTF that only `btf` holds.
        let status = unsafe { sys::btf__set_pointer_size(btf.0.as_ptr(), 8) };
        succeeded(status, || "a pointer size".to_owned())?;
        Ok(btf)
    }

    /// The offset of a string in the string section.
    pub(super) fn string(&mut self, text: &str) -> Result<u32, BtfError> {
        let text = c_string(text)?;
        // SAFETY: `self` holds a live BTF; libbpf copies the string, which ends with a NUL.
        let offset = unsafe { sys::btf__add_str(self.0.as_ptr(), text.as_ptr()) };
        let offset = succeeded(offset, || format!("string {text:?}"))?;
        Ok(offset.unsigned_abs())
    }

    pub(super) fn int(&mut self, name: &str, bytes: u8, encoding: IntEncoding) -> Result<TypeId, BtfError> {
        let encoding = match encoding {
            IntEncoding::Unsigned => 0,
            IntEncoding::Signed => sys::BTF_INT_SIGNED,
            IntEncoding::Bool => sys::BTF_INT_BOOL,
        };
        let name = c_string(name)?;
        // SAFETY: `self` holds a live BTF; libbpf copies the name, which ends with a NUL.
        let id = unsafe { sys::btf__add_int(self.0.as_ptr(), name.as_ptr(), bytes.into(), encoding as c_int) };
        added(id, || format!("int {name:?}"))
    }

    pub(super) fn pointer(&mut self, to: TypeId) -> Result<TypeId, BtfError> {
        // SAFETY: `self` holds a live BTF; libbpf checks the id.
        let id = unsafe { sys::btf__add_ptr(self.0.as_ptr(), to.0) };
        added(id, || "a pointer".to_owned())
    }

    pub(super) fn array(&mut self, index: TypeId, element: TypeId, count: u32) -> Result<TypeId, BtfError> {
        // SAFETY: `self` holds a live BTF; libbpf checks the ids.
        let id = unsafe { sys::btf__add_array(self.0.as_ptr(), index.0, element.0, count) };
        added(id, || "an array".to_owned())
    }

    /// A struct of pointers, 8 bytes each; without a name if `name` is empty.
    pub(super) fn struct_of_pointers(&mut self, name: &str, fields: &[(&str, TypeId)]) -> Result<TypeId, BtfError> {
        let name = c_string(name)?;
        let bytes = 8 * fields.len() as u32;
        // SAFETY: `self` holds a live BTF; libbpf copies the name, which ends with a NUL.
        let id = unsafe { sys::btf__add_struct(self.0.as_ptr(), name.as_ptr(), bytes) };
        let id = added(id, || format!("struct {name:?}"))?;
        for (bit_offset, &(field, ty)) in (0..).step_by(64).zip(fields) {
            let field = c_string(field)?;
            // SAFETY: as above; the last type added is the struct that the field becomes part of.
            let status = unsafe { sys::btf__add_field(self.0.as_ptr(), field.as_ptr(), ty.0, bit_offset, 0) };
            succeeded(status, || format!("field {field:?}"))?;
        }
        Ok(id)
    }

    /// A union without members.
    pub(super) fn empty_union(&mut self, name: &str) -> Result<TypeId, BtfError> {
        let name = c_string(name)?;
        // SAFETY: `self` holds a live BTF; libbpf copies the name, which ends with a NUL.
        let id = unsafe { sys::btf__add_union(self.0.as_ptr(), name.as_ptr(), 0) };
        added(id, || format!("union {name:?}"))
    }

    /// An enum of 4 bytes, without values.
    pub(super) fn empty_enum(&mut self, name: &str) -> Result<TypeId, BtfError> {
        let name = c_string(name)?;
        // SAFETY: `self` holds a live BTF; libbpf copies the name, which ends with a NUL.
        let id = unsafe { sys::btf__add_enum(self.0.as_ptr(), name.as_ptr(), 4) };
        added(id, || format!("enum {name:?}"))
    }

    /// A struct that is declared but not defined.
    pub(super) fn forward(&mut self, name: &str) -> Result<TypeId, BtfError> {
        let name = c_string(name)?;
        // SAFETY: `self` holds a live BTF; libbpf copies the name, which ends with a NUL.
        let id = unsafe { sys::btf__add_fwd(self.0.as_ptr(), name.as_ptr(), sys::BTF_FWD_STRUCT) };
        added(id, || format!("forward {name:?}"))
    }

    /// The type of a function: its result, and its parameters with their names.
    pub(super) fn prototype(&mut self, result: TypeId, parameters: &[(&str, TypeId)]) -> Result<TypeId, BtfError> {
        // SAFETY: `self` holds a live BTF; libbpf checks the id.
        let id = unsafe { sys::btf__add_func_proto(self.0.as_ptr(), result.0) };
        let id = added(id, || "a prototype".to_owned())?;
        for &(parameter, ty) in parameters {
            let parameter = c_string(parameter)?;
            // SAFETY: as above; libbpf copies the name, and the last type added is the prototype that it becomes part
            // of.
            let status = unsafe { sys::btf__add_func_param(self.0.as_ptr(), parameter.as_ptr(), ty.0) };
            succeeded(status, || format!("parameter {parameter:?}"))?;
        }
        Ok(id)
    }

    pub(super) fn function(
        &mut self,
        name: &str,
        linkage: FunctionLinkage,
        prototype: TypeId,
    ) -> Result<TypeId, BtfError> {
        let linkage = match linkage {
            FunctionLinkage::Static => sys::BTF_FUNC_STATIC,
            FunctionLinkage::Global => sys::BTF_FUNC_GLOBAL,
            FunctionLinkage::Extern => sys::BTF_FUNC_EXTERN,
        };
        let name = c_string(name)?;
        // SAFETY: `self` holds a live BTF; libbpf copies the name, which ends with a NUL, and checks the id.
        let id = unsafe { sys::btf__add_func(self.0.as_ptr(), name.as_ptr(), linkage, prototype.0) };
        added(id, || format!("function {name:?}"))
    }

    /// A global variable.
    pub(super) fn variable(&mut self, name: &str, ty: TypeId) -> Result<TypeId, BtfError> {
        let name = c_string(name)?;
        let linkage = sys::BTF_VAR_GLOBAL_ALLOCATED as c_int;
        // SAFETY: `self` holds a live BTF; libbpf copies the name, which ends with a NUL, and checks the id.
        let id = unsafe { sys::btf__add_var(self.0.as_ptr(), name.as_ptr(), linkage, ty.0) };
        added(id, || format!("variable {name:?}"))
    }

    /// A section of `bytes` bytes, and what is in it in the order of offsets.
    pub(super) fn data_section(&mut self, name: &str, bytes: u32, members: &[Placement]) -> Result<TypeId, BtfError> {
        let name = c_string(name)?;
        // SAFETY: `self` holds a live BTF; libbpf copies the name, which ends with a NUL.
        let id = unsafe { sys::btf__add_datasec(self.0.as_ptr(), name.as_ptr(), bytes) };
        let id = added(id, || format!("section {name:?}"))?;
        for Placement { variable, offset, size } in members {
            // SAFETY: as above; the last type added is the section that the member becomes part of.
            let status = unsafe { sys::btf__add_datasec_var_info(self.0.as_ptr(), variable.0, *offset, *size) };
            succeeded(status, || format!("a member of section {name:?}"))?;
        }
        Ok(id)
    }

    /// The content of a `.BTF` section.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, BtfError> {
        let mut size = 0;
        // SAFETY: `self` holds a live BTF, and `size` is there to be written.
        let data = unsafe { sys::btf__raw_data(self.0.as_ptr(), &mut size) };
        if data.is_null() {
            return Err(BtfError { what: "a header".to_owned(), source: io::Error::last_os_error() });
        }
        // SAFETY: libbpf gave `size` bytes at `data`, which stay until the BTF is changed or freed; we hold it till
        // then.
        Ok(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size as usize) }.to_vec())
    }
}

impl Drop for Btf {
    fn drop(&mut self) {
        // SAFETY: the BTF is ours and nothing else points into it: `to_bytes` copies.
        unsafe { sys::btf__free(self.0.as_ptr()) }
    }
}

fn added(answer: c_int, what: impl FnOnce() -> String) -> Result<TypeId, BtfError> {
    succeeded(answer, what).map(TypeId)
}

/// libbpf answers with 0, an id or an offset, or with a negative error number.
fn succeeded(answer: c_int, what: impl FnOnce() -> String) -> Result<c_int, BtfError> {
    if answer < 0 {
        return Err(BtfError { what: what(), source: io::Error::from_raw_os_error(-answer) });
    }
    Ok(answer)
}

fn c_string(text: &str) -> Result<CString, BtfError> {
    CString::new(text).map_err(|error| BtfError { what: format!("string {text:?}"), source: error.into() })
}
