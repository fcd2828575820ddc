//! Whether a component is a plugin that this host can run: it exports `guest` in a version that we speak, and imports
//! only what we offer.
//!
//! Wasmtime would find each of these faults too, but one at a time and in its own terms. What is left to it are the
//! types.

use std::path::Path;

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::error::PluginError;
use super::wasi;

/// Our package and its version, as in wit/world.wit.
const PACKAGE: &str = "porthole:trace/";
const VERSION: &str = "0.1.0";
/// The interface that a plugin exports.
const GUEST: &str = "porthole:trace/guest@0.1.0";
/// The interface that it imports.
const HOST: &str = "porthole:trace/host@0.1.0";
/// The version of WASI that we offer; any 0.2 suits a component built for another 0.2.
const WASI: &str = "0.2.0";

/// Refuses a component that is not a plugin, and tells whether it imports anything of WASI.
pub fn check(path: &Path, component: &Component) -> Result<bool, PluginError> {
    let path = || path.to_owned();
    let (ty, engine) = (component.component_type(), component.engine());
    let imports: Vec<_> = ty.imports(engine).filter(|(_, import)| needs_definition(engine, &import.ty)).collect();

    let ours = ty.exports(engine).map(|(name, _)| name).chain(imports.iter().map(|(name, _)| *name));
    if let Some(found) = ours.map(Name::parse).find(|name| name.is_of_another_version()) {
        let (found, offered) = found.and_ours();
        return Err(PluginError::Version { path: path(), found, offered });
    }
    if !ty.exports(engine).any(|(name, _)| Name::parse(name).satisfies(GUEST)) {
        return Err(PluginError::NoGuest { path: path(), missing: GUEST });
    }
    let refused = imports.iter().map(|(name, _)| *name).filter(|name| !Name::parse(name).is_offered());
    let refused: Vec<String> = refused.map(str::to_owned).collect();
    if !refused.is_empty() {
        return Err(PluginError::Imports { path: path(), imports: refused });
    }
    Ok(imports.iter().any(|(name, _)| name.starts_with("wasi:")))
}

/// What a component imports or exports of our package in another version than ours, though one that may stand for it,
/// and what we offer instead: the likely reason where its types do not fit.
pub fn other_version(component: &Component) -> Option<(String, String)> {
    let (ty, engine) = (component.component_type(), component.engine());
    let mut names =
        ty.exports(engine).map(|(name, _)| name).chain(ty.imports(engine).map(|(name, _)| name)).map(Name::parse);
    names.find(|name| name.is_ours() && name.version != Some(VERSION)).map(|name| name.and_ours())
}

/// The name of an interface or a function, taken apart: `porthole:trace/guest@0.1.0`.
#[derive(Clone, Copy)]
struct Name<'a> {
    whole: &'a str,
    /// What stands before the `@`.
    interface: &'a str,
    version: Option<&'a str>,
}

impl<'a> Name<'a> {
    fn parse(whole: &'a str) -> Name<'a> {
        match whole.split_once('@') {
            Some((interface, version)) => Name { whole, interface, version: Some(version) },
            None => Name { whole, interface: whole, version: None },
        }
    }

    /// This, and the same in our version.
    fn and_ours(&self) -> (String, String) {
        (self.whole.to_owned(), format!("{}@{VERSION}", self.interface))
    }

    fn is_ours(&self) -> bool {
        self.interface.starts_with(PACKAGE)
    }

    fn is_of_another_version(&self) -> bool {
        self.is_ours() && !self.version.is_some_and(|version| compatible(version, VERSION))
    }

    /// Whether this is `wanted`, or a version of it that may stand for it.
    fn satisfies(&self, wanted: &str) -> bool {
        let wanted = Name::parse(wanted);
        let same_version = match (self.version, wanted.version) {
            (Some(a), Some(b)) => compatible(a, b),
            (a, b) => a == b,
        };
        self.interface == wanted.interface && same_version
    }

    fn is_offered(&self) -> bool {
        let of_wasi = || {
            wasi::INTERFACES.contains(&self.interface) && self.version.is_some_and(|version| compatible(version, WASI))
        };
        self.satisfies(HOST) || of_wasi()
    }
}

/// Whether two versions may stand for each other, by semver's rule as wasmtime's linker has it: equal up to the first
/// number that is not 0. A pre-release stands only for itself.
fn compatible(a: &str, b: &str) -> bool {
    fn track(version: &str) -> Option<(u64, u64)> {
        let numbers: Option<Vec<u64>> = version.split('.').map(|number| number.parse().ok()).collect();
        match *numbers?.as_slice() {
            [0, 0, _] => None,
            [0, minor, _] => Some((0, minor)),
            [major, _, _] => Some((major, 0)),
            _ => None,
        }
    }
    a == b || track(a).is_some_and(|a| track(b) == Some(a))
}

/// Whether an import must be given. An interface of nothing but types asks for nothing.
fn needs_definition(engine: &Engine, item: &ComponentItem) -> bool {
    match item {
        ComponentItem::ComponentInstance(instance) => {
            instance.exports(engine).any(|(_, export)| !matches!(export.ty, ComponentItem::Type(_)))
        }
        ComponentItem::Type(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_contract() {
        let world = include_str!("../../../wit/world.wit");
        assert!(world.contains(&format!("package porthole:trace@{VERSION};")));
        assert_eq!(GUEST, format!("{PACKAGE}guest@{VERSION}"));
        assert_eq!(HOST, format!("{PACKAGE}host@{VERSION}"));
    }

    #[test]
    fn compatible_versions() {
        assert!(compatible("0.1.0", "0.1.7"));
        assert!(compatible("1.2.0", "1.9.1"));
        assert!(compatible("0.2.0-rc", "0.2.0-rc"));
        assert!(!compatible("0.1.0", "0.2.0"));
        assert!(!compatible("0.0.1", "0.0.2"));
        assert!(!compatible("1.0.0", "2.0.0"));
        assert!(!compatible("0.2.0-rc", "0.2.0"));
        assert!(!compatible("junk", "0.1.0"));
    }
}
